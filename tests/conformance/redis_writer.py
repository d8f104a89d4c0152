"""Changes configuration items in Redis behind the driver's back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import redis
import redis.cluster

from lapel.configuration import ConfigurationItem
from lapel.testing.configuration import ConfigurationWriter


class RedisWriter(ConfigurationWriter):
    """Writes texts as an operator does, with a client of its own to whatever the settings name."""

    def put(self, items: Mapping[str, ConfigurationItem]) -> None:
        with self._client() as client, client.pipeline(transaction=False) as pipeline:
            for key, item in items.items():
                assert not item.metadata, "there is no place for metadata"
                # Without a version the last bars of a value would be taken for its separator.
                versioned = item.version or "||" in item.value
                pipeline.set(key, f"{item.value}||{item.version}" if versioned else item.value)
            pipeline.execute()

    def remove(self, keys: Iterable[str]) -> None:
        with self._client() as client, client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.delete(key)
            pipeline.execute()

    def _client(self) -> Any:
        options = self.settings.options()
        login = {"username": options.username, "password": options.password and options.password.reveal()}
        host, port = options.hosts[0]
        if options.mode == "cluster":
            return redis.cluster.RedisCluster(host=host, port=port, **login)
        if options.mode == "sentinel":
            username, password = options.sentinel_username, options.sentinel_password
            with redis.Redis(host=host, port=port, username=username, password=password.reveal()) as sentinel:
                found = sentinel.sentinel_master(options.sentinel_master)
            host, port = found["ip"], found["port"]
        return redis.Redis(host=host, port=port, db=options.database, **login)
