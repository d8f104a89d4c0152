"""A secret of a component's settings is shown nowhere, whatever the driver raises."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Iterator

import opentelemetry.trace
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.unit.plain_component import READ, SETTINGS, WRITE, Box, Gate, Plain, Step, box

from lapel import component as component_module
from lapel.concealment import shows_secret
from lapel.errors import LapelError, OutcomeUnknownError, UnavailableError
from lapel.settings import Secret, Settings, setting

CANARY = "canary-7d1b93"
assert SETTINGS.password is not None
assert SETTINGS.password.reveal() == CANARY


async def raw() -> None:
    raise ConnectionError(f"cannot log in to redis://user:{CANARY}@host")


async def raw_bytes_like_argument() -> None:
    raise OSError(111, "refused", f"/run/{CANARY}")


async def noted() -> None:
    exc = RuntimeError("refused")
    exc.add_note(f"with {CANARY}")
    raise exc


async def grouped() -> None:
    raise ExceptionGroup("several", [ValueError(CANARY)])


async def caused() -> None:
    try:
        await raw()
    except ConnectionError as exc:
        raise UnavailableError("cannot connect; is the server up?") from exc


async def in_context() -> None:
    try:
        await raw()
    except ConnectionError:
        raise UnavailableError("cannot connect; is the server up?")  # noqa: B904  # what a careless driver does


async def deep() -> None:
    try:
        await caused()
    except UnavailableError as exc:
        raise OutcomeUnknownError("the connection broke") from exc


async def unreadable() -> None:
    class OddError(Exception):
        def __str__(self) -> str:
            raise ValueError(CANARY)

    raise OddError


RAISERS: list[Step] = [raw, raw_bytes_like_argument, noted, grouped, caused, in_context, deep, unreadable]


def chain(exc: BaseException | None) -> Iterator[BaseException]:
    seen: list[BaseException | None] = [None]
    waiting = [exc]
    while waiting:
        item = waiting.pop()
        if item is not None and item not in seen:
            seen.append(item)
            yield item
            waiting += [item.__cause__, item.__context__]


def shown(exc: BaseException) -> str:
    """Return all that a log, a debugger or an error tracker would show of an exception."""
    texts = traceback.format_exception(exc)
    for each in chain(exc):
        texts += [str(each), repr(each), repr(vars(each)), *getattr(each, "__notes__", ())]
    return "\n".join(texts)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG):
        yield caplog
    assert CANARY not in caplog.text
    assert CANARY not in repr([vars(record) for record in caplog.records])


def test_nothing_that_holds_the_settings_shows_them() -> None:
    component = box()
    for thing in (component, component.driver, component.driver.settings, component.options, component.driver.context):
        assert CANARY not in f"{thing!r} {thing!s} {thing}"


@pytest.mark.parametrize("step", RAISERS)
async def test_a_call_that_fails_shows_no_secret(
    step: Step, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter, tracers = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(opentelemetry.trace, "get_tracer_provider", lambda: tracers)
    async with box() as component:
        for operation in (READ, WRITE):
            with pytest.raises(LapelError) as caught:
                await component.do(step, operation)
            assert CANARY not in shown(caught.value)
            assert caught.value.component == "box"
    spans = exporter.get_finished_spans()
    assert len(spans) == 2
    assert CANARY not in "".join(span.to_json() for span in spans)


@pytest.mark.parametrize("step", RAISERS)
async def test_a_component_that_does_not_open_shows_no_secret(step: Step, log: pytest.LogCaptureFixture) -> None:
    component = box(Plain(open=step, close=step))
    with pytest.raises(LapelError) as caught:
        await component.open()
    assert CANARY not in shown(caught.value)
    assert CANARY not in repr(await component.health())
    with pytest.raises(LapelError) as again:
        await component.do(step)
    assert CANARY not in shown(again.value)


@pytest.mark.parametrize("step", RAISERS)
async def test_a_component_that_starts_degraded_shows_no_secret(
    step: Step, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(component_module, "REOPEN_SECONDS", (0.0, 0.0))
    rounds, enough = 0, Gate()

    async def rebuild() -> Plain:
        nonlocal rounds
        rounds += 1
        if rounds == 2:
            await step()
        if rounds == 3:
            await enough()
        return Plain(open=step)

    component = await box(Plain(open=step)).open_or_keep_trying(rebuild)
    await enough.reached.wait()
    assert CANARY not in repr(await component.health())
    with pytest.raises(UnavailableError) as caught:
        await component.do(step)
    assert CANARY not in shown(caught.value)
    assert CANARY not in "".join(task.get_name() for task in asyncio.all_tasks())
    await component.aclose()


@pytest.mark.parametrize("step", RAISERS)
async def test_health_and_closing_show_no_secret(step: Step, log: pytest.LogCaptureFixture) -> None:
    class Leaky(Box):
        async def _drain(self) -> None:
            await step()

    component = await Leaky(Plain(ping=step, close=step)).open()
    assert CANARY not in repr(await component.health())
    await component.aclose()
    assert "draining box failed" in log.text
    assert "closing box failed" in log.text


async def test_what_shows_no_secret_is_kept_for_whoever_has_to_find_the_fault(log: pytest.LogCaptureFixture) -> None:
    async def harmless() -> None:
        raise ConnectionError("no route to host")

    component = await box(Plain(close=harmless)).open()
    with pytest.raises(LapelError) as caught:
        await component.do(harmless)
    assert isinstance(caught.value.__cause__, ConnectionError)
    await component.aclose()
    assert "no route to host" in log.text


class Many(Settings):
    """Secrets in every shape."""

    one: Secret | None = setting("one", default=None, doc="One.")
    several: tuple[Secret, ...] = setting("several", default=(), doc="Several.")
    plain: str = setting("plain", default="plain-text", doc="Not secret.")
    empty: Secret | None = setting("empty", default=None, doc="Empty.")


def test_secrets_are_known_in_every_shape_and_plain_fields_are_not_secret() -> None:
    settings = Many(one=Secret("first-7"), several=(Secret("second-7"), Secret("third-7")))
    for text in ("first-7", "a second-7 b", "third-7"):
        assert shows_secret(ValueError(text), settings)
    assert not shows_secret(ValueError("plain-text fourth-7"), settings)
    assert not shows_secret(None, settings)
    assert not shows_secret(ValueError("first-7"), object())
    hidden = Many.parse([])
    object.__setattr__(hidden, "_hidden", frozenset({"plain"}))
    assert shows_secret(ValueError("plain-text"), hidden), "a value from a secret store is secret whatever its type"


def test_chains_that_bite_their_tail_end() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert not shows_secret(first, SETTINGS)
