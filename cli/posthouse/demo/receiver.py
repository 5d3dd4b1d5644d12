"""The application's side of a webhook: takes posts, and verifies each signature as Standard Webhooks 1.0 says a receiver must."""

import base64
import hashlib
import hmac
import json
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

_LARGEST_BODY = 1024 * 1024
_TOLERANCE_SECONDS = 300
_IDLE_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook that came."""

    webhook_id: str
    body: dict[str, Any]
    fault: str | None
    """Why its signature does not hold; None: it does."""

    @property
    def about(self) -> tuple[str, str]:
        """The event's type and the id of its delivery."""
        data = self.body.get("data")
        delivery = data.get("delivery") if isinstance(data, dict) else None
        return str(self.body.get("type")), str(delivery)


class Receiver:
    """An HTTP server on a free port of loopback; a context manager."""

    def __init__(self) -> None:
        """Listen; without a secret, which comes later, nothing is believed."""
        self.secret = b""
        self.webhooks: list[Webhook] = []
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.receiver = self

    @property
    def url(self) -> str:
        """Where to post."""
        return f"http://127.0.0.1:{self._server.server_port}/hook"

    def __enter__(self) -> Self:
        """Serve from now on."""
        threading.Thread(target=self._server.serve_forever, name="demo-receiver", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take no further webhooks."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    receiver: Receiver

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: what the demo misses, it says itself."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS
    server: _Server

    def do_POST(self) -> None:
        """Take one webhook."""
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdecimal() or int(length) > _LARGEST_BODY:
            self._answer(413)
            return
        raw = self.rfile.read(int(length))
        names = ("webhook-id", "webhook-timestamp", "webhook-signature")
        identifier, timestamp, signature = (self.headers.get(name, "") for name in names)
        fault = fault_of(self.server.receiver.secret, identifier, timestamp, signature, raw)
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            body, fault = {}, fault or "its body is no JSON object"
        self.server.receiver.webhooks.append(Webhook(identifier, body, fault))
        self._answer(204 if fault is None else 401)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server calls it so
        """Say nothing: the timeline does."""


def fault_of(secret: bytes, identifier: str, timestamp: str, signature: str, body: bytes) -> str | None:
    """Return why a webhook is not to be believed, None where it is (Standard Webhooks 1.0, "Verifying webhook authenticity").

    Args:
        secret: the bytes that ``whsec_`` stands before, in base64.
        identifier: the ``webhook-id`` header.
        timestamp: the ``webhook-timestamp`` header, seconds since 1970.
        signature: the ``webhook-signature`` header.
        body: as it came.
    """
    if not timestamp.isascii() or not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > _TOLERANCE_SECONDS:
        return "its time is missing or too far from now"
    signed = identifier.encode() + b"." + timestamp.encode() + b"." + body
    wanted = "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    if not any(hmac.compare_digest(wanted.encode(), given.encode()) for given in signature.split(" ")):
        return "its signature does not fit its body"
    return None
