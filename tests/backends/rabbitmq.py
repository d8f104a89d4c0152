"""RabbitMQ: a node, and one behind TLS; as processes or wherever an endpoint is named.

4.0 is what people run: it counts deliveries of quorum queues, and knows their delivery limits, as 3.10 does not. It
comes from the Debian after the one that the tests are made for.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiormq

from .backend import Backend, Facts
from .provision import Unavailable
from .rabbitmq_address import RabbitAddress
from .rabbitmq_node import RabbitNode, RabbitOptions, version


class RabbitBackend(Backend):
    """Connection details of a RabbitMQ."""

    def __init__(self, facts: Facts, address: RabbitAddress | None = None) -> None:
        super().__init__(facts)
        self._address = address

    @property
    def address(self) -> RabbitAddress:
        """Host, port, log-in and TLS files."""
        assert self._address is not None, "not started"
        return self._address

    @property
    def properties(self) -> dict[str, str]:
        return self.address.properties

    @property
    def url(self) -> str:
        return self.address.url


class RabbitServer(RabbitBackend):
    """A node of this run's own. What is durable outlives its restart and its kill."""

    def __init__(self, folder: Path, options: RabbitOptions | None = None) -> None:
        self._options = options or RabbitOptions()
        self._folder = folder
        super().__init__(Facts("real", version(), "own process"))

    def configure(self) -> None:
        node = RabbitNode(self._folder, self._options)
        self.processes = (node,)
        self._address = node.address


def attach(url: str, *, origin: str) -> RabbitBackend:
    """Return a RabbitMQ that somebody else runs; `Unavailable` if it does not answer."""
    try:
        address = RabbitAddress.parse(url)
        found = asyncio.run(_version(address))
    except (OSError, ValueError, aiormq.AMQPError, TimeoutError) as error:
        raise Unavailable(f"{origin} names a RabbitMQ that does not serve: {type(error).__name__}") from error
    return RabbitBackend(Facts("real", found, origin), address)


async def _version(address: RabbitAddress) -> str:
    context = None if address.tls is None else address.tls.context()
    async with asyncio.timeout(10), aiormq.connect(address.amqp, context=context) as connection:
        return str(connection.server_properties["version"])
