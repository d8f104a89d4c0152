"""Free loopback ports that stay free while a server restarts."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable

_RANGE = range(12_000, 22_000)
"""Below what systems hand out to outgoing connections (Linux: from 32768), so that none takes the port of a server that
is down for a moment; ten thousand more, where Redis has its cluster bus, still is."""
_random = random.SystemRandom()
_taken: set[int] = set()


def free_port(*, offsets: Iterable[int] = (0,)) -> int:
    """Return a port that is free on 127.0.0.1, and so are the ports that many above it. None is returned twice."""
    wanted = tuple(offsets)
    for _ in range(1000):
        port = _random.choice(_RANGE)
        if port not in _taken and all(_can_bind(port + offset) for offset in wanted):
            _taken.add(port)
            return port
    raise OSError(f"no free port on 127.0.0.1 between {_RANGE.start} and {_RANGE.stop}")


def _can_bind(port: int) -> bool:
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
