"""Events of input bindings to the application, and what its replies ask for."""

from __future__ import annotations

import asyncio
import logging

import msgspec

from ...bindings import BindingEvent, BindingResponse, InputBinding
from ...options import ComponentOptions
from ...state import SetOperation
from ...state.requests import RequestBuilder
from ..api.bindings import payload
from ..host import Host
from .channel import AppChannel, AppStatusError, carried_headers

__all__ = ["EventDelivery", "wants_events"]

STATE_SECONDS = 5.0
_log = logging.getLogger("lapel.host")


async def wants_events(channel: AppChannel, binding: InputBinding) -> bool:
    """Tell whether the application takes the events of a binding.

    It does when the component's `direction` says so, or when it answers `OPTIONS` on the route with 2xx or 405.
    Raises what the channel raises.
    """
    if "input" in binding.driver.settings.direction:
        return True
    reply = await channel.request("OPTIONS", _route(binding))
    return reply.ok or reply.status == 405


class EventDelivery:
    """Hands the events of one input binding to the application."""

    def __init__(self, host: Host, channel: AppChannel, binding: InputBinding) -> None:
        self._host = host
        self._channel = channel
        self._binding = binding

    async def __call__(self, event: BindingEvent) -> BindingResponse | None:
        """Deliver one event and do what the reply asks for.

        Raises when the application does not take it, or when what it asks for fails: the event then comes again.
        """
        name, route = self._binding.name, _route(self._binding)
        reply = await self._channel.request(
            "POST",
            route,
            body=event.data,
            content_type=event.content_type or "application/json",
            headers=carried_headers(event.metadata),
        )
        if not reply.ok:
            text = f"the application answered an event of {name!r} at {route} with {reply.status}"
            raise AppStatusError(text, reply.status)
        if not reply.body:
            return None
        try:
            wish = msgspec.json.decode(reply.body, type=_Wish)
        except msgspec.ValidationError as exc:
            _log.warning("the reply to an event of %r asks for nothing that is understood: %s", name, exc)
            return BindingResponse(reply.body)
        except msgspec.DecodeError:
            return BindingResponse(reply.body)
        if wish.store_name and wish.state:
            await self._save(wish.store_name, wish.state)
        if wish.to and bytes(wish.data):
            await self._pass_on(wish.to, bytes(wish.data), parallel=(wish.concurrency or "").lower() == "parallel")
        return BindingResponse(reply.body)

    async def _save(self, store_name: str, items: list[_StateItem]) -> None:
        """Save items under their keys as they are, without the application's prefix."""
        store = self._host.components.state(store_name)
        requests = RequestBuilder(store.driver, ComponentOptions())
        writes = [
            requests.set_of(SetOperation(item.key, bytes(item.value), item.etag, metadata=item.metadata or {}))
            for item in items
        ]
        async with asyncio.timeout(STATE_SECONDS):
            for write in writes:
                await store.driver.set(write)

    async def _pass_on(self, names: list[str], data: bytes, *, parallel: bool) -> None:
        bindings = [self._host.components.output_binding(name) for name in names]
        if not parallel:
            for binding in bindings:
                await binding.invoke("create", payload(binding, "create", data))
            return
        results = await asyncio.gather(
            *(binding.invoke("create", payload(binding, "create", data)) for binding in bindings),
            return_exceptions=True,
        )
        failed = [result for result in results if isinstance(result, BaseException)]
        for error in failed[1:]:
            _log.error("an output binding named by the application failed as well: %s", error)
        if failed:
            raise failed[0]


class _StateItem(msgspec.Struct):
    key: str
    value: msgspec.Raw = msgspec.Raw(b"null")
    etag: str | None = None
    metadata: dict[str, str] | None = None


class _Wish(msgspec.Struct):
    """What the reply to an event may ask for."""

    store_name: str | None = msgspec.field(default=None, name="storeName")
    state: list[_StateItem] | None = None
    to: list[str] | None = None
    data: msgspec.Raw = msgspec.Raw()
    concurrency: str | None = None


def _route(binding: InputBinding) -> str:
    route = binding.driver.settings.route or binding.name
    return route if route.startswith("/") else f"/{route}"
