"""Rows that every kind has: lifecycle, leaks, cancellation, concurrency, secrecy."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest

from ..component import CLOSE_SECONDS, Component, HealthState
from ..descriptor import Capability, capability_names
from ..driver import Driver
from ..errors import (
    ClosedError,
    ConfigurationError,
    InvalidArgumentError,
    LapelError,
    NotOpenError,
    UnsupportedError,
    WrongLoopError,
)
from ..secret import Secret
from .harness import ComponentHooks, Operations
from .marks import row
from .subject import Subject

__all__ = ["ComponentSuite", "traces", "wait_until"]

CANARY = "canary-5f0c1d"
CANCEL_ROUNDS = 200


class ComponentSuite(ComponentHooks):
    """Tests that every kind shares."""

    # what it says about itself

    @row("stricter-123")
    async def test_flags_after_open_are_the_pinned_ones(self, subject: Subject) -> None:
        if subject.pins.flags is None:
            pytest.skip("the component file pins no flags; add a Conformance document with `flags`")
        difference = subject.flag_difference()
        assert not difference, difference

    @row("stricter-123")
    async def test_open_withdraws_with_a_reason_and_never_adds(self, subject: Subject) -> None:
        declared = subject.descriptor.capabilities
        assert subject.driver().capabilities == declared
        withdrawn = Capability(0)
        for flag, reason in subject.withdrawn.items():
            assert reason.strip(), f"{flag.name} is withdrawn without a reason"
            withdrawn |= flag
        assert capability_names(subject.flags) == capability_names(declared & ~withdrawn)

    @row("stricter-123", "ST-26")
    async def test_methods_are_implemented_if_and_only_if_declared(self, subject: Subject) -> None:
        driver = subject.driver()
        for flag, names in self.methods.items():
            for name in names:
                implemented = getattr(type(driver), name) is not getattr(self.driver_base, name)
                assert implemented == bool(flag & driver.descriptor.capabilities), f"{name} and {flag}"

    @row("ST-00", "PS-00", "BD-00", "SC-01", "CF-00", "LK-00", "CR-01")
    async def test_opens_and_is_ready(self, opened: Component[Any]) -> None:
        health = await opened.health()
        assert health.state is HealthState.READY, health.reason
        assert health.ok

    @row("ST-01", "PS-01", "BD-01", "SC-01")
    async def test_ping_answers_or_is_unsupported(self, opened: Component[Any]) -> None:
        try:
            await opened.driver.ping()
        except UnsupportedError:
            assert type(opened.driver).ping is Driver.ping

    # order of calls

    @row("stricter-124")
    async def test_every_call_before_open_is_refused(self, subject: Subject, base: str) -> None:
        component = self.build(subject)
        await _all_raise(self.operations(component, base), NotOpenError)
        await component.aclose()

    @row("stricter-124")
    async def test_a_second_open_and_an_open_after_close_are_refused(self, subject: Subject, base: str) -> None:
        component = await self.build(subject).open()
        with pytest.raises(InvalidArgumentError):
            await component.open()
        await self.exercise(component, base)
        await component.aclose()
        with pytest.raises(ClosedError):
            await component.open()

    @row("stricter-128", "PS-13", "BD-09")
    async def test_every_call_after_close_is_refused(self, subject: Subject, base: str) -> None:
        component = await self.build(subject).open()
        operations = self.operations(component, base)
        await component.aclose()
        await _all_raise(operations, ClosedError)
        assert (await component.health()).state is HealthState.CLOSED

    @row("stricter-127")
    async def test_close_is_idempotent_from_one_and_from_many_tasks(self, subject: Subject, base: str) -> None:
        component = await self.build(subject).open()
        await self.exercise(component, base)
        await asyncio.gather(*(component.aclose() for _ in range(5)))
        await component.aclose()
        unopened = self.build(subject)
        await unopened.aclose()
        await unopened.aclose()

    @row("stricter-127")
    async def test_close_right_after_open_returns(self, subject: Subject) -> None:
        async with asyncio.timeout(CLOSE_SECONDS * 3):
            await (await self.build(subject).open()).aclose()

    @row("stricter-127")
    async def test_close_with_work_in_flight_returns_and_every_call_ends(self, subject: Subject, base: str) -> None:
        component = await self.build(subject).open()
        work = [asyncio.create_task(self.exercise(component, f"{base}{number}")) for number in range(20)]
        await asyncio.sleep(0)
        async with asyncio.timeout(CLOSE_SECONDS * 3):
            await component.aclose()
            outcomes = await asyncio.gather(*work, return_exceptions=True)
        strangers = [one for one in outcomes if one is not None and not isinstance(one, LapelError)]
        assert not strangers

    @row("stricter-139")
    async def test_an_exception_in_the_body_is_kept(self, subject: Subject, base: str) -> None:
        component = self.build(subject)
        with pytest.raises(ZeroDivisionError):
            async with component:
                await self.exercise(component, base)
                raise ZeroDivisionError
        assert (await component.health()).state is HealthState.CLOSED

    # failed and abandoned opens

    @row("stricter-125")
    async def test_broken_settings_fail_to_open_and_leave_nothing(self, subject: Subject) -> None:
        broken = self.option(subject, "broken")
        if not broken:
            pytest.skip("the component file names no `broken` settings in its options")
        for properties in broken:
            before = await traces()
            try:
                variant = subject.variant(properties)
            except ConfigurationError:
                continue
            if variant is None:
                pytest.skip("does not come from a component file")
            component = self.build(variant)
            async with asyncio.timeout(component.options.init_timeout.total_seconds() + CLOSE_SECONDS * 2):
                with pytest.raises(LapelError):
                    await component.open()
                await component.aclose()
            await _no_new_traces(before, f"a failed open with {properties}")

    @row("stricter-125")
    async def test_an_open_cancelled_at_any_moment_leaves_nothing(self, subject: Subject, base: str) -> None:
        await (await self.build(subject).open()).aclose()
        before = await traces()
        chance = random.Random(20)
        for _ in range(20):
            component = self.build(subject)
            opening = asyncio.create_task(component.open())
            await _some_moments(chance)
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
            await component.aclose()
        await _no_new_traces(before, "cancelled opens")
        async with self.build(subject) as component:
            await self.exercise(component, base)

    # settings

    @row("stricter-126")
    async def test_an_unknown_field_is_named(self, subject: Subject) -> None:
        problems = subject.descriptor.settings_model().examine({"noSuchField": CANARY})
        assert any(problem.field == "noSuchField" and not problem.warning for problem in problems)
        assert CANARY not in repr(problems)

    @row("stricter-126")
    async def test_a_malformed_value_is_named_with_its_field(self, subject: Subject) -> None:
        model = subject.descriptor.settings_model()
        for field in model.fields():
            if field.type in ("int", "float", "bool", "duration", "bytesize") and not field.ignored:
                problems = model.examine({field.name: CANARY})
                assert any(problem.field == field.name for problem in problems), field.name

    @row("stricter-126")
    async def test_field_names_match_in_any_case(self, subject: Subject) -> None:
        names = [item.name for item in subject.manifest.metadata] if subject.manifest else []
        if not names:
            pytest.skip("the component has no fields, or does not come from a component file")
        assert subject.manifest is not None
        values = {item.name.swapcase(): item.value for item in subject.manifest.metadata if isinstance(item.value, str)}
        variant = subject.variant(values)
        assert variant is not None
        assert variant.driver().settings == subject.driver().settings

    # resources

    @row("stricter-129")
    async def test_a_life_leaves_no_task_thread_or_file(self, subject: Subject, base: str) -> None:
        await self._life(subject, f"{base}-first")
        before = await traces()
        for number in range(3):
            await self._life(subject, f"{base}-{number}")
        await _no_new_traces(before, "three lives")

    async def _life(self, subject: Subject, payload: str) -> None:
        async with self.build(subject) as component:
            await self.exercise(component, payload)
            for operation in self.operations(component, payload).values():
                await operation()

    @row("stricter-130")
    async def test_operations_cancelled_at_any_moment_leave_it_working(self, opened: Component[Any], base: str) -> None:
        chance = random.Random(130)
        operations = list(self.operations(opened, base).items())
        for number in range(CANCEL_ROUNDS):
            name, operation = operations[number % len(operations)]
            task = asyncio.ensure_future(operation())
            await _some_moments(chance)
            cancelled = task.cancel()
            outcome = (await asyncio.gather(task, return_exceptions=True))[0]
            if cancelled:
                assert isinstance(outcome, asyncio.CancelledError), f"cancelled {name} ended with {outcome!r}"
            else:
                assert not isinstance(outcome, BaseException), f"{name} raised {outcome!r}"
        for number in range(100):
            await self.exercise(opened, f"{base}-after-{number}")

    @row("stricter-134")
    async def test_two_hundred_operations_at_once_are_answered_correctly(
        self, opened: Component[Any], base: str
    ) -> None:
        await asyncio.gather(*(self.exercise(opened, f"{base}-{number}") for number in range(200)))

    @row("stricter-135")
    async def test_use_from_another_event_loop_is_refused_and_harms_nothing(
        self, opened: Component[Any], base: str
    ) -> None:
        def elsewhere() -> None:
            asyncio.run(_all_raise(self.operations(opened, base), WrongLoopError))

        await asyncio.to_thread(elsewhere)
        await self.exercise(opened, base)

    # secrecy

    @row("stricter-136")
    async def test_payload_and_secrets_are_in_no_log_record_repr_or_error(
        self, subject: Subject, caplog: pytest.LogCaptureFixture
    ) -> None:
        payload = f"canary{uuid.uuid4().hex}"
        shown = []
        with caplog.at_level(logging.DEBUG):
            component = self.build(subject)
            async with component:
                await self.exercise(component, payload)
                for operation in self.operations(component, payload).values():
                    try:
                        await operation()
                    except LapelError as exc:
                        shown += [str(exc), repr(exc)]
                shown += [repr(component), repr(component.driver), repr(await component.health())]
            shown += [repr(component.driver.settings), str(component.driver.settings), repr(component.driver.context)]
        shown += [record.getMessage() + str(record.exc_text) for record in caplog.records]
        for secret in [payload, *_secrets(component.driver)]:
            assert not [text for text in shown if secret in text]


async def traces() -> tuple[set[str], dict[int, str]]:
    """Return the names of the threads that run and the files that are open, asyncio's own left out.

    Tasks are counted among the threads, by name.
    """
    tasks = {f"task {task.get_name()}" for task in asyncio.all_tasks() if task is not asyncio.current_task()}
    threads = {f"thread {one.name}" for one in threading.enumerate() if not one.name.startswith("asyncio_")}
    return tasks | threads, await asyncio.to_thread(_files)


def _files() -> dict[int, str]:
    found: dict[int, str] = {}
    if not os.path.isdir("/proc/self/fd"):
        return found
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
    return {number: target for number, target in found.items() if not target.startswith("/proc/")}


async def _no_new_traces(before: tuple[set[str], dict[int, str]], what: str) -> None:
    left: Iterable[object] = ()

    async def gone() -> bool:
        nonlocal left
        runners, files = await traces()
        left = [*(runners - before[0]), *(files.items() - before[1].items())]
        return not left

    await wait_until(gone, lambda: f"{what} left behind: {left}", seconds=3)


async def wait_until(
    condition: Callable[[], Awaitable[bool]], message: Callable[[], str], *, seconds: float = 10.0
) -> None:
    """Return as soon as `condition` holds; fail with `message` when it does not within `seconds`."""
    end = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() > end:
            pytest.fail(message())
        await asyncio.sleep(0.02)


async def _some_moments(chance: random.Random) -> None:
    if chance.random() < 0.5:
        for _ in range(chance.randrange(6)):
            await asyncio.sleep(0)
    else:
        await asyncio.sleep(chance.random() * 0.003)


async def _all_raise(operations: Operations, error: type[LapelError]) -> None:
    for name, operation in operations.items():
        try:
            await operation()
        except error:
            continue
        except LapelError as exc:
            pytest.fail(f"{name} raised {type(exc).__name__} instead of {error.__name__}: {exc}")
        pytest.fail(f"{name} did not raise {error.__name__}")


def _secrets(driver: Driver[Any]) -> list[str]:
    values = [getattr(driver.settings, field.attribute) for field in type(driver.settings).fields() if field.secret]
    texts = [value.reveal() if isinstance(value, Secret) else value for value in values]
    return [text for text in texts if isinstance(text, str) and len(text) > 3]
