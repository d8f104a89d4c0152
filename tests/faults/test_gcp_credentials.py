"""Large objects, and credentials that end, in front of Google Cloud Storage."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.backends.certificates import Certificates, make_certificates
from tests.backends.gcs import GcsBackend
from tests.backends.gcs_front import GcsFront, front_of
from tests.unit.test_gcp_bucket import binding_at
from tests.unit.test_gcp_settings import ACCOUNT

from lapel.bindings import OutputBinding
from lapel.errors import ConfigurationError, PermissionDeniedError, UnavailableError

pytestmark = pytest.mark.faults

ROOT = Path(__file__).parents[2]


async def test_a_hundred_mebibytes_go_through_in_forty(gcs_server: GcsBackend, gcs_bucket: str) -> None:
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("gcp_memory.py")),
        gcs_server.endpoint,
        gcs_bucket,
        "100",
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await program.communicate()
    assert program.returncode == 0
    grown: dict[str, int] = json.loads(output)
    assert set(grown) == {"create", "get", "bulkGet"}
    assert max(grown.values()) < 40 * 1024, grown
    assert int(gcs_server.attributes(gcs_bucket, "large")["size"]) == 100 * 1024 * 1024


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path / "tls")


@pytest.fixture
def guarded(gcs_server: GcsBackend, certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> Iterator[GcsFront]:
    """A server behind TLS that issues tokens and accepts the last one only."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates.client.ca))
    with front_of(gcs_server, tls=certificates) as front:
        front.tokens = []
        yield front


def guarded_binding(front: GcsFront, bucket: str) -> OutputBinding:
    return binding_at(front.url, bucket, **ACCOUNT, tokenURI=f"{front.url}/token")


async def test_a_token_that_ends_in_the_middle_is_replaced(guarded: GcsFront, gcs_bucket: str) -> None:
    async with guarded_binding(guarded, gcs_bucket) as binding:
        await binding.invoke("create", b"x", metadata={"key": "k"})
        assert guarded.tokens == ["token-0"]
        for operation in ("get", "create", "list", "delete"):
            assert guarded.tokens is not None
            guarded.tokens.append("revoked")
            before = len(guarded.tokens)
            await binding.invoke(operation, None if operation != "create" else b"y", metadata={"key": "k"})
            assert len(guarded.tokens) == before + 1


async def test_many_calls_at_once_survive_the_end_of_a_token(guarded: GcsFront, gcs_bucket: str) -> None:
    async with guarded_binding(guarded, gcs_bucket) as binding:
        await binding.invoke("create", b"x", metadata={"key": "k"})
        assert guarded.tokens is not None
        # The first to notice gets a new one; from then on all issued ones count, as they do at Google.
        guarded.tokens.append("revoked")
        outcomes = await asyncio.gather(
            *(binding.invoke("get", metadata={"key": "k"}) for _ in range(4)), return_exceptions=True
        )
        assert any(not isinstance(outcome, BaseException) for outcome in outcomes)
        assert (await binding.invoke("get", metadata={"key": "k"})).data == b"x"


async def test_a_key_that_was_disabled_is_named_and_shown_nowhere(guarded: GcsFront, gcs_bucket: str) -> None:
    async with guarded_binding(guarded, gcs_bucket) as binding:
        assert guarded.tokens is not None
        guarded.tokens.append("revoked")
        guarded.answer("POST", "/token", 400, {"error": "invalid_grant", "error_description": "Invalid JWT"}, times=9)
        with pytest.raises(PermissionDeniedError, match="no token") as caught:
            await binding.invoke("get", metadata={"key": "k"})
        assert "JWT" not in str(caught.value)


async def test_a_token_service_that_is_down_is_unavailable(guarded: GcsFront, gcs_bucket: str) -> None:
    async with guarded_binding(guarded, gcs_bucket) as binding:
        assert guarded.tokens is not None
        guarded.tokens.append("revoked")
        guarded.answer("POST", "/token", 503, {}, times=99)
        with pytest.raises(UnavailableError, match="token"):
            await binding.invoke("create", b"x", metadata={"key": "k"})


async def test_a_server_that_is_not_trusted_gets_no_token(
    guarded: GcsFront, gcs_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(ConfigurationError, match="certificate"):
        await guarded_binding(guarded, gcs_bucket).open()
    assert guarded.seen == []
