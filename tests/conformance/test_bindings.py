"""The bindings that need nothing but this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import ClassVar
from uuid import uuid4

import pytest

from lapel.bindings import OutputBinding, ReadRequest, ReplyError
from lapel.delivery import Settled, Settlement
from lapel.errors import ConfigurationError, DeadlineExceededError, NotFoundError, OperationFailedError
from lapel.testing import BindingSuite, Subject, row
from lapel_contrib.cron.binding import CronBinding

COMPONENTS = Path(__file__).parent / "components"


class TestLocalStorage(BindingSuite):
    component = COMPONENTS / "bindings.localstorage.yaml"


class FastClock:
    """Stands still until somebody sleeps; then that time has passed at once."""

    def __init__(self, start: datetime) -> None:
        self.time = start

    def now(self) -> datetime:
        return self.time

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.time += timedelta(seconds=seconds)


class TestCron(BindingSuite):
    component = COMPONENTS / "bindings.cron.yaml"

    @row("stricter-068")
    async def test_ten_seconds_have_ten_ticks(self, subject: Subject) -> None:
        clock = FastClock(datetime(2026, 1, 1, tzinfo=UTC))
        times = await self._ticks(subject, "@every 1s", clock, 10)
        assert times[9] - times[0] == timedelta(seconds=9)

    @row("stricter-068")
    async def test_a_slow_handler_skips_ticks_and_never_overlaps(self, subject: Subject) -> None:
        clock = FastClock(datetime(2026, 1, 1, tzinfo=UTC))

        def slow() -> None:
            clock.time += timedelta(seconds=3.5)

        times = await self._ticks(subject, "* * * * * *", clock, 5, slow)
        assert {later - sooner for sooner, later in pairwise(times)} == {timedelta(seconds=4)}

    @row("stricter-068")
    @pytest.mark.parametrize("schedule", ["", "* * *", "61 * * * *", "@every", "@sometimes", "0 0 31 2 *"])
    async def test_a_bad_schedule_is_a_configuration_error(self, subject: Subject, schedule: str) -> None:
        with pytest.raises(ConfigurationError, match="schedule"):
            subject.variant({"schedule": schedule})

    @row("stricter-068")
    @pytest.mark.parametrize("day", ["2026-03-28T12:00", "2026-10-24T12:00"])
    async def test_a_daily_run_comes_once_a_day_when_the_clocks_change(self, subject: Subject, day: str) -> None:
        clock = FastClock(datetime.fromisoformat(day).replace(tzinfo=UTC))
        times = await self._ticks(subject, "CRON_TZ=Europe/Paris 30 2 * * *", clock, 3)
        assert [time.date() for time in times] == [times[0].date() + timedelta(days=number) for number in range(3)]

    async def _ticks(
        self, subject: Subject, schedule: str, clock: FastClock, count: int, act: Callable[[], None] | None = None
    ) -> list[datetime]:
        variant = await asyncio.to_thread(subject.variant, {"schedule": schedule})
        assert variant is not None
        driver = variant.driver()
        assert isinstance(driver, CronBinding)
        driver.clock = clock
        await driver.open()
        source = await driver.read(ReadRequest(1))
        times: list[datetime] = []
        while len(times) < count:
            for delivery in await source.receive(1, 200_000):
                times.append(clock.time)
                if act is not None:
                    act()
                await source.settle([Settled(delivery, Settlement.ACK)])
        await source.close()
        await driver.close()
        return times


class ObjectHandler(BaseHTTPRequestHandler):
    """A server that keeps what is posted under its path, and has a few paths that misbehave."""

    protocol_version = "HTTP/1.1"
    objects: ClassVar[dict[str, bytes]] = {}
    tokens: ClassVar[set[str | None]] = set()

    def do_POST(self) -> None:
        body = self._body()
        self.objects[self.path] = body
        self._answer(201)

    def do_GET(self) -> None:
        self.tokens.add(self.headers["X-Token"])
        if self.path.startswith("/status/"):
            self._answer(int(self.path.rpartition("/")[2]), b"the reason", repeated=True)
        elif self.path == "/hang":
            self.rfile.read(1)
        elif self.path in self.objects:
            self._answer(200, self.objects[self.path])
        else:
            self._answer(404)

    def do_DELETE(self) -> None:
        self._answer(404 if self.objects.pop(self.path, None) is None else 204)

    def _body(self) -> bytes:
        if self.headers["Transfer-Encoding"] != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"] or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, status: int, body: bytes = b"", *, repeated: bool = False) -> None:
        self.send_response(status)
        for value in ("a", "b") if repeated else ():
            self.send_header("X-Repeated", value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class ObjectServer(ThreadingHTTPServer):
    """Takes two hundred connections at once."""

    request_queue_size = 256


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    with ObjectServer(("127.0.0.1", 0), ObjectHandler) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


class TestHttp(BindingSuite):
    component = COMPONENTS / "bindings.http.yaml"
    known: ClassVar[Subject | None] = None

    @pytest.fixture
    def subject(self, folder: Path, server_url: str, monkeypatch: pytest.MonkeyPatch) -> Subject:
        """Return the component with the address of the server."""
        monkeypatch.setenv("LAPEL_TEST_HTTP_URL", server_url)
        monkeypatch.setenv("LAPEL_TEST_HTTP_TOKEN", "t0ken-of-the-test")
        if TestHttp.known is None:
            TestHttp.known = self._read(folder)
        return TestHttp.known

    @row("stricter-069")
    @pytest.mark.parametrize("status", [304, 400, 404, 418, 500, 503])
    async def test_a_failure_carries_status_headers_and_body(self, output: OutputBinding, status: int) -> None:
        with pytest.raises(ReplyError, match=str(status)) as caught:
            await output.invoke("get", metadata={"path": f"status/{status}"})
        response = caught.value.response
        assert response.metadata["statusCode"] == str(status)
        assert response.metadata["X-Repeated"] == "a, b"
        assert response.data == (b"" if status == 304 else b"the reason")
        assert isinstance(caught.value, NotFoundError) == (status == 404)

    @row("stricter-069")
    async def test_a_failure_is_a_reply_if_asked_for(self, output: OutputBinding) -> None:
        response = await output.invoke("get", metadata={"path": "status/500", "errorIfNot2XX": "false"})
        assert (response.metadata["statusCode"], response.data) == ("500", b"the reason")

    @row("stricter-069")
    async def test_a_body_over_the_limit_is_an_error(self, output: OutputBinding, base: str) -> None:
        metadata = {"path": base.strip("{}")}
        for size in (4 * 1024 * 1024, 4 * 1024 * 1024 + 1):
            await output.invoke("create", b"x" * size, metadata=metadata)
            if size <= 4 * 1024 * 1024:
                assert len(await (await output.invoke("get", metadata=metadata)).read()) == size
            else:
                with pytest.raises(OperationFailedError, match="maxResponseBodySize"):
                    await output.invoke("get", metadata=metadata)

    @row("stricter-069")
    async def test_a_server_that_does_not_answer_meets_the_deadline(self, subject: Subject) -> None:
        variant = await asyncio.to_thread(subject.variant, {"responseTimeout": "100ms"})
        assert variant is not None
        async with self.build(variant) as binding:
            assert isinstance(binding, OutputBinding)
            with pytest.raises(DeadlineExceededError):
                await binding.invoke("get", metadata={"path": "hang"})

    @row("stricter-069")
    async def test_the_token_arrives(self, output: OutputBinding) -> None:
        with pytest.raises(NotFoundError):
            await output.invoke("get", metadata={"path": uuid4().hex})
        assert "t0ken-of-the-test" in ObjectHandler.tokens
