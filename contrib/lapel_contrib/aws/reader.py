"""Polls one queue while somebody waits for messages, and shares out what comes."""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future, Task
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import Any

from lapel.errors import LapelError, UnavailableError

from .queue import BATCH, Queue, is_passing

__all__ = ["Message", "QueueReader", "Shelf"]

MOST_POLLS = 4
"""How many polls may be under way at once while the queue fills each of them."""
SHELF_FULL = 20
"""How many messages that nobody has taken a shelf may hold before the queue is not polled for any topic."""
MOST_KEPT = 100
"""The same with those that wait behind others of their group. Of a topic without consumers no more are kept."""
FAILING_SECONDS = 10.0
"""How long polls may fail in a passing way before those who wait are told."""
POLL_SECONDS = 3.0
HAND_BACK_SECONDS = 1.0
"""How long closing waits for polls that are under way, and for the last request."""


class Message:
    """One message as it was received, and until when it is ours, in the loop's time. `note` is the driver's own."""

    __slots__ = ("attempt", "attributes", "body", "group", "handle", "id", "note", "system", "until")

    def __init__(self, raw: dict[str, Any], arrived: float, visibility: int) -> None:
        self.handle: str = raw["ReceiptHandle"]
        self.id: str = raw.get("MessageId") or ""
        self.body: str = raw.get("Body") or ""
        self.attributes: dict[str, Any] = raw.get("MessageAttributes") or {}
        self.system: dict[str, str] = raw.get("Attributes") or {}
        self.group: str | None = self.system.get("MessageGroupId")
        self.attempt = int(self.system.get("ApproximateReceiveCount") or 1)
        self.note: Any = None
        self.until = arrived + visibility


class Shelf:
    """Messages of one topic that no consumer has yet, and the consumers that wait for some."""

    __slots__ = ("consumers", "messages", "waiters")

    def __init__(self) -> None:
        self.messages: deque[Message] = deque()
        self.waiters: dict[Future[None], int] = {}
        self.consumers = 0

    def wake(self) -> None:
        """Let those who wait look again."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)


class QueueReader:
    """Receives from `queue` for all consumers of it in this component.

    A poll is never cancelled, for the messages in its reply would stay invisible until their time-out; it runs while
    a consumer waits, and what nobody waits for any more when it ends is kept for the next. `topic_of` says which
    consumers a message is for.

    Messages of several topics come as the queue has them. What consumers of another topic than those that wait have
    not taken yet is kept for them, and renewed: handing it back would count as a failed attempt of messages that
    nobody handled. When that is `SHELF_FULL` messages of one topic, nothing is received until some of them are taken,
    so a slow topic makes the others of its queue wait, and a paused one too, for as long as it is paused.

    Of a queue that keeps the order of groups, a message of a group is given out
    only when the one before it was settled, by whichever consumer has that; and when a message is lost to others, what
    waits behind it in its group is not given out either. `pause_after` gives the pause in seconds after so many failed
    polls. `unused` is called when the last poll has ended and no consumer is left.
    """

    def __init__(
        self,
        queue: Queue,
        *,
        visibility: int,
        wait: int,
        most: int,
        topic_of: Callable[[Message], str],
        pause_after: Callable[[int], float],
        logger: logging.Logger,
        unused: Callable[[QueueReader], None],
    ) -> None:
        self.queue = queue
        self.visibility = visibility
        self._wait = wait
        # Kept back from a lease for the time that the reply and the handler's start take.
        self._margin = min(1.0, visibility / 4)
        self._most = most
        self._topic_of = topic_of
        self._pause_after = pause_after
        self._logger = logger
        self._unused = unused
        self._loop = asyncio.get_running_loop()
        self._shelves: dict[str, Shelf] = {}
        self._busy: set[str] = set()
        self._polls: set[Task[None]] = set()
        self._keeper: Task[None] | None = None
        self._allowed = 1
        self._failures = 0
        self._failing_since = 0.0
        self._strangers: set[str] = set()
        self._closed = False

    @property
    def topics(self) -> list[str]:
        """The topics that have consumers."""
        return [name for name, shelf in self._shelves.items() if shelf.consumers]

    def join(self, topic: str) -> None:
        """Note one more consumer of a topic. Gets what is there for it already."""
        self._shelf(topic).consumers += 1

    async def leave(self, topic: str) -> None:
        """Note one consumer less; the last one's messages go back to the queue."""
        shelf = self._shelf(topic)
        shelf.consumers -= 1
        if not shelf.consumers:
            del self._shelves[topic]
            self._poll_soon()
            await self._hand_back(shelf.messages)
        self._look_around()

    async def take(self, topic: str, count: int, max_wait: float, *, stop: Future[None]) -> list[Message]:
        """Return up to `count` messages as soon as there is one, nothing after `max_wait` seconds or `stop`.

        Raises `UnavailableError` when polls have been failing for a while, and at once what will not pass by itself.
        """
        shelf = self._shelf(topic)
        end = self._loop.time() + max_wait
        while True:
            found = [] if stop.done() else self._pick(shelf, count)
            left = end - self._loop.time()
            if found or left <= 0 or stop.done():
                if found:
                    # Others may have waited for this.
                    self._poll_soon()
                return found
            waiter: Future[None] = self._loop.create_future()
            shelf.waiters[waiter] = count
            self._poll_soon()
            try:
                await asyncio.wait((waiter, stop), timeout=left, return_when=asyncio.FIRST_COMPLETED)
            finally:
                del shelf.waiters[waiter]
                waiter.cancel()
            if waiter.done() and not waiter.cancelled():
                waiter.result()

    def finish(self, message: Message) -> None:
        """Let the next message of its group go."""
        if message.group in self._busy:
            self._busy.discard(message.group)
            for shelf in self._shelves.values():
                if shelf.messages:
                    shelf.wake()

    async def give_way(self, message: Message) -> None:
        """Hand back what waits behind a message of the same group, which is to come again before them."""
        if not self.queue.fifo:
            return
        behind: list[Message] = []
        for shelf in self._shelves.values():
            behind += self._take_off(shelf, lambda each: each.group == message.group)[0]
        self._poll_soon()
        await self._hand_back(behind)

    async def close(self) -> None:
        """Stop; after at most the time of a poll."""
        self._closed = True
        tasks: set[Task[None]] = {*self._polls}
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=min(self._wait, POLL_SECONDS))
            if self._keeper is not None:
                tasks.add(self._keeper)
                self._keeper.cancel()
            back = self._loop.create_task(self._hand_back_all(), name=f"lapel hand back {self.queue.name}")
            tasks.add(back)
            await asyncio.wait([back], timeout=HAND_BACK_SECONDS)
        finally:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=HAND_BACK_SECONDS)

    # inside

    def _shelf(self, topic: str) -> Shelf:
        shelf = self._shelves.get(topic)
        if shelf is None:
            shelf = self._shelves[topic] = Shelf()
        return shelf

    def _pick(self, shelf: Shelf, count: int) -> list[Message]:
        if not shelf.messages:
            return []
        now = self._loop.time()
        # What waits behind a message that may be somebody else's is left to the visibility timeout like that one.
        self._take_off(shelf, lambda each: each.until - self._margin <= now)
        found: list[Message] = []
        left: deque[Message] = deque()
        for message in shelf.messages:
            if len(found) >= count or (self.queue.fifo and message.group in self._busy):
                left.append(message)
                continue
            found.append(message)
            if self.queue.fifo and message.group is not None:
                self._busy.add(message.group)
        shelf.messages = left
        return found

    def _take_off(self, shelf: Shelf, wanted: Callable[[Message], bool]) -> tuple[list[Message], list[Message]]:
        """Take from a shelf the wanted messages, and what waits behind them in their groups if those keep an order."""
        taken: list[Message] = []
        behind: list[Message] = []
        left: deque[Message] = deque()
        groups: set[str | None] = set()
        for message in shelf.messages:
            if wanted(message):
                taken.append(message)
                groups.add(message.group)
            elif self.queue.fifo and message.group in groups:
                behind.append(message)
            else:
                left.append(message)
        shelf.messages = left
        return taken, behind

    def _is_full(self, shelf: Shelf) -> bool:
        """Tell whether consumers have that much to take that nothing may be added, and whatever waits has to wait."""
        if not shelf.consumers or len(shelf.messages) < SHELF_FULL:
            return False
        if not self.queue.fifo or len(shelf.messages) >= MOST_KEPT:
            return True
        # What waits behind a message in hand is no sign that its topic is slow; SQS gives no more of that group.
        return sum(message.group not in self._busy for message in shelf.messages) >= SHELF_FULL

    def _demand(self) -> int:
        """Return how many messages are waited for; none while a shelf is full."""
        if any(map(self._is_full, self._shelves.values())):
            return 0
        return sum(
            count for shelf in self._shelves.values() for waiter, count in shelf.waiters.items() if not waiter.done()
        )

    def _poll_soon(self) -> None:
        if not self._closed and len(self._polls) < min(self._allowed, -(-self._demand() // BATCH)):
            task = self._loop.create_task(self._poll(), name=f"lapel poll {self.queue.name}", context=Context())
            self._polls.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: Task[None]) -> None:
        self._polls.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._tell(UnavailableError(f"{self.queue.place}: the poll ended with {type(error).__name__}"))
        elif self._demand():
            self._poll_soon()
        self._look_around()

    def _look_around(self) -> None:
        if not self._polls and not any(shelf.consumers for shelf in self._shelves.values()):
            self._unused(self)

    async def _poll(self) -> None:
        """Receive as long as somebody waits."""
        while not self._closed and (demand := self._demand()):
            try:
                raw = await self.queue.receive(min(demand, self._most), wait=self._wait, visibility=self.visibility)
            except LapelError as exc:
                await self._failed(exc)
                continue
            self._failures = 0
            self._allowed = MOST_POLLS if len(raw) == BATCH else 1
            arrived = self._loop.time()
            await self._sort([Message(each, arrived, self.visibility) for each in raw])
            if self._demand() and len(self._polls) < self._allowed:
                self._poll_soon()
            if len(self._polls) > self._allowed:
                return

    async def _failed(self, error: LapelError) -> None:
        now = self._loop.time()
        if not self._failures:
            self._failing_since = now
        self._failures += 1
        self._allowed = 1
        if not is_passing(error) or now - self._failing_since >= FAILING_SECONDS:
            self._failures = 0
            self._tell(error)
            return
        pause = self._pause_after(self._failures)
        self._logger.warning("%s: receiving failed, again in %.3g s: %s", self.queue.name, pause, error)
        await asyncio.sleep(pause)

    def _tell(self, error: LapelError) -> None:
        for shelf in self._shelves.values():
            for waiter in shelf.waiters:
                if not waiter.done():
                    waiter.set_exception(error)

    async def _sort(self, messages: Iterable[Message]) -> None:
        back: list[Message] = []
        for message in messages:
            topic = self._topic_of(message)
            shelf = self._shelf(topic)
            if not shelf.consumers and self.topics and topic not in self._strangers:
                self._strangers.add(topic)
                self._logger.warning(
                    "queue %r has messages of topic %r, to which nobody here is subscribed; they are left to others",
                    self.queue.name,
                    topic,
                )
            if self._closed or not any(each.consumers for each in self._shelves.values()):
                back.append(message)
            elif shelf.consumers or len(shelf.messages) < MOST_KEPT:
                shelf.messages.append(message)
                shelf.wake()
        self._keep_soon()
        await self._hand_back(back)

    def _keep_soon(self) -> None:
        if not self._closed and self._keeper is None and any(shelf.messages for shelf in self._shelves.values()):
            self._keeper = self._loop.create_task(self._keep(), name=f"lapel keep {self.queue.name}", context=Context())

    async def _keep(self) -> None:
        """Renew what waits on shelves of consumers, and drop what is not ours any more."""
        try:
            while any(shelf.messages for shelf in self._shelves.values()):
                await asyncio.sleep(self.visibility / 3)
                back: list[Message] = []
                kept: list[Message] = []
                for shelf in self._shelves.values():
                    back += self._drop_lost(shelf)
                    if shelf.consumers:
                        kept += shelf.messages
                self._poll_soon()
                await self._hand_back(back)
                await self._renew(kept)
        finally:
            self._keeper = None

    def _drop_lost(self, shelf: Shelf) -> list[Message]:
        """Take off a shelf what others may have, and return what waited behind that in its group."""
        now = self._loop.time()
        return self._take_off(shelf, lambda each: each.until <= now)[1]

    async def _renew(self, messages: list[Message]) -> None:
        if not messages:
            return
        now = self._loop.time()
        try:
            refused = await self.queue.set_visibility([(each.handle, self.visibility) for each in messages])
        except LapelError as exc:
            self._logger.warning("%s: messages that wait could not be kept: %s", self.queue.name, exc)
            return
        for number, message in enumerate(messages):
            if number not in refused:
                message.until = now + self.visibility
            elif not is_passing(refused[number]):
                message.until = now
        behind = [each for shelf in self._shelves.values() for each in self._drop_lost(shelf)]
        self._poll_soon()
        await self._hand_back(behind)

    async def _hand_back(self, messages: Iterable[Message]) -> None:
        handles = [(message.handle, 0) for message in messages]
        if not handles:
            return
        try:
            await self.queue.set_visibility(handles)
        except LapelError as exc:
            self._logger.warning("%s: %d messages were not handed back: %s", self.queue.name, len(handles), exc)

    async def _hand_back_all(self) -> None:
        messages = [message for shelf in self._shelves.values() for message in shelf.messages]
        self._shelves.clear()
        await self._hand_back(messages)
