"""A proxy between boto3 and DynamoDB Local: simulates failures of the network and of a busy DynamoDB."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections import Counter
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from hub_users import HeldPort

TRANSACTION = "TransactWriteItems"


class Fault(StrEnum):
    """What happens to one request."""

    THROTTLED = "throttled"
    EXCEEDED = "provisioned throughput exceeded"
    CANCELLED_BUSY = "transaction cancelled: throttled"
    CONFLICT = "transaction cancelled: conflict"
    IN_PROGRESS = "transaction in progress"
    DENIED = "access denied"
    BROKEN_BEFORE = "500, and nothing was done"
    BROKEN_AFTER = "500, and it was done"
    LOST = "the request does not arrive"
    ANSWER_LOST = "it is done, and the answer does not arrive"
    ANSWER_LATE = "it is done, and the answer comes when nobody waits any more"
    HELD = "it arrives, and the answer too, when it is released"
    OLD = "the answer is the last one to the same request"
    LANDS_LATE = "the connection is cut, and the request arrives when it is released"


_ERRORS = {
    Fault.THROTTLED: (400, "ThrottlingException", None),
    Fault.EXCEEDED: (400, "ProvisionedThroughputExceededException", None),
    Fault.CANCELLED_BUSY: (400, "TransactionCanceledException", "ThrottlingError"),
    Fault.CONFLICT: (400, "TransactionCanceledException", "TransactionConflict"),
    Fault.IN_PROGRESS: (400, "TransactionInProgressException", None),
    Fault.DENIED: (400, "AccessDeniedException", None),
    Fault.BROKEN_BEFORE: (500, "InternalServerError", None),
}


class FaultProxy:
    """A proxy of ``upstream``. Give its ``url`` to boto3. Nothing fails until a test adds a fault."""

    def __init__(self, upstream: str, address: str = "127.0.0.1", port: int | None = None) -> None:
        self.asked: Counter[str] = Counter()
        """Requests by operation."""
        self.answers: dict[bytes, tuple[int, dict[str, str], bytes]] = {}
        """The last answer to each request."""
        self.arrived = threading.Event()
        """A request is held."""
        self._upstream = urlsplit(upstream).netloc
        self._faults: dict[str, list[Fault]] = {}
        self._released = threading.Event()
        self._landed = threading.Semaphore(0)
        self._server: ThreadingHTTPServer | None = None
        self._address = address
        self._held = HeldPort()
        self._port = port or self._held.number
        self._lock = threading.Lock()
        self.up()

    @property
    def url(self) -> str:
        return f"http://{self._address}:{self._port}"

    def up(self) -> None:
        """Listen; after ``down``, at the same address."""
        server = _Server((self._address, self._port), _handler(self))
        self._server = server
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def down(self) -> None:
        """Refuse connections from now on, and close existing ones."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def close(self) -> None:
        self.release()
        self.down()

    def next(self, fault: Fault, times: int = 1, operation: str = TRANSACTION) -> None:
        """Apply this fault to the next requests of this operation."""
        with self._lock:
            self._faults.setdefault(operation, []).extend([fault] * times)

    @property
    def left(self) -> int:
        """Return the faults that no request has met yet."""
        with self._lock:
            return sum(map(len, self._faults.values()))

    def heal(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._faults.clear()

    def release(self) -> None:
        """Let held requests arrive, now and in the future."""
        self._released.set()

    def wait_landed(self) -> None:
        """Wait until one more held request has arrived and is answered."""
        assert self._landed.acquire(timeout=20)

    def fault_for(self, operation: str) -> Fault | None:
        with self._lock:
            self.asked[operation] += 1
            faults = self._faults.get(operation)
            return faults.pop(0) if faults else None

    def forward(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self._upstream, timeout=20)
        try:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def hold(self) -> None:
        self.arrived.set()
        assert self._released.wait(30)

    def land(self) -> None:
        self._landed.release()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        self._connections: list[socket.socket] = []
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.append(request)
        super().process_request(request, client_address)

    def server_close(self) -> None:
        super().server_close()
        for connection in self._connections:
            _cut(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that have hung up."""


def _cut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def _handler(proxy: FaultProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = proxy.fault_for(self.headers.get("X-Amz-Target", ".").rpartition(".")[2])
            if fault in _ERRORS:
                self._refuse(*_ERRORS[fault])
                return
            if fault is Fault.LOST:
                self._hang_up()
                return
            if fault is Fault.LANDS_LATE:
                self._hang_up()
            if fault in (Fault.HELD, Fault.LANDS_LATE):
                proxy.hold()
            if fault is Fault.OLD:
                self._answer(*proxy.answers[body])
                return
            answer = proxy.forward(self.path, dict(self.headers.items()), body)
            proxy.answers[body] = answer
            match fault:
                case Fault.LANDS_LATE:
                    proxy.land()
                case Fault.HELD:
                    proxy.land()
                    self._answer(*answer)
                case Fault.ANSWER_LOST:
                    self._hang_up()
                case Fault.ANSWER_LATE:
                    proxy.hold()
                    proxy.land()
                    self._answer(*answer)
                case Fault.BROKEN_AFTER:
                    self._refuse(500, "InternalServerError", None)
                case _:
                    self._answer(*answer)

        def _hang_up(self) -> None:
            self.close_connection = True
            _cut(self.connection)

        def _refuse(self, status: int, code: str, reason: str | None) -> None:
            body: dict[str, object] = {
                "__type": f"com.amazonaws.dynamodb.v20120810#{code}",
                "message": "as told",
            }
            if reason is not None:
                body["CancellationReasons"] = [{"Code": reason, "Message": "as told"}, {"Code": "None"}]
            self._answer(status, {"Content-Type": "application/x-amz-json-1.0"}, json.dumps(body).encode())

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
