"""Keeps the token of a client alive."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress
from typing import TYPE_CHECKING

from lapel.errors import LapelError, PermissionDeniedError

from .errors import Reply, failed, is_bad_token
from .login import Grant, Login, given_by

if TYPE_CHECKING:
    from .client import VaultClient

__all__ = ["TokenKeeper"]

_LOOK_UP = "auth/token/lookup-self"
_RENEW = "auth/token/renew-self"
_SHORTEST_PAUSE = 0.1
_PAUSE_AFTER_END = 5.0
"""Seconds between attempts when the token has expired, or nothing is known of it."""
_DOUBT_SECONDS = 30.0
"""After a refusal that may be a policy's, how long others like it are taken to be, unless they blame the token."""
_REVOKE_SECONDS = 1.0
_HIDDEN = (404, 405)


class TokenKeeper:
    """Logs in, renews at about two thirds of a token's life, and logs in again where renewal comes to its end.

    A token that is given by the settings or by a file cannot be replaced from here: its end is logged beforehand, and
    `check` tells it afterwards. One that came of a log-in is given back when it is replaced, and at the end.
    """

    def __init__(self, login: Login, client: VaultClient) -> None:
        self._login = login
        self._client = client
        self._logger = logging.getLogger(__name__)
        self._token: str | None = None
        self._replaced: list[str] = []
        """Tokens of our own that are not used any more, and not yet given back."""
        self._renewable = False
        self._ends_at: float | None = None
        self._unsure: LapelError | None = None
        """Why the server did not say how long the token lives. It will be asked again."""
        self._problem: LapelError | None = None
        """What is wrong with the token in use. None also when another one could not be had, but this one works."""
        self._lock = asyncio.Lock()
        self._doubted_at = -_DOUBT_SECONDS
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    async def open(self, logger: logging.Logger) -> None:
        """Log in for the first time and look at the token. Raises what `Login.obtain` does, and for a bad token."""
        self._logger = logger
        await self._obtain()
        if (problem := self._problem or self._unsure) is not None:
            raise problem
        self._warn_of_end()
        self._task = asyncio.create_task(self._keep(), name=f"lapel token of {self._client.place}")

    async def close(self) -> None:
        """Stop, and give back the tokens that were made for this client. Bounded."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        if self._login.ours:
            # They differ when a log-in was under way until now.
            latest = {self._token, self._client.hvac.token} - {None, "", *self._replaced}
            self._token, self._replaced = None, [*latest, *self._replaced]
        with suppress(TimeoutError):
            async with asyncio.timeout(_REVOKE_SECONDS):
                await self._give_back()

    def check(self) -> None:
        """Raise `PermissionDeniedError`, or what else is wrong, when there is no valid token."""
        if self._problem is not None:
            raise type(self._problem)(self._problem.message)
        if self._has_ended():
            raise PermissionDeniedError(f"{self._client.place}: the token has expired")

    def noticed(self, token: str | None) -> None:
        """Learn which token was used; another than before came from a file, and has a life of its own."""
        if token is not None and self._task is not None and token != self._token:
            self._news.set()

    async def replaced(self, refused: str | None, *, sure: bool) -> bool:
        """Get another token after one was refused; tell whether a request is worth repeating with it.

        `sure` false: it may have been a policy that denied the request. Then Vault is asked about the token, but not
        often, and only where it does not say that the token is good a log-in is tried.
        """
        if refused is None or not self._login.repeats:
            return False
        async with self._lock:
            if self._client.hvac.token != refused:
                return True
            bad: bool | None = True
            if not sure:
                if self._now() < self._doubted_at + _DOUBT_SECONDS:
                    return False
                self._doubted_at = self._now()
                bad = await self._is_bad()
                if bad is False or self._client.hvac.token != refused:
                    return bool(self._client.hvac.token != refused)
            try:
                await self._obtain()
            except LapelError as exc:
                if bad:
                    self._problem = exc
                else:
                    self._complain(exc)
                return False
            self._news.set()
            return bool(self._client.hvac.token != refused)

    async def _keep(self) -> None:
        while True:
            news = await self._pause()
            try:
                if self._unsure is not None or self._client.hvac.token != self._token:
                    await self._look()
                    self._warn_of_end()
                elif not news:
                    await self._extend()
            except LapelError as exc:
                # The next attempt comes after the next pause.
                self._complain(exc)
            await self._give_back()

    async def _pause(self) -> bool:
        """Wait until the token should be renewed; tell whether it was replaced meanwhile."""
        seconds = self._seconds_to_act()
        self._news.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    def _seconds_to_act(self) -> float | None:
        if self._unsure is not None:
            return _PAUSE_AFTER_END
        if self._ends_at is None:
            return None
        left = self._ends_at - self._now()
        if left <= 0:
            return _PAUSE_AFTER_END
        if not self._renewable and not self._login.repeats:
            return left
        spread = random.uniform(0.9, 1.0)  # noqa: S311  # so that many processes do not renew at once
        return max(_SHORTEST_PAUSE, left * spread * 2 / 3)

    async def _extend(self) -> None:
        """Renew the token, or replace it where that does not help any more."""
        if self._renewable:
            asked = self._left()
            reply = await self._client.send_once("POST", _RENEW)
            if reply.ok:
                grant = given_by(reply)
                self._take(grant)
                # Near the end of the longest life that the token may have, renewing gives less and less.
                if grant.seconds is None or grant.seconds > asked:
                    return
                if not self._login.ours:
                    self._renewable = False
                    self._warn_of_end()
                    return
            elif reply.status not in (400, 401, 403):
                self._complain(failed(reply, self._client.place, "the renewal of the token"))
                return
            else:
                self._renewable = False
        if self._login.repeats:
            async with self._lock:
                try:
                    await self._obtain()
                except LapelError as exc:
                    self._complain(exc)
        elif self._has_ended():
            self._complain(PermissionDeniedError(f"{self._client.place}: the token has expired"))

    async def _obtain(self) -> None:
        await self._client.in_thread(self._client.obtain_token)
        await self._look()

    async def _look(self) -> None:
        """Find out how long the token in use lives."""
        token = self._client.hvac.token
        if token != self._token:
            if self._login.ours and self._token is not None:
                self._replaced.append(self._token)
            self._token, self._problem = token, None
        reply = await self._client.send_once("GET", _LOOK_UP)
        doubt: LapelError | None = None
        self._ends_at, self._renewable = None, False
        if reply.ok:
            try:
                self._take(given_by(reply))
            except LapelError as exc:
                doubt = exc
        elif is_bad_token(reply):
            self._problem = failed(reply, self._client.place, _LOOK_UP)
        elif self._is_hidden(reply):
            self._problem = None
            self._logger.warning(
                "%s: the token cannot be looked up, so it will not be renewed; allow it to read %s and to update %s",
                self._client.place,
                _LOOK_UP,
                _RENEW,
            )
        else:
            doubt = failed(reply, self._client.place, _LOOK_UP)
        if doubt is not None and self._unsure is None and self._task is not None:
            self._logger.warning("how long the token lives is not known, will ask again: %s", doubt.message)
        self._unsure = doubt

    async def _is_bad(self) -> bool | None:
        """Ask about the token in use, after a request with it was denied; None when Vault does not answer that."""
        reply = await self._client.send_once("GET", _LOOK_UP)
        return None if self._is_hidden(reply) else is_bad_token(reply)

    async def _give_back(self) -> None:
        """Revoke what is left of replaced tokens; what fails is left to end by itself."""
        while self._replaced:
            # It stays in the list meanwhile: when this is cancelled, `close` tries once more.
            await self._client.revoke(self._replaced[0])
            del self._replaced[0]

    @staticmethod
    def _is_hidden(reply: Reply) -> bool:
        """Tell whether only the look-up was denied: the token lacks the default policy, or a proxy hides the path."""
        return reply.status in _HIDDEN or (reply.status == 403 and not is_bad_token(reply))

    def _take(self, grant: Grant) -> None:
        self._problem = None
        self._renewable = grant.renewable
        self._ends_at = None if grant.seconds is None else self._now() + grant.seconds

    def _warn_of_end(self) -> None:
        if self._ends_at is not None and not self._renewable and not self._login.ours:
            self._logger.warning(
                "%s: the token cannot be renewed and expires in %.0f s; what holds it must give another one by then",
                self._client.place,
                self._left(),
            )

    def _complain(self, problem: LapelError) -> None:
        if self._problem is None:
            self._logger.warning("the token could not be renewed or replaced, will try again: %s", problem.message)
        if self._has_ended():
            self._problem = problem

    def _has_ended(self) -> bool:
        return self._ends_at is not None and self._now() >= self._ends_at

    def _left(self) -> float:
        return 0.0 if self._ends_at is None else self._ends_at - self._now()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
