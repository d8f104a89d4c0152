"""Keys in a folder: which names are refused, when files are read again, and whom a readable secret is reported to."""

from __future__ import annotations

import asyncio
import base64
import errno
import json
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from lapel.cli import main
from lapel.crypto import CryptoProvider
from lapel.driver import DriverContext
from lapel.errors import (
    ClosedError,
    ConfigurationError,
    InvalidArgumentError,
    KeyTypeError,
    LapelError,
    NotFoundError,
    PermissionDeniedError,
)
from lapel_contrib.local import keyfiles
from lapel_contrib.local.algorithms import decrypt, encrypt
from lapel_contrib.local.crypto import LocalCrypto
from lapel_contrib.local.keyfiles import MAX_KEY_FILE, KeyFolder
from lapel_contrib.local.keys import LocalKey, parse_key
from lapel_contrib.local.settings import LocalCryptoSettings

RSA_KEY = rsa.generate_private_key(65_537, 2_048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()
PLAIN = NoEncryption()
PUBLIC_PEM = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
SECRET = bytes(range(100, 132))
SECRET_TEXT = base64.b64encode(SECRET).decode()


def jwk() -> dict[str, Any]:
    return {"kty": "oct", "k": base64.urlsafe_b64encode(SECRET).rstrip(b"=").decode()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "keys"
    root.mkdir()
    write(root / "secret", SECRET_TEXT.encode())
    return root


def write(path: Path, data: bytes, *, mode: int = 0o600, age: float = 60) -> None:
    path.write_bytes(data)
    path.chmod(mode)
    stamp = path.stat().st_mtime - age
    os.utime(path, (stamp, stamp))


async def test_a_key_is_named_like_its_file(folder: Path) -> None:
    (folder / "sub").mkdir()
    write(folder / "sub" / "rsa.pem", RSA_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, PLAIN))
    write(folder / "sub" / "key.json", json.dumps(jwk()).encode())
    write(folder / "ed.der", ED_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    keys = KeyFolder(folder)
    loaded = [await keys.load(name) for name in ("secret", "sub/rsa.pem", "sub/key.json", "ed.der")]
    assert [(key.name, key.kind) for key in loaded] == [
        ("secret", "oct"),
        ("sub/rsa.pem", "RSA"),
        ("sub/key.json", "oct"),
        ("ed.der", "OKP"),
    ]
    nonce = bytes(12)
    sealed, tag = encrypt(loaded[0], "A256GCM", b"message", nonce)
    assert decrypt(loaded[2], "A256GCM", sealed, nonce, tag) == b"message"
    await keys.aclose()


async def test_the_extension_decides_on_the_format(folder: Path) -> None:
    for name in ("key.json", "key.PEM", "key.der"):
        write(folder / name, SECRET_TEXT.encode())
        with pytest.raises(KeyTypeError, match=name):
            await KeyFolder(folder).load(name)


@pytest.mark.parametrize("name", ["", "..", "../outside", "sub/../secret", "a..b", "/etc/hostname", "nul\0", "\0"])
async def test_names_that_could_leave_the_folder_are_refused(folder: Path, name: str) -> None:
    write(folder.parent / "outside", SECRET)
    with pytest.raises(InvalidArgumentError, match="key name"):
        await KeyFolder(folder).load(name)


@pytest.mark.parametrize("name", [".", "missing", "sub/missing", "secret/below", "sub", "x" * 300, "%2e%2e%2foutside"])
async def test_names_without_a_file_are_not_found(folder: Path, name: str) -> None:
    (folder / "sub").mkdir()
    write(folder.parent / "outside", SECRET)
    with pytest.raises(NotFoundError):
        await KeyFolder(folder).load(name)


async def test_links_may_lead_within_the_folder_only(folder: Path) -> None:
    write(folder.parent / "outside", SECRET)
    (folder / "escape").symlink_to(folder.parent / "outside")
    (folder / "up").symlink_to(folder.parent)
    (folder / "inside").symlink_to("secret")
    (folder / "loop").symlink_to("loop")
    keys = KeyFolder(folder)
    for name in ("escape", "up/outside"):
        with pytest.raises(InvalidArgumentError, match="leads out"):
            await keys.load(name)
    with pytest.raises(NotFoundError):
        await keys.load("loop")
    assert (await keys.load("inside")).material == SECRET


async def test_the_folder_itself_may_be_a_link(folder: Path) -> None:
    (folder.parent / "link").symlink_to(folder)
    assert (await KeyFolder(folder.parent / "link").load("secret")).material == SECRET


async def test_pipes_and_huge_files_are_no_keys(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    write(folder / "huge", b"A" * (MAX_KEY_FILE + 1))
    keys = KeyFolder(folder)
    with pytest.raises(NotFoundError):
        await keys.load("pipe")
    with pytest.raises(KeyTypeError, match=str(MAX_KEY_FILE)):
        await keys.load("huge")


async def test_a_file_that_may_not_be_read_is_a_typed_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*arguments: object) -> int:
        raise PermissionError(errno.EACCES, "denied")  # File modes do not bind every user.

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(PermissionDeniedError, match="'secret'"):
        await KeyFolder(folder).load("secret")


async def test_check_tells_whether_the_folder_exists(folder: Path) -> None:
    await KeyFolder(folder).check()
    for path in (folder / "missing", folder / "secret"):
        with pytest.raises(ConfigurationError, match="existing folder"):
            await KeyFolder(path).check()


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an hour pass since all files were written, so that stamps tell versions apart."""
    monkeypatch.setattr(keyfiles, "time_ns", lambda: time.time_ns() + 3_600_000_000_000)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the names of the keys that are parsed."""
    names = []

    def noting(data: bytes, name: str, known: Any = None) -> LocalKey:
        names.append(name)
        return parse_key(data, name, known)

    monkeypatch.setattr(keyfiles, "parse_key", noting)
    return names


@pytest.mark.usefixtures("later")
async def test_an_unchanged_file_is_parsed_once_and_a_changed_one_again(folder: Path, parsed: list[str]) -> None:
    keys = KeyFolder(folder)
    assert await keys.load("secret") is await keys.load("secret")
    assert parsed == ["secret"]

    replacement = folder / "new"
    write(replacement, b"\xff" * 32)
    replacement.replace(folder / "secret")
    assert (await keys.load("secret")).material == b"\xff" * 32

    write(folder / "secret", b"\xfe" * 32)
    assert (await keys.load("secret")).material == b"\xfe" * 32

    (folder / "secret").unlink()
    with pytest.raises(NotFoundError):
        await keys.load("secret")


@pytest.mark.usefixtures("later")
async def test_a_file_with_a_time_in_the_future_is_parsed_once(folder: Path, parsed: list[str]) -> None:
    write(folder / "secret", SECRET, age=-(10**9))
    keys = KeyFolder(folder)
    assert await keys.load("secret") is await keys.load("secret")
    assert parsed == ["secret"]
    await keys.aclose()


@pytest.mark.usefixtures("later")
async def test_all_names_of_a_file_are_one_and_those_of_no_file_are_forgotten(folder: Path, parsed: list[str]) -> None:
    (folder / "sub").mkdir()
    write(folder / "sub" / "key.json", json.dumps(jwk()).encode())
    keys = KeyFolder(folder)
    names = ("sub/key.json", "./sub/key.json", "sub//key.json", ".//sub/././key.json", "sub/key.json/")
    assert {(await keys.load(name)).material for name in names} == {SECRET}
    for number in range(100):
        for name in (f"missing-{number}", f"./missing-{number}", f"secret/{number}"):
            with pytest.raises(NotFoundError):
                await keys.load(name)
    assert parsed == ["sub/key.json"]
    assert list(keys._known) == ["sub/key.json"]
    assert not keys._looking
    assert not keys._waiting
    await keys.aclose()


@pytest.mark.parametrize("fraction", [0, 123_456_789])
@pytest.mark.parametrize("age", [0.0, 0.05, 0.5, 1.5, 2.5])
async def test_a_file_is_kept_when_a_later_change_must_show(
    folder: Path, monkeypatch: pytest.MonkeyPatch, fraction: int, age: float
) -> None:
    """Clocks of file systems tick: within one tick a second change has the stamp of the first."""
    stamp = keyfiles._Stamp(1, 1, 32, 1_700_000_000_000_000_000, 1_700_000_000_000_000_000 + fraction)
    monkeypatch.setattr(keyfiles, "_stamp", lambda status: stamp)
    monkeypatch.setattr(keyfiles, "time_ns", lambda: stamp.changed_ns + int(age * 1e9))
    keys = KeyFolder(folder)
    first = (await keys.load("secret")).material
    write(folder / "secret", bytes([200]) * 32)
    kept = age > (0.1 if fraction else 2)
    assert (await keys.load("secret")).material == (first if kept else bytes([200]) * 32)
    await keys.aclose()


@pytest.mark.usefixtures("later")
async def test_many_calls_share_one_look_and_a_cancelled_one_disturbs_nobody(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed, release = [], threading.Event()

    def slow(data: bytes, name: str, known: Any = None) -> LocalKey:
        parsed.append(name)
        release.wait(10)
        return parse_key(data, name, known)

    monkeypatch.setattr(keyfiles, "parse_key", slow)
    keys = KeyFolder(folder)
    calls = [asyncio.create_task(keys.load("secret")) for _ in range(100)]
    while not parsed:
        await asyncio.sleep(0.001)
    for cancelled in (calls[0], calls[50]):
        cancelled.cancel()
        await asyncio.wait([cancelled])
    release.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [index for index, result in enumerate(results) if isinstance(result, asyncio.CancelledError)] == [0, 50]
    assert {id(result) for index, result in enumerate(results) if index not in (0, 50)} == {id(results[1])}
    assert parsed == ["secret"]
    await keys.aclose()


async def test_a_call_made_after_the_file_was_replaced_never_gets_the_key_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, release = threading.Event(), threading.Event()

    def slow(data: bytes, name: str, known: Any = None) -> LocalKey:
        begun.set()
        release.wait(10)
        return parse_key(data, name, known)

    monkeypatch.setattr(keyfiles, "parse_key", slow)
    keys = KeyFolder(folder)
    before = asyncio.create_task(keys.load("secret"))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    write(folder / "secret", b"\xfe" * 32)
    after = asyncio.create_task(keys.load("secret"))
    await asyncio.sleep(0)
    release.set()
    assert (await before).material == SECRET
    assert (await after).material == b"\xfe" * 32
    await keys.aclose()


async def test_close_waits_for_the_loads_under_way_and_is_final(folder: Path) -> None:
    keys = KeyFolder(folder)
    call = asyncio.create_task(keys.load("secret"))
    await asyncio.sleep(0)
    await keys.aclose()
    await keys.aclose()
    assert (await call).material == SECRET
    with pytest.raises(ClosedError):
        await keys.load("secret")


async def test_a_failing_load_that_nobody_waits_for_leaves_no_trace(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = KeyFolder(folder)
    call = asyncio.create_task(keys.load("missing"))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await keys.aclose()
    assert not caplog.records


@pytest.mark.skipif(os.name != "posix", reason="file modes")
async def test_a_secret_that_others_may_read_is_reported_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(folder / "open", SECRET, mode=0o640)
    public = EC_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    write(folder / "public.pem", public, mode=0o644)
    keys = KeyFolder(folder)
    with caplog.at_level(logging.WARNING):
        for name in ("open", "public.pem", "secret", "open"):
            await keys.load(name)
        write(folder / "open", SECRET[::-1], mode=0o644)
        await keys.load("open")
    assert [record.getMessage() for record in caplog.records] == [
        "key file 'open' may be read by group or others (mode 0640): make it 0600"
    ]


@pytest.mark.skipif(os.name != "posix", reason="file modes")
async def test_opening_tells_secrets_apart_without_parsing_them(
    folder: Path, caplog: pytest.LogCaptureFixture, parsed: list[str]
) -> None:
    """Kubernetes mounts keys readable by all, and hundreds of them must not keep the component from opening in time."""
    write(folder / "rsa.pem", RSA_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, PLAIN), mode=0o644)
    write(folder / "rsa.der", RSA_KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, PLAIN), mode=0o644)
    write(folder / "key.json", json.dumps(jwk()).encode(), mode=0o644)
    for name, encoding in (("public.pem", Encoding.PEM), ("public.der", Encoding.DER)):
        public = RSA_KEY.public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
        write(folder / name, public, mode=0o644)
    keys = KeyFolder(folder)
    await keys.open()
    assert {record.getMessage().split("'")[1] for record in caplog.records} == {"rsa.pem", "rsa.der", "key.json"}
    assert parsed == []
    await keys.aclose()


@pytest.mark.skipif(os.name != "posix", reason="file modes")
async def test_secrets_that_others_may_read_are_reported_when_the_component_opens(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "sub").mkdir()
    (folder / "..data").mkdir()
    write(folder / "sub" / "open", SECRET, mode=0o644)
    write(folder / "..data" / "not-a-name", SECRET, mode=0o644)
    write(folder / "public.pem", EC_KEY.public_key().public_bytes(*PUBLIC_PEM), mode=0o644)
    write(folder / "broken.json", b"{", mode=0o644)
    (folder / "dangling").symlink_to("nowhere")
    settings = LocalCryptoSettings(path=folder)
    async with CryptoProvider(LocalCrypto(settings, DriverContext(component="vault"))) as provider:
        expected = [
            ("lapel.component.vault", "key file 'sub/open' may be read by group or others (mode 0644): make it 0600")
        ]
        assert [(record.name, record.getMessage()) for record in caplog.records] == expected
        await provider.subtle.wrap_key(bytes(16), algorithm="A256KW", key_name="sub/open")
        assert len(caplog.records) == 1


async def test_errors_of_a_folder_never_hold_the_material(folder: Path) -> None:
    write(folder / "broken.json", b'{"kty":"oct","k":"' + SECRET_TEXT.encode() + b'",}')
    with pytest.raises(LapelError) as caught:
        await KeyFolder(folder).load("broken.json")
    seen: BaseException | None = caught.value
    while seen is not None:
        assert SECRET_TEXT[:16] not in repr(seen)
        seen = seen.__cause__ or seen.__context__


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_the_command_that_checks_components_shows_the_warning(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "secret").chmod(0o644)
    (folder.parent / "vault.yaml").write_text(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: vault}\n"
        f"spec: {{type: crypto.dapr.localstorage, version: v1, metadata: [{{name: path, value: {folder}}}]}}\n"
    )
    warning = "key file 'secret' may be read by group or others (mode 0644): make it 0600"
    for options in ([], ["--json"]):
        with pytest.raises(SystemExit) as ended:
            main(["check", str(folder.parent / "vault.yaml"), *options])
        assert ended.value.code == 0
        out = capsys.readouterr().out
        if options:
            assert json.loads(out)["components"][0]["warnings"] == [warning]
        else:
            assert f"vault: warning: {warning}" in out.splitlines()
