"""Run moto with its requests one after another; as it stands, an object that is read while it is replaced breaks.

The waiting of `ReceiveMessage` is left out of that: it would hold up the message that ends it.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Iterable
from typing import Any

from moto.backends import get_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple


class OneAtATime:
    """A WSGI application that lets one request into another at a time."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self._turn = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer a request."""
        if environ.get("HTTP_X_AMZ_TARGET") == "AmazonSQS.ReceiveMessage":
            return self._application(environ, start_response)  # type: ignore[no-any-return]
        with self._turn:
            return list(self._application(environ, start_response))


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    # Else the first request to each service would wait for this.
    for service in ("s3", "secretsmanager", "sns", "sqs", "ssm", "sts"):
        get_backend(service)  # type: ignore[call-overload]  # one overload for each name
    application = OneAtATime(DomainDispatcherApplication(create_backend_app))
    run_simple("127.0.0.1", parser.parse_args().port, application, threaded=True)


if __name__ == "__main__":
    main()
