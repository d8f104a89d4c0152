"""Redis clients that run other scripts than the right ones, for wrong drivers."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, cast

from lapel_contrib.redis.client import RedisClient
from lapel_contrib.redis.scripts import Argument, Call, Script

__all__ = ["changed", "with_scripts"]


def changed(script: Script, right: str, wrong: str) -> Script:
    """Return the script with a part of it replaced, which must be there."""
    assert right in script.source, f"{script!r} has no {right!r}"
    return Script(f"wrong {script.name}", script.source.replace(right, wrong), stride=script.stride)


def with_scripts(client: RedisClient, scripts: Mapping[Script, Script]) -> RedisClient:
    """Return the client with some of its scripts replaced."""
    return cast("RedisClient", _OtherScripts(client, scripts))


class _OtherScripts:
    def __init__(self, client: RedisClient, scripts: Mapping[Script, Script]) -> None:
        self._client = client
        self._scripts = scripts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def submit(self, call: Call, size: int) -> Coroutine[Any, Any, Any]:
        return self._client.submit(self._other(call), size)

    def run(
        self, script: Script, keys: Sequence[str | bytes], args: Sequence[Argument] = (), *, writes: bool = True
    ) -> Coroutine[Any, Any, Any]:
        return self._client.run(self._scripts.get(script, script), keys, args, writes=writes)

    async def apart(self, *commands: Any, **options: Any) -> list[Any]:
        others = [self._other(command) if isinstance(command, Call) else command for command in commands]
        return await self._client.apart(*others, **options)

    def _other(self, call: Call) -> Call:
        if call.script is None or call.script not in self._scripts:
            return call
        return Call(self._scripts[call.script], call.keys, call.args, call.writes)
