"""bindings.redis: its operations in the terms of the server."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest
from tests.backends.redis import RedisBackend

from lapel.bindings import OutputBinding
from lapel.driver import DriverContext
from lapel.errors import InvalidArgumentError, NotFoundError, OperationFailedError
from lapel_contrib.redis.binding import RedisBinding
from lapel_contrib.redis.component_settings import RedisBindingSettings


@pytest.fixture
async def binding(redis_server: RedisBackend) -> AsyncIterator[OutputBinding]:
    settings = RedisBindingSettings.parse(redis_server.properties, component="texts", driver="bindings.redis")
    async with OutputBinding(RedisBinding(settings, DriverContext(component="texts"))) as binding:
        yield binding


@pytest.fixture
def key() -> str:
    return f"text-{uuid.uuid4()}"


@pytest.mark.parametrize(
    ("metadata", "seconds"), [({"ttlInSeconds": "60"}, 60), ({"TTL": "1h"}, 3600), ({}, -1), ({"ttl": "-1s"}, -1)]
)
@pytest.mark.parametrize("operation", ["create", "increment"])
async def test_a_lifetime_is_set_with_the_value(
    redis_server: RedisBackend, binding: OutputBinding, key: str, operation: str, metadata: dict[str, str], seconds: int
) -> None:
    await binding.invoke(operation, b"5" if operation == "create" else None, metadata={"key": key, **metadata})
    ttl = redis_server.call("TTL", key)
    assert ttl == -1 if seconds == -1 else seconds - 5 < ttl <= seconds


async def test_create_without_a_lifetime_makes_the_value_last(
    redis_server: RedisBackend, binding: OutputBinding, key: str
) -> None:
    await binding.invoke("create", b"1", metadata={"key": key, "ttl": "60"})
    await binding.invoke("create", b"2", metadata={"key": key})
    assert redis_server.call("TTL", key) == -1


@pytest.mark.parametrize("ttl", ["0", "-5", "soon"])
async def test_a_wrong_lifetime_is_refused_and_nothing_written(
    redis_server: RedisBackend, binding: OutputBinding, key: str, ttl: str
) -> None:
    for operation in ("create", "increment"):
        with pytest.raises(InvalidArgumentError, match="ttl"):
            await binding.invoke(operation, b"1", metadata={"key": key, "ttl": ttl})
    assert redis_server.call("EXISTS", key) == 0


async def test_get_with_delete_takes_the_value_out(
    redis_server: RedisBackend, binding: OutputBinding, key: str
) -> None:
    await binding.invoke("create", b"once", metadata={"key": key})
    kept = await binding.invoke("get", metadata={"key": key, "delete": "TRUE"})
    assert await kept.read() == b"once"
    taken = await binding.invoke("get", metadata={"key": key, "delete": "true"})
    assert await taken.read() == b"once"
    assert redis_server.call("EXISTS", key) == 0
    with pytest.raises(NotFoundError):
        await binding.invoke("get", metadata={"key": key, "delete": "true"})


async def test_increment_answers_the_new_value_exactly(binding: OutputBinding, key: str) -> None:
    assert await (await binding.invoke("increment", metadata={"key": key})).read() == b"1"
    assert await (await binding.invoke("increment", metadata={"key": key})).read() == b"2"
    await binding.invoke("create", str(2**62).encode(), metadata={"key": key})
    assert await (await binding.invoke("increment", metadata={"key": key})).read() == str(2**62 + 1).encode()


async def test_what_is_no_number_or_no_text_is_left_alone(
    redis_server: RedisBackend, binding: OutputBinding, key: str
) -> None:
    await binding.invoke("create", b"text", metadata={"key": key})
    with pytest.raises(OperationFailedError):
        await binding.invoke("increment", metadata={"key": key, "ttl": "60"})
    assert (redis_server.call("GET", key), redis_server.call("TTL", key)) == (b"text", -1)
    redis_server.call("DEL", key)
    redis_server.call("RPUSH", key, "x")
    with pytest.raises(OperationFailedError):
        await binding.invoke("get", metadata={"key": key, "delete": "true"})
    assert redis_server.call("LLEN", key) == 1
