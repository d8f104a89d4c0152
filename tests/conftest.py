"""Rules that hold for every test: bounded, repeatable, off the network, and never blocking an event loop."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster
from hypothesis import settings
from tests.backends.launcher import named_addresses

pytest_plugins = (
    "tests.backends.fixtures",
    "tests.backends.aws_fixtures",
    "tests.backends.chromium_fixtures",
    "tests.backends.gcp_fixtures",
    "tests.backends.kafka_fixtures",
    "tests.backends.rabbitmq_fixtures",
    "tests.backends.redis_fixtures",
    "tests.backends.vault_fixtures",
)

# Example counts and shrinking stay as they are; a slow machine must not turn a true property into a failure.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"


# An endpoint that the environment names is the tester's choice.
_NAMED = named_addresses()


def _refuse_other_hosts(event: str, args: tuple[object, ...]) -> None:
    if event != "socket.connect":
        return
    address = args[1]
    if isinstance(address, tuple) and not _is_loopback(str(address[0])) and address[0] not in _NAMED:
        raise RuntimeError(f"a test tried to connect to {address[0]}; tests use loopback addresses only")


sys.addaudithook(_refuse_other_hosts)

# pydantic looks for its plugins on disk when the first model of a process is used. Tests make settings on the loop;
# components are built in threads.
from lapel_contrib.memory.settings import MemoryStateSettings  # noqa: E402  # after the hooks above

MemoryStateSettings.parse({})


@pytest.fixture(scope="session")
def _blocking_detector() -> Iterator[BlockBuster]:
    detector = BlockBuster(["lapel", "lapel_contrib"], excluded_modules=["lapel.testing"])
    detector.activate()
    yield detector
    detector.deactivate()


@pytest.fixture(autouse=True)
def _no_blocking_calls(request: pytest.FixtureRequest, _blocking_detector: BlockBuster) -> Iterator[None]:
    """Fail a test in which lapel makes a blocking call on a running event loop, unless it is `blocking_allowed`."""
    if request.node.get_closest_marker("blocking_allowed") is None:
        yield
        return
    _blocking_detector.deactivate()
    yield
    _blocking_detector.activate()
