"""Run moto with its requests one after another; as it stands, what is read while it is changed breaks.

A `ReceiveMessage` that waits looks again and again, so that it does not hold up the message that ends its waiting.
Names of parameters that AWS would not take are refused: moto takes them, and then cannot list any of the account.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from moto.backends import get_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.sqs.models import sqs_backends
from moto.ssm.exceptions import ValidationException
from moto.ssm.models import SimpleSystemManagerBackend
from werkzeug.serving import run_simple

from . import moto_speed

_LOOK_AGAIN = 0.01
_PARAMETER = re.compile(r"[A-Za-z0-9_.\-/]+")
_put_parameter = SimpleSystemManagerBackend.put_parameter


class OneAtATime:
    """A WSGI application that lets one request into another at a time."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self._turn = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        """Answer a request."""
        if environ.get("HTTP_X_AMZ_TARGET") == "AmazonSQS.ReceiveMessage":
            return self._receive(environ, start_response)
        with self._turn:
            return list(self._application(environ, start_response))

    def _receive(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        asked = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        end = time.monotonic() + asked.get("WaitTimeSeconds", 0)
        body = json.dumps(asked | {"WaitTimeSeconds": 0}).encode()
        environ["CONTENT_LENGTH"] = str(len(body))
        started: list[Any] = []
        while True:
            started.clear()
            with self._turn, moto_speed.CLOCK.held():
                answer = self._application(
                    {**environ, "wsgi.input": io.BytesIO(body)}, lambda *given: started.extend(given)
                )
                found = list(answer)
            if time.monotonic() >= end or b"ReceiptHandle" in b"".join(found):
                start_response(*started)
                return found
            time.sleep(_LOOK_AGAIN)
            while time.monotonic() < end and not self._has_messages(environ, asked["QueueUrl"]):
                time.sleep(_LOOK_AGAIN)

    def _has_messages(self, environ: dict[str, Any], url: str) -> bool:
        account, name = urlsplit(url).path.split("/")[1:]
        region = environ["HTTP_AUTHORIZATION"].split("/")[2]
        with self._turn:
            queue = sqs_backends[account][region].queues.get(name)
            return queue is None or any(queue.messages)


def put_parameter(backend: Any, name: str, *others: Any, **more: Any) -> Any:
    """Put a parameter, if its name is one."""
    if not _PARAMETER.fullmatch(name):
        raise ValidationException("Parameter name: only a mix of letters, numbers and the symbols .-_/ is allowed.")
    return _put_parameter(backend, name, *others, **more)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    moto_speed.install()
    parameters: Any = SimpleSystemManagerBackend
    parameters.put_parameter = put_parameter
    # Else the first request to each service would wait for this.
    for service in ("s3", "secretsmanager", "sns", "sqs", "ssm", "sts"):
        get_backend(service)
    application = OneAtATime(DomainDispatcherApplication(create_backend_app))
    run_simple("127.0.0.1", parser.parse_args().port, application, threaded=True)


if __name__ == "__main__":
    main()
