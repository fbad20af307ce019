"""A fake EC2 for the service: capacity reservations over HTTP, with failures on demand."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"


class Fault(StrEnum):
    """What happens to every request until the test resets it."""

    THROTTLED = "throttled"
    DENIED = "denied"
    BROKEN = "an internal error"
    GARBAGE = "something that is no answer"
    HANGS = "no answer"


_ERRORS = {
    Fault.THROTTLED: (503, "RequestLimitExceeded", "Request limit exceeded."),
    Fault.DENIED: (403, "UnauthorizedOperation", "You are not authorized to perform this operation."),
    Fault.BROKEN: (500, "InternalError", "An internal error has occurred"),
}


@dataclass
class Block:
    """A capacity reservation."""

    ends: str | None
    """``2030-01-01T11:30:00.000Z``; ``None``: it has no end."""
    state: str = "active"


@dataclass
class FakeEc2:
    """Change ``blocks`` and ``fault`` while it serves."""

    blocks: dict[str, Block] = field(default_factory=dict)
    fault: Fault | None = None
    page: int = 1000
    """Reservations in one answer."""
    asked: list[list[str]] = field(default_factory=list)
    """The ids of every request that arrived, in order."""
    url: str = ""
    arrived: threading.Event = field(default_factory=threading.Event)
    """Set when a request has arrived."""
    released: threading.Event = field(default_factory=threading.Event)
    """Once set, hanging requests are released."""
    _server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        """Start to serve at ``url``."""
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Release hanging requests, and stop serving."""
        self.released.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def answer(self, form: dict[str, list[str]]) -> tuple[int, str]:
        ids = [
            values[0] for name, values in sorted(form.items()) if name.startswith("CapacityReservationId.")
        ]
        self.asked.append(ids)
        self.arrived.set()
        if self.fault is Fault.HANGS:
            self.released.wait(60)
        if self.fault is Fault.GARBAGE:
            return 200, "<html>Bad gateway"
        if self.fault in _ERRORS:
            return _error(*_ERRORS[self.fault])
        if form["Action"] != ["DescribeCapacityReservations"]:
            return _error(400, "InvalidAction", f"{form['Action']} is not known here")
        for name in ids:
            if not name.startswith("cr-"):
                return _error(400, "InvalidCapacityReservationId.Malformed", f"Invalid id: '{name}'")
            if name not in self.blocks:
                text = f"The capacity reservation ID '{name}' does not exist"
                return _error(400, "InvalidCapacityReservationId.NotFound", text)
        start = int(form.get("NextToken", ["0"])[0])
        shown = ids[start : start + self.page]
        more = str(start + self.page) if start + self.page < len(ids) else ""
        items = "".join(_item(name, self.blocks[name]) for name in shown)
        return 200, (
            f'<DescribeCapacityReservationsResponse xmlns="{NAMESPACE}"><requestId>r-1</requestId>'
            f"<capacityReservationSet>{items}</capacityReservationSet>"
            f"{f'<nextToken>{more}</nextToken>' if more else '<nextToken/>'}"
            "</DescribeCapacityReservationsResponse>"
        )


def _item(name: str, block: Block) -> str:
    end = "" if block.ends is None else f"<endDate>{block.ends}</endDate>"
    kind = "default" if block.ends is None else "capacity-block"
    return (
        f"<item><capacityReservationId>{escape(name)}</capacityReservationId><state>{block.state}</state>"
        f"<instanceType>p5.48xlarge</instanceType><totalInstanceCount>2</totalInstanceCount>{end}"
        f"<endDateType>{'unlimited' if block.ends is None else 'limited'}</endDateType>"
        f"<reservationType>{kind}</reservationType></item>"
    )


def _error(status: int, code: str, message: str) -> tuple[int, str]:
    return status, (
        f"<Response><Errors><Error><Code>{code}</Code><Message>{escape(message)}</Message></Error></Errors>"
        "<RequestID>r-1</RequestID></Response>"
    )


@contextmanager
def serve(fake: FakeEc2) -> Iterator[FakeEc2]:
    """Yield a fake EC2 that serves on this machine."""
    fake.start()
    try:
        yield fake
    finally:
        fake.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that have hung up."""


def _handler(fake: FakeEc2) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            form = self.rfile.read(int(self.headers["Content-Length"])).decode()
            status, body = fake.answer(parse_qs(form))
            self.send_response_only(status)
            self.send_header("Content-Type", "text/xml;charset=UTF-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
