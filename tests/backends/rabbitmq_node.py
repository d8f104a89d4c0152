"""One RabbitMQ node as a process: its files, its settings, and the small world that it runs in.

It runs in a tree of a later Debian, in namespaces of its own for mounts and processes. So the system's libraries do not
matter, and Erlang's port mapper, which makes itself a daemon, ends together with the node, however that ends.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import shutil
import ssl
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import provision
from .certificates import Certificates, TlsFiles, make_certificates
from .ports import free_port
from .process import NotReady, Process
from .provision import Unavailable
from .rabbitmq_address import RabbitAddress, greet

LOOPBACK = "127.0.0.1"
READER = "reader"
"""A user that may read everything and neither write nor declare anything; its password is the one of the main user."""
VHOSTS = ("/", "lapel/second")
PACKAGES = ("rabbitmq-server", "dash", "coreutils", "procps", "libc-bin")
"""What is unpacked: Erlang measures the machine with a shell and these tools."""
SUITE = "trixie"

_CLIENT = "lapel test client"
"""The name in the client's certificate, which is the name of a user where log-in is external."""
_INSIDE = "/run/node"
# Paths of the system lead into `usr` on every Debian of today; unpacking alone does not make the links.
_LINKS = ("bin", "sbin", "lib", "lib64")
_SCRIPT = (
    'set -e; mount --rbind /dev "$1/dev"; mount -t proc proc "$1/proc"; mount --bind "$2" "$1$3"; '
    'tree=$1; shift 3; exec chroot "$tree" "$@"'
)


@dataclass(frozen=True, kw_only=True)
class RabbitOptions:
    """How a RabbitMQ of one's own is to be; the defaults give a random user with a random password."""

    tls: bool = False
    """Encrypted connections only, from clients that show a certificate, which may be their log-in as well."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Further lines of rabbitmq.conf, by name."""


def install() -> Path:
    """Get the tree, ready to be entered; `Unavailable` with the reason if that is impossible here."""
    _need_root()
    if not provision.extracted_tree(SUITE, PACKAGES).exists():
        provision.install_packages({"mmdebstrap": "mmdebstrap"})
    tree = provision.extract_tree(SUITE, PACKAGES)
    for name in _LINKS:
        if (tree / "usr" / name).is_dir() and not (tree / name).exists():
            (tree / name).symlink_to(f"usr/{name}")
    for place in ("proc", _INSIDE.strip("/")):
        (tree / place).mkdir(parents=True, exist_ok=True)
    # Nothing is asked of a name server: one that does not answer would hold up connections for five seconds.
    (tree / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
    (tree / "etc" / "nsswitch.conf").write_text("hosts: files\n")
    (tree / "etc" / "resolv.conf").unlink(missing_ok=True)
    return tree


def version() -> str:
    """Return the version that would be started; `Unavailable` if none can be."""
    return _release(_tree()).name.rpartition("-")[2]


class RabbitNode(Process):
    """A node on ports of its own, which it keeps over restarts, with its data."""

    def __init__(self, folder: Path, options: RabbitOptions) -> None:
        self.port = free_port()
        self._options = options
        self._username, self._password = f"user-{secrets.token_hex(4)}", secrets.token_urlsafe(18)
        home = folder / "rabbitmq"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        self._certificates = make_certificates(home / "tls") if options.tls else None
        tree = _tree()
        # Nobody but the node itself may read its cookie, or it refuses to start.
        cookie = home / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        (home / "plugins").write_text("[rabbitmq_auth_mechanism_ssl].\n" if options.tls else "[].\n")
        (home / "definitions.json").write_text(json.dumps(self._definitions()))
        (home / "rabbitmq.conf").write_text("\n".join([*self._settings(), ""]))
        super().__init__(
            "rabbitmq", _command(tree, home), folder=home, check=self._serves, environment=_environment(tree, self.port)
        )

    @property
    def address(self) -> RabbitAddress:
        """Where it is, and the main user's log-in."""
        tls = None if self._certificates is None else self._certificates.client
        return RabbitAddress(
            host=LOOPBACK, port=self.port, username=self._username, password=self._password, vhost="/", tls=tls
        )

    def _definitions(self) -> dict[str, Any]:
        full = {"configure": ".*", "write": ".*", "read": ".*"}
        rights = {self._username: full, READER: {"configure": "", "write": "", "read": ".*"}, _CLIENT: full}
        users = [{"name": name, **_hashed(self._password), "tags": []} for name in (self._username, READER)]
        users.append({"name": _CLIENT, "password_hash": "", "tags": []})
        return {
            "users": users,
            "vhosts": [{"name": name} for name in VHOSTS],
            "permissions": [
                {"user": user, "vhost": vhost, **allowed} for user, allowed in rights.items() for vhost in VHOSTS
            ],
        }

    def _settings(self) -> list[str]:
        settings = {
            "log.console": "true",
            "log.console.level": "warning",
            "log.file": "false",
            "disk_free_limit.absolute": "50MB",
            "load_definitions": f"{_INSIDE}/definitions.json",
            **(_tls_settings(self._certificates) if self._certificates else {}),
            **self._options.settings,
        }
        if self._certificates is None:
            listeners = [f"listeners.tcp.1 = {LOOPBACK}:{self.port}"]
        else:
            listeners = ["listeners.tcp = none", f"listeners.ssl.1 = {LOOPBACK}:{self.port}"]
        return [*listeners, *(f"{name} = {value}" for name, value in settings.items())]

    def _serves(self, pid: int) -> None:
        tls: TlsFiles | None = None if self._certificates is None else self._certificates.client
        try:
            greet(LOOPBACK, self.port, tls)
        except ssl.SSLError as error:
            raise NotReady(str(error)) from error


def _tls_settings(certificates: Certificates) -> dict[str, str]:
    return {
        "ssl_options.cacertfile": f"{_INSIDE}/tls/{certificates.client.ca.name}",
        "ssl_options.certfile": f"{_INSIDE}/tls/{certificates.server_cert.name}",
        "ssl_options.keyfile": f"{_INSIDE}/tls/{certificates.server_key.name}",
        "ssl_options.verify": "verify_peer",
        "ssl_options.fail_if_no_peer_cert": "true",
        "ssl_cert_login_from": "common_name",
        "auth_mechanisms.1": "EXTERNAL",
        "auth_mechanisms.2": "PLAIN",
    }


def _hashed(password: str) -> dict[str, str]:
    salt = secrets.token_bytes(4)
    digest = base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
    return {"password_hash": digest, "hashing_algorithm": "rabbit_password_hashing_sha256"}


def _command(tree: Path, home: Path) -> Sequence[str | Path]:
    (runtime,) = tree.glob("usr/lib/erlang/erts-*")
    return [
        # The process that is known here is `unshare`: the node dies with it, and everything else with the node.
        *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"),
        *("sh", "-c", _SCRIPT, "sh", tree, home, _INSIDE),
        f"/{runtime.relative_to(tree)}/bin/erlexec",
        *("-noinput", "-s", "rabbit", "boot", "-boot", "start_sasl", "+W", "w", "+pc", "unicode"),
        # Without these an idle node keeps a processor busy.
        *("+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"),
        *("-kernel", "inet_dist_use_interface", "{127,0,0,1}", "-kernel", "prevent_overlapping_partitions", "false"),
        *("-syslog", "logger", "[]", "-syslog", "syslog_error_logger", "false"),
    ]


def _environment(tree: Path, port: int) -> dict[str, str]:
    release = _release(tree)
    (runtime,) = tree.glob("usr/lib/erlang/erts-*")
    inside = f"/{release.relative_to(tree)}"
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": _INSIDE,
        "LANG": "C.UTF-8",
        "ROOTDIR": "/usr/lib/erlang",
        "BINDIR": f"/{runtime.relative_to(tree)}/bin",
        "EMU": "beam",
        "PROGNAME": "erl",
        "ERL_LIBS": f"{inside}/plugins",
        "ERL_EPMD_PORT": str(free_port()),
        "ERL_EPMD_ADDRESS": LOOPBACK,
        "RABBITMQ_HOME": inside,
        "RABBITMQ_NODENAME": f"lapel-{port}@localhost",
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": f"{_INSIDE}/data",
        "RABBITMQ_LOG_BASE": f"{_INSIDE}/log",
        "RABBITMQ_PID_FILE": f"{_INSIDE}/pid",
        "RABBITMQ_CONFIG_FILE": f"{_INSIDE}/rabbitmq.conf",
        "RABBITMQ_ENABLED_PLUGINS_FILE": f"{_INSIDE}/plugins",
        # A file that is not there: the system's own must not be read.
        "RABBITMQ_CONF_ENV_FILE": f"{_INSIDE}/none",
        "SYS_PREFIX": "",
    }


def _tree() -> Path:
    _need_root()
    tree = provision.extracted_tree(SUITE, PACKAGES)
    if not (tree / "etc" / "nsswitch.conf").exists():
        raise Unavailable("RabbitMQ is not in the cache; `make backends` gets it, and needs mmdebstrap for it")
    return tree


def _release(tree: Path) -> Path:
    (release,) = tree.glob("usr/lib/rabbitmq/lib/rabbitmq_server-*")
    return release


def _need_root() -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        raise Unavailable("its own RabbitMQ runs in a mount namespace, which needs Linux and root; name one instead")
