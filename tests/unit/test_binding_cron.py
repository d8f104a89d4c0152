"""Events on a schedule: its text, its times whatever the clocks do, and its ticks."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from lapel.bindings import BindingEvent, InputBinding, OutputBinding
from lapel.delivery import Settled, Settlement
from lapel.driver import DriverContext
from lapel.errors import InvalidArgumentError, SettingsError, UnsupportedError
from lapel_contrib.cron.binding import Clock, CronBinding, CronConsumer
from lapel_contrib.cron.expression import parse_schedule
from lapel_contrib.cron.settings import CronSettings
from lapel_contrib.cron.times import Times

PARIS = ZoneInfo("Europe/Paris")

# The first use of a settings class looks for plugins of pydantic on the disk, which no event loop should wait for.
CronSettings.parse({"schedule": "@hourly"})


def paris(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=PARIS).astimezone(UTC)


def runs(schedule: str, start: datetime, end: datetime) -> list[datetime]:
    """Return the due times from `start` to before `end`."""
    times, found = Times(parse_schedule(schedule), UTC), []
    moment = start - timedelta(microseconds=1)
    while (moment := times.after(moment)) < end:
        found.append(moment)
    return found


def clock_times(schedule: str, day: str) -> list[str]:
    start = paris(f"{day}T00:00")
    return [f"{due.astimezone(PARIS):%H:%M:%S%z}" for due in runs(schedule, start, start + timedelta(hours=24))]


# text


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("5 * * * *", "0 5 * * * *"),
        ("30 5 * * * *", "30 5 * * * *"),
        ("*/15 9-17 1,15 jan-MAR MON", "0 0-59/15 9-17 1,15 1-3 1"),
        ("0 0 ? * ?", "0 0 0 * * *"),
        ("0 0 */1 */2 5/2", "0 0 0 * 1-12/2 5-6/2"),
        ("0 0 1,* * 0-6/3", "0 0 0 * * 0-6/3"),
        ("@weekly", "0 0 0 * * 0"),
        ("@Annually", "0 0 0 1 1 *"),
    ],
)
def test_cron_expressions_are_read_as_dapr_reads_them(text: str, fields: str) -> None:
    assert parse_schedule(text).fields == tuple(fields.split())


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("@every 1s", timedelta(seconds=1)),
        ("@every 1h30m", timedelta(minutes=90)),
        ("@Every 250ms", timedelta(0, 0.25)),
    ],
)
def test_intervals_are_go_durations(text: str, interval: timedelta) -> None:
    assert parse_schedule(text).every == interval


@pytest.mark.parametrize("text", ["TZ=Asia/Tokyo 0 0 * * *", "CRON_TZ=Asia/Tokyo 0 0 * * *"])
def test_a_time_zone_may_stand_in_front(text: str) -> None:
    assert runs(text, datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)) == [
        datetime(2026, 1, 1, 15, tzinfo=UTC)
    ]


@pytest.mark.parametrize(
    "text",
    [
        "", "   ", "* * * *", "* * * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 13 *",
        "* * * * 7", "* * * * MOON", "5-1 * * * *", "*/0 * * * *", "1,,2 * * * *", "a * * * *", "* * L * *",
        "* * * * 5#2", "-1 * * * *", "@every", "@every 5", "@every -5s", "@every 0s", "@every 1s 2s", "@sometimes",
        "@daily now", "TZ=Nowhere/Town * * * * *", "TZ=../etc/passwd * * * * *", "CRON_TZ=UTC", "0 0 31 2 *",
        "0 0 31 4,6,9,11 ?", "0 0 30 2 *",
    ],
)  # fmt: skip
def test_a_schedule_that_is_wrong_or_never_due_is_refused_offline(text: str) -> None:
    with pytest.raises(SettingsError, match="schedule"):
        CronSettings.parse({"schedule": text})


def test_a_day_that_no_month_has_is_fine_beside_a_weekday() -> None:
    assert parse_schedule("0 0 30 2 MON")


def test_validation_needs_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cronsim", None)
    monkeypatch.setitem(sys.modules, "tzlocal", None)
    assert CronSettings.examine({"schedule": "0 0 * * MON"}) == []
    assert CronSettings.examine({"schedule": "0 0 * *"})[0].field == "schedule"


def test_only_input_is_a_direction() -> None:
    CronSettings.parse({"schedule": "@hourly", "direction": "input"})
    with pytest.raises(SettingsError, match="direction"):
        CronSettings.parse({"schedule": "@hourly", "direction": "output"})


# times


def test_days_of_month_and_of_week_are_alternatives_when_both_are_restricted() -> None:
    start, end = datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)
    assert [due.day for due in runs("0 0 13 * FRI", start, end)] == [5, 12, 13, 19, 26]
    assert [due.day for due in runs("0 0 */10 * FRI", start, end)] == [1, 5, 11, 12, 19, 21, 26]
    assert [due.day for due in runs("0 0 ? * FRI", start, end)] == [5, 12, 19, 26]


def test_seconds_are_kept() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    found = runs("*/20 0 * * * *", start, start + timedelta(hours=2))
    assert [f"{due:%H%M%S}" for due in found] == ["000000", "000020", "000040", "010000", "010020", "010040"]


@pytest.mark.parametrize("prefix", ["", "0 "])
def test_a_time_that_is_skipped_in_spring_runs_at_the_jump_and_only_once(prefix: str) -> None:
    zone = f"TZ=Europe/Paris {prefix}"
    assert clock_times(f"{zone}30 2 * * *", "2026-03-29") == ["03:00:00+0200"]
    assert clock_times(f"{zone}0 2,3 * * *", "2026-03-29") == ["03:00:00+0200"]
    assert clock_times(f"{zone}30 1-3 * * *", "2026-03-29") == ["01:30:00+0100", "03:00:00+0200", "03:30:00+0200"]


@pytest.mark.parametrize("prefix", ["", "0 "])
def test_a_time_that_comes_twice_in_autumn_runs_once(prefix: str) -> None:
    zone = f"TZ=Europe/Paris {prefix}"
    assert clock_times(f"{zone}30 2 * * *", "2026-10-25") == ["02:30:00+0200"]
    assert clock_times(f"{zone}0,30 */2 * * *", "2026-10-25")[:4] == [
        "00:00:00+0200", "00:30:00+0200", "02:00:00+0200", "02:30:00+0200"
    ]  # fmt: skip


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25", "2026-06-01"])
def test_what_runs_every_hour_or_minute_keeps_its_beat_through_a_change(day: str) -> None:
    start = paris(f"{day}T00:00")
    for schedule, beat in (("0 * * * *", 3600), ("*/5 * * * *", 300), ("30 */10 * * * *", 600), ("@hourly", 3600)):
        found = runs(f"TZ=Europe/Paris {schedule}", start, start + timedelta(hours=8))
        assert {(later - sooner).total_seconds() for sooner, later in pairwise(found)} == {beat}


def test_started_in_the_second_of_two_equal_hours_the_first_is_not_made_up_for() -> None:
    second = datetime(2026, 10, 25, 2, 10, tzinfo=PARIS, fold=1).astimezone(UTC)
    due = Times(parse_schedule("TZ=Europe/Paris 30 2 * * *")).after(second)
    assert due == paris("2026-10-26T02:30")


def test_a_day_whose_midnight_is_skipped_has_its_midnight_run() -> None:
    start = datetime(2026, 4, 23, 12, tzinfo=UTC)
    due = Times(parse_schedule("TZ=Africa/Cairo 0 0 * * *")).after(start)
    assert f"{due.astimezone(ZoneInfo('Africa/Cairo')):%F %T}" == "2026-04-24 01:00:00"


# ticks


class FakeClock(Clock):
    """Stands still until somebody sleeps; then that time has passed at once."""

    def __init__(self, start: datetime) -> None:
        self.time = start

    def now(self) -> datetime:
        return self.time

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.time += timedelta(seconds=seconds)


START = datetime(2026, 1, 1, tzinfo=UTC)


def consumer(schedule: str, clock: Clock, limit: int = 1) -> CronConsumer:
    return CronConsumer(Times(parse_schedule(schedule), UTC), clock, "c", limit)


async def ticks(source: CronConsumer, clock: FakeClock, seconds: float, handling: float = 0) -> list[float]:
    """Return when ticks came within that time, each handled for `handling` seconds before the next is taken."""
    end, found = clock.time + timedelta(seconds=seconds), []
    while clock.time < end:
        for delivery in await source.receive(1, min(5, (end - clock.time).total_seconds())):
            found.append((clock.time - START).total_seconds())
            clock.time += timedelta(seconds=handling)
            await source.settle([Settled(delivery, Settlement.ACK)])
    return found


async def test_ten_seconds_have_ten_ticks() -> None:
    clock = FakeClock(START)
    assert await ticks(consumer("@every 1s", clock), clock, 10) == list(range(1, 11))
    clock = FakeClock(START)
    assert await ticks(consumer("* * * * * *", clock), clock, 10) == list(range(1, 11))


@pytest.mark.parametrize("schedule", ["@every 10s", "*/10 * * * * *"])
async def test_times_that_pass_while_a_handler_runs_are_skipped(schedule: str) -> None:
    clock = FakeClock(START)
    assert await ticks(consumer(schedule, clock), clock, 100, handling=25) == [10, 40, 70, 100]


async def test_times_that_pass_before_anyone_asks_come_as_one() -> None:
    clock = FakeClock(START)
    source = consumer("@every 1s", clock)
    clock.time += timedelta(seconds=7.5)
    assert await ticks(source, clock, 2) == [7.5, 8, 9]


async def test_a_time_that_comes_due_between_two_receives_is_not_missed() -> None:
    clock = FakeClock(START)
    source = consumer("*/10 * * * * *", clock)
    assert await source.receive(1, 9.999) == ()
    clock.time += timedelta(seconds=0.002)
    assert len(await source.receive(1, 5)) == 1


async def test_runs_overlap_only_as_far_as_they_may() -> None:
    clock = FakeClock(START)
    source = consumer("@every 1s", clock, limit=2)
    held = [*await source.receive(1, 5), *await source.receive(1, 5)]
    assert len(held) == 2
    assert await source.receive(1, 0.01) == ()
    clock.time += timedelta(seconds=3)
    await source.settle([Settled(held[0], Settlement.RETRY)])
    assert await source.receive(1, 0.5) == ()
    assert len(await source.receive(1, 5)) == 1


async def test_paused_times_are_skipped() -> None:
    clock = FakeClock(START)
    source = consumer("@every 10s", clock)
    await source.pause()
    assert await source.receive(1, 5) == ()
    clock.time += timedelta(seconds=20)
    assert await source.receive(1, 5) == ()
    await source.resume()
    assert await ticks(source, clock, 15) == [30, 40]


async def test_an_interval_goes_on_when_the_clock_is_set_back_and_a_time_is_not_repeated() -> None:
    clock = FakeClock(START)
    interval, daily = consumer("@every 1s", clock), consumer("0 0 * * *", clock)
    clock.time -= timedelta(hours=5)
    assert len(await interval.receive(1, 5)) == 1
    assert clock.time == START - timedelta(hours=5) + timedelta(seconds=1)
    assert await daily.receive(1, 7 * 3600) == ()


async def test_a_released_tick_makes_room() -> None:
    clock = FakeClock(START)
    source = consumer("@every 1s", clock)
    await source.release(await source.receive(1, 5))
    assert len(await source.receive(1, 5)) == 1


async def test_receive_can_be_cancelled_without_losing_a_tick() -> None:
    class Stuck(FakeClock):
        async def sleep(self, seconds: float) -> None:
            await asyncio.Event().wait()

    clock = Stuck(START)
    source = consumer("@every 1s", clock)
    task = asyncio.create_task(source.receive(1, 5))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    clock.time += timedelta(seconds=1)
    assert len(await source.receive(1, 5)) == 1


# the component


@contextmanager
def component(schedule: str, clock: Clock | None = None) -> Iterator[InputBinding]:
    driver = CronBinding(CronSettings.parse({"schedule": schedule}), DriverContext(component="tick"))
    if clock is not None:
        driver.clock = clock
    yield InputBinding(driver)


async def test_an_event_has_no_data_and_tells_time_and_zone_as_dapr_does() -> None:
    events: asyncio.Queue[BindingEvent] = asyncio.Queue()
    with component("CRON_TZ=Asia/Tokyo 30 * * * * *", FakeClock(START)) as binding:
        async with binding, await binding.read(events.put):
            event = await asyncio.wait_for(events.get(), 10)
    assert event.data == b""
    assert event.metadata == {"timeZone": "Asia/Tokyo", "readTimeUTC": "2026-01-01 00:00:30 +0000 UTC"}


async def test_the_zone_is_local_unless_named() -> None:
    events: asyncio.Queue[BindingEvent] = asyncio.Queue()
    with component("@every 1.5s", FakeClock(START)) as binding:
        async with binding, await binding.read(events.put):
            event = await asyncio.wait_for(events.get(), 10)
    assert event.metadata == {"timeZone": "Local", "readTimeUTC": "2026-01-01 00:00:01.5 +0000 UTC"}


async def test_a_failed_run_is_not_repeated() -> None:
    attempts: list[int] = []
    enough = asyncio.Event()

    def handler(event: BindingEvent) -> None:
        attempts.append(event.attempt)
        if len(attempts) == 3:
            enough.set()
        raise ValueError("no")

    with component("@every 1s", FakeClock(START)) as binding:
        async with binding, await binding.read(handler):
            await asyncio.wait_for(enough.wait(), 10)
    assert set(attempts) == {1}


async def test_the_real_clock_ticks_and_stops_at_once() -> None:
    events: asyncio.Queue[BindingEvent] = asyncio.Queue()
    with component("@every 20ms") as binding:
        async with binding:
            async with await binding.read(events.put):
                for _ in range(3):
                    await asyncio.wait_for(events.get(), 10)
            count = events.qsize()
            assert (await binding.health()).ok
        assert events.qsize() == count


async def test_there_is_nothing_to_invoke() -> None:
    driver = CronBinding(CronSettings.parse({"schedule": "@hourly"}), DriverContext(component="tick"))
    with pytest.raises(UnsupportedError, match="no output side"):
        await OutputBinding(driver).open()


def test_a_wrong_schedule_says_what_is_expected() -> None:
    with pytest.raises(InvalidArgumentError, match="'7' is not a day of week; expected 0 to 6 or SUN to SAT"):
        parse_schedule("* * * * 7")
