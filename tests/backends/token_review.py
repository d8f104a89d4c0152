"""A stub of the one part of the Kubernetes API that Vault asks: whose token is this?"""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from joserfc import jwt
from joserfc.jwk import ECKey

__all__ = ["TokenReview"]

NAMESPACE, ACCOUNT = "shop", "orders"


class TokenReview:
    """Knows the tokens that it issued, all for one service account. Serves while its `with` block runs."""

    def __init__(self) -> None:
        self._key = ECKey.generate_key("P-256")
        self._valid: set[str] = set()

    def __enter__(self) -> Self:
        review = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                body = json.dumps({**asked, "status": review._status(asked["spec"]["token"])}).encode()
                self.send_response(201)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def address(self) -> str:
        """Where the API is, as Vault is told."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def issue(self) -> str:
        """Return a new token of the service account."""
        now = int(time.time())
        claims = {
            "iss": "https://kubernetes.default.svc",
            "sub": f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}",
            "aud": ["https://kubernetes.default.svc"],
            "iat": now,
            "nbf": now,
            "exp": now + 3600,
            "jti": str(len(self._valid)),
            "kubernetes.io": {"namespace": NAMESPACE, "serviceaccount": {"name": ACCOUNT, "uid": "u-1"}},
        }
        token: str = jwt.encode({"alg": "ES256"}, claims, self._key)
        self._valid.add(token)
        return token

    def forget(self, token: str) -> None:
        """End a token."""
        self._valid.discard(token)

    def _status(self, token: str) -> dict[str, Any]:
        if token not in self._valid:
            return {"authenticated": False, "error": "unknown token"}
        user = {"username": f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}", "uid": "u-1", "groups": []}
        return {"authenticated": True, "user": user, "audiences": ["https://kubernetes.default.svc"]}
