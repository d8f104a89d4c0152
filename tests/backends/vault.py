"""Vault: a server of this run's own, initialised and unsealed by it, or wherever an endpoint is named."""

from __future__ import annotations

import http.client
import json
import secrets
import shutil
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import compose, vault_build
from .backend import Backend, Facts
from .certificates import make_certificates
from .launcher import Technology
from .ports import free_port
from .process import POLL, NotReady, Process
from .provision import Unavailable

__all__ = ["TECHNOLOGIES", "VaultBackend", "VaultOptions", "VaultRefusal", "VaultServer", "attach"]

KV2, KV1, TRANSIT = "secret", "kv1", "transit"
"""Where the engines are mounted."""

_ENGINES: Mapping[str, dict[str, Any]] = {
    KV2: {"type": "kv", "options": {"version": "2"}},
    KV1: {"type": "kv", "options": {"version": "1"}},
    TRANSIT: {"type": "transit"},
}
_COMPOSE_TOKEN = "lapel"


class VaultRefusal(Exception):  # noqa: N818 - what the server said
    """The server refused a request: `status` and its text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


@dataclass(frozen=True, kw_only=True)
class VaultOptions:
    """How a server of one's own is to be."""

    tls: bool = False
    """Encrypted connections only."""


class VaultBackend(Backend):
    """A server with engines at `KV2`, `KV1` and `TRANSIT`, and a token that may do everything."""

    def __init__(self, facts: Facts, address: str = "", token: str = "", ca: Path | None = None) -> None:
        super().__init__(facts)
        self.address = address
        self.token = token
        self.ca = ca

    @property
    def properties(self) -> dict[str, str]:
        fields = {"vaultAddr": self.address, "vaultToken": self.token}
        return fields if self.ca is None else fields | {"caCert": str(self.ca)}

    @property
    def url(self) -> str:
        scheme, _, place = self.address.partition("://")
        query = "" if self.ca is None else f"?ca={urllib.parse.quote(str(self.ca))}"
        return f"{scheme}://:{urllib.parse.quote(self.token, safe='')}@{place}{query}"

    @property
    def host(self) -> str:
        """Where it listens."""
        return urllib.parse.urlsplit(self.address).hostname or ""

    @property
    def port(self) -> int:
        """The port there."""
        return urllib.parse.urlsplit(self.address).port or 8200

    def call(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> dict[str, Any]:
        """Send one request below `/v1/` as root, or with another token; `VaultRefusal` unless it is a success."""
        request = urllib.request.Request(
            f"{self.address}/v1/{urllib.parse.quote(path, safe='/?=&')}",
            None if body is None else json.dumps(body).encode(),
            {"X-Vault-Token": self.token if token is None else token},
            method=method,
        )
        context = None if self.ca is None else ssl.create_default_context(cafile=self.ca)
        try:
            with urllib.request.urlopen(request, timeout=10, context=context) as reply:
                content = reply.read()
        except urllib.error.HTTPError as error:
            raise VaultRefusal(error.code, error.read().decode(errors="replace")) from None
        found: dict[str, Any] = json.loads(content) if content else {}
        return found

    def new_token(self, *, policy: str | None = None, **options: Any) -> str:
        """Return a new token: with the rights of `policy`, in Vault's language, else with all rights."""
        policies = ["root"]
        if policy is not None:
            policies = [f"test-{secrets.token_hex(6)}"]
            self.call("PUT", f"sys/policies/acl/{policies[0]}", {"policy": policy})
        made = self.call("POST", "auth/token/create-orphan", {"policies": policies, **options})
        token: str = made["auth"]["client_token"]
        return token

    def revoke(self, token: str) -> None:
        """End a token now."""
        self.call("POST", "auth/token/revoke", {"token": token})

    def prepare(self) -> None:
        """Mount what is not mounted yet, and return when it serves."""
        mounted = self.call("GET", "sys/mounts")["data"]
        for path, engine in _ENGINES.items():
            if f"{path}/" not in mounted:
                self.call("POST", f"sys/mounts/{path}", engine)
        deadline = time.monotonic() + 20
        # An engine of version 2 refuses everything for a moment, while it makes itself ready.
        while not self._serves(f"{KV2}/config"):
            if time.monotonic() > deadline:
                raise NotReady(f"the engine {KV2} does not serve")
            time.sleep(POLL)

    def _serves(self, path: str) -> bool:
        try:
            self.call("GET", path)
        except VaultRefusal:
            return False
        return True


class VaultServer(VaultBackend):
    """A process of this run's own. It keeps its data over a restart, in files, and an audit log of its requests."""

    def __init__(self, folder: Path, options: VaultOptions | None = None) -> None:
        self.options = options or VaultOptions()
        self._folder = folder
        self._program = vault_build.need_built()
        self._key = ""
        super().__init__(Facts("real", vault_build.version(), "own process"))

    def configure(self) -> None:
        port = free_port(offsets=(0, 1))
        listener: dict[str, Any] = {"address": f"127.0.0.1:{port}", "tls_disable": True}
        if self.options.tls:
            made = make_certificates(self._folder / "tls")
            self.ca = made.client.ca
            listener |= {
                "tls_disable": False,
                "tls_cert_file": str(made.server_cert),
                "tls_key_file": str(made.server_key),
            }
        self.address = f"{'https' if self.options.tls else 'http'}://127.0.0.1:{port}"
        data = self._folder / "data"
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir()
        settings = {
            "storage": {"raft": {"path": str(data), "node_id": "only", "performance_multiplier": 1}},
            "listener": [{"tcp": listener}],
            "api_addr": self.address,
            # Where servers of one cluster talk to each other, which raft wants to know even if there is no other.
            "cluster_addr": f"https://127.0.0.1:{port + 1}",
            "disable_mlock": True,
            "log_level": "warn",
        }
        file = self._folder / "vault.json"
        file.write_text(json.dumps(settings))
        command: list[str | Path] = [self._program, "server", f"-config={file}"]
        environment = {"HOME": str(self._folder), "SKIP_SETCAP": "1"}
        process = Process(
            "vault", command, folder=self._folder, environment=environment, check=lambda _: self._listens()
        )
        self.processes = (process,)

    def wait_ready(self) -> None:
        super().wait_ready()
        if not self._key:
            made = self.call("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
            self._key, self.token = made["keys"][0], made["root_token"]
            self.unseal()
            self.prepare()
            self.call("PUT", "sys/audit/file", {"type": "file", "options": {"file_path": str(self._audit)}})
        else:
            self.unseal()

    def seal(self) -> None:
        """Make it refuse everything until `unseal`."""
        self.call("PUT", "sys/seal")

    def unseal(self) -> None:
        """Make it serve, and return when it does."""
        self.call("PUT", "sys/unseal", {"key": self._key})
        deadline = time.monotonic() + 20
        while not self._serves("sys/mounts"):
            if time.monotonic() > deadline:
                raise NotReady("it is unsealed and does not serve")
            time.sleep(POLL)

    def requests(self, prefix: str = "") -> Counter[str]:
        """Count the requests it was sent so far, by method and path, for paths that start with `prefix`."""
        found: Counter[str] = Counter()
        for line in self._audit.read_text().splitlines():
            entry = json.loads(line)
            if entry["type"] == "request" and entry["request"]["path"].startswith(prefix):
                found[f"{entry['request']['operation']} {entry['request']['path']}"] += 1
        return found

    @property
    def _audit(self) -> Path:
        return self._folder / "audit.log"

    def _listens(self) -> None:
        try:
            self.call("GET", "sys/seal-status", token="")
        except (VaultRefusal, http.client.HTTPException) as error:
            raise NotReady(str(error)) from error


def attach(url: str, *, origin: str) -> VaultBackend:
    """Return a server that somebody else runs, with its engines mounted; `Unavailable` if it does not serve."""
    parts = urllib.parse.urlsplit(url)
    ca = urllib.parse.parse_qs(parts.query).get("ca")
    address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    token = urllib.parse.unquote(parts.password or "")
    backend = VaultBackend(Facts("real", "", origin), address, token, Path(ca[0]) if ca else None)
    try:
        version = backend.call("GET", "sys/health", token="")["version"]
        backend.prepare()
    except (OSError, ValueError, KeyError, VaultRefusal, NotReady) as error:
        raise Unavailable(f"{origin} names a Vault that does not serve: {error}") from error
    backend.facts = Facts("real", version, origin)
    return backend


def _in_compose() -> VaultBackend | None:
    port = compose.published("vault", 8200)
    return None if port is None else attach(f"http://:{_COMPOSE_TOKEN}@127.0.0.1:{port}", origin="docker compose")


TECHNOLOGIES = (
    Technology(
        name="vault",
        nature="real",
        install=vault_build.build,
        version=vault_build.version,
        make=VaultServer,
        attach=attach,
        in_compose=_in_compose,
    ),
)
