"""Just enough of the Redis protocol to ask a server how it is, without the client that the drivers under test use."""

from __future__ import annotations

import socket
import ssl
from types import TracebackType
from typing import Any, Self


class ReplyError(Exception):
    """The server answered with an error."""


class Connection:
    """A blocking RESP2 connection. Replies are bytes, int, None or lists of them; errors raise `ReplyError`."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        username: str | None = None,
        password: str | None = None,
        tls: ssl.SSLContext | None = None,
        timeout: float = 5.0,
    ) -> None:
        plain = socket.create_connection((host, port), timeout=timeout)
        try:
            self._socket = plain if tls is None else tls.wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise
        self._replies = self._socket.makefile("rb")
        try:
            if password is not None:
                self.call("AUTH", *([] if username is None else [username]), password)
        except BaseException:
            self.close()
            raise

    def call(self, *command: str | bytes | int) -> Any:
        """Send a command and return its reply; `TimeoutError` if none comes in time."""
        parts = [part if isinstance(part, bytes) else str(part).encode() for part in command]
        wire = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
        self._socket.sendall(wire)
        return self._read()

    def info(self, command: str, *arguments: str) -> dict[str, str]:
        """Return a reply made of `field:value` lines, as `INFO` and `CLUSTER INFO` give."""
        lines = self.call(command, *arguments).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def close(self) -> None:
        """Close the connection."""
        self._replies.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> Any:
        line = self._replies.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("the server closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest
        if kind == b"-":
            raise ReplyError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self._replies.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return None if rest == b"-1" else [self._read() for _ in range(int(rest))]
        raise ReplyError(f"unknown reply type {kind!r}")
