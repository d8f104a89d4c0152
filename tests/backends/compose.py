"""What docker compose runs of this project now, if there is a docker at all."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

_FILE = Path(__file__).parents[2] / "docker-compose.yml"


def published(service: str, port: int) -> int | None:
    """Return the port of this machine behind which the service's port is; None if it does not run or is not healthy."""
    for container in _running():
        if container.get("Service") == service and container.get("Health") in ("healthy", ""):
            for publisher in container.get("Publishers") or ():
                if publisher.get("TargetPort") == port and publisher.get("PublishedPort"):
                    return int(publisher["PublishedPort"])
    return None


@functools.cache
def _running() -> tuple[dict[str, Any], ...]:
    if shutil.which("docker") is None:
        return ()
    command = ["docker", "compose", "--file", str(_FILE), "ps", "--format", "json", "--status", "running"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=True)
        # Older releases print one list, later ones an object a line.
        found = [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()
    return tuple(found[0] if len(found) == 1 and isinstance(found[0], list) else found)
