"""A reservation service in memory behind real HTTP, with failures on demand.

It speaks the routes of the API as `gpudev.wire` has them, does nothing by itself (tests move reservations
along), and stands for a hub too: ``/hub/login`` with its xsrf dance and ``/hub/api/users/NAME/tokens``.
"""

from __future__ import annotations

import itertools
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from gpudev import wire

LIVE = ("queued", "starting", "ready", "stopping")
PREFIX = f"/services/gpudev/{wire.API}/"


NO_ACCESS = wire.SshAccess(
    known_hosts="@cert-authority * ssh-ed25519 AAAA", hosts=[], identity_file=None, accepted_keys=[]
)


class Refusal(Exception):
    def __init__(self, status: int, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.error = wire.Error(code=code, message=message, hint=hint)


@dataclass
class Fault:
    """What goes wrong with the next `times` requests of `method` to paths that contain `path`."""

    kind: str
    """``drop``: done, then the connection closes without an answer; ``truncate``: done, half the answer;
    ``garbage``: done, answered with HTML; ``NNN``: nothing done, this status from the proxy."""
    method: str = "POST"
    path: str = "reservations"
    times: int = 1


def _person(login: str, *, held: bool) -> wire.Person:
    return wire.Person(
        subject=f"github:{login}",
        login=login,
        hub_user=login,
        access="allowed",
        reason=None,
        since="2026-11-23T12:00:00Z",
        confirmed_at="2026-11-23T12:00:00Z",
        operator=login == "ann",
        teams=[],
        held=held,
    )


@dataclass
class FakeService:
    token: str = field(default_factory=lambda: "t-" + secrets.token_hex(16))
    user: str = "alice"
    password: str = "opensesame"
    password_form: bool = True
    reservations: dict[str, wire.Reservation] = field(default_factory=dict)
    by_request: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    refuse: Refusal | None = None
    tokens_made: list[dict[str, Any]] = field(default_factory=list)
    operator: bool = False
    """Whether the token is an operator's."""
    people: wire.People = field(
        default_factory=lambda: wire.People(
            people=[_person("ann", held=False), _person("ben", held=True)],
            problems=["1 person would lose access at once."],
            checked_at="2026-11-23T12:00:00Z",
        )
    )
    node_status: Literal["up", "down", "unknown", "drained"] = "up"
    node_reason: str | None = None
    node_until: str | None = None
    extensions: set[str] = field(default_factory=set)
    reasons: list[str | None] = field(default_factory=list)
    """Given with each end and each extension, the first one's first."""
    logs: wire.Logs = field(
        default_factory=lambda: wire.Logs(
            events=["12:00:00 starting on node-1"], logs={"jupyter": "up\n", "sshd": ""}
        )
    )
    starts: bool = True
    """Whether new reservations are ready at once."""
    ssh: Callable[[], wire.SshAccess] = field(default=lambda: NO_ACCESS)
    github: wire.GithubCheck = field(default_factory=lambda: wire.GithubCheck(ok=True, facts=[]))
    doctor: wire.Doctor = field(default_factory=lambda: wire.Doctor(ok=True, facts=[]))

    def __post_init__(self) -> None:
        self._changed = threading.Condition()
        self._numbers = itertools.count(1)
        self._port = 0
        self._server: ThreadingHTTPServer | None = None
        self._stopping = False

    # Running

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._stopping = False
        server = ThreadingHTTPServer(("127.0.0.1", self._port), _handler(self))
        server.daemon_threads = True
        self._server = server
        self._port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Nothing listens any more, and long polls end without an answer."""
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    @contextmanager
    def running(self) -> Iterator[FakeService]:
        self.start()
        try:
            yield self
        finally:
            self.stop()

    # What tests do to it

    def change(self, id: str, **values: Any) -> wire.Reservation:
        """Change a reservation as the service would."""
        with self._changed:
            old = self.reservations[id]
            new = msgspec.structs.replace(old, version=old.version + 1, **values)
            self.reservations[id] = new
            self._changed.notify_all()
            return new

    def make_ready(self, id: str) -> wire.Reservation:
        name = self.reservations[id].name or id
        return self.change(
            id,
            state="ready",
            server="running",
            position=None,
            planned_start=None,
            guaranteed_by=None,
            reason=None,
            starts_at="2030-01-01T12:00:00Z",
            ends_at="2030-01-01T16:00:00Z",
            url=f"{self.url}/user/{self.user}/{id}/lab",
            ssh_command=f"ssh gpu-{name}",
            ssh_commands=[
                f"ssh gpu-{name}" + (f"-{rank}" if rank else "")
                for rank in range(self.reservations[id].nodes)
            ],
            vscode_url=f"vscode://vscode-remote/ssh-remote+gpu-{name}/home/{self.user}",
            allocation=[wire.NodeSlots(node="node-1", slots=[0, 1])],
        )

    @property
    def only(self) -> wire.Reservation:
        (record,) = self.reservations.values()
        return record

    def count(self, method: str, part: str) -> int:
        return sum(m == method and part in path for m, path in self.requests)

    # What it answers

    def handle(self, method: str, path: list[str], query: dict[str, str], body: bytes) -> Any:
        if self.refuse is not None:
            raise self.refuse
        match method, path:
            case "POST", ["reservations"]:
                return self._reserve(msgspec.json.decode(body, type=wire.ReserveRequest))
            case "GET", ["reservations"]:
                over = ("stopping", "ended") if query.get("ended") == "true" else LIVE
                found = [r for r in self.reservations.values() if r.state in over]
                if query["owner"] != "all":
                    found = [r for r in found if r.mine or r.shared]
                return wire.ReservationList(reservations=found)
            case "GET", ["reservations", ref]:
                return self._show(ref, query)
            case "DELETE", ["reservations", ref]:
                self.reasons.append(query.get("reason"))
                return self._end(self._find(ref))
            case "PUT" | "DELETE", ["reservations", ref, "guests", login]:
                return self._share(self._find(ref), method, login)
            case "POST", ["reservations", ref, "extend"]:
                return self._extend(self._find(ref), msgspec.json.decode(body, type=wire.ExtendRequest))
            case "GET", ["reservations", ref, "logs"]:
                self._find(ref)
                return self.logs
            case "GET", ["reservations", ref, "history"]:
                self._find(ref)
                item = {"at": "2030-01-01T12:00:00Z", "cause": "submitted", "actor": "local:alice"}
                blank = {"planned_start": None, "guaranteed_by": None, "ends_at": None, "detail": ""}
                pages = [
                    [msgspec.convert(item | blank | {"state": s}, wire.HistoryItem)]
                    for s in ("queued", "ready")
                ]
                page = int(query.get("cursor", "0"))
                return wire.History(items=pages[page], next=None if page else "1")
            case "GET", ["availability"]:
                return _availability(float(query.get("hours", "4")))
            case "GET", ["me"]:
                return _me(self.user)
            case "GET", ["timeline"]:
                return self._timeline()
            case "GET", ["people"]:
                return self._people()
            case "POST", ["people", "revocations"]:
                return self._confirm(msgspec.json.decode(body, type=wire.RevocationsRequest))
            case "POST", ["nodes", name]:
                return self._operate(name, msgspec.json.decode(body, type=wire.NodeRequest))
            case "GET", ["ssh"]:
                return self.ssh()
            case "GET", ["github-check"]:
                return self.github
            case "GET", ["doctor"]:
                return self.doctor
        raise Refusal(404, "not_found", f"there is nothing at {'/'.join(path)}")

    def _reserve(self, request: wire.ReserveRequest) -> wire.Reservation:
        with self._changed:
            assert request.request_id is not None
            known = self.by_request.get(request.request_id)
            if known is not None:
                return self.reservations[known]
            gpus = request.gpus or 1
            if gpus == 16:
                raise Refusal(
                    400, "invalid_shape", "16 GPUs do not fit on one node", "use --gpus 8 --nodes 2"
                )
            live = [r for r in self.reservations.values() if r.state != "ended"]
            if request.name and any(r.name == request.name and r.state != "stopping" for r in live):
                raise Refusal(409, "name_taken", f"{request.name} is the name of a live reservation of yours")
            nodes = request.nodes or 1
            new = f"k{next(self._numbers)}"
            self.by_request[request.request_id] = new
            self.reservations[new] = wire.Reservation(
                id=new,
                name=request.name,
                owner=self.user,
                state="queued",
                server=None,
                gpus=gpus,
                nodes=nodes,
                total_gpus=gpus * nodes,
                gpu_type=request.gpu_type or "h100",
                image=request.image or "default",
                hours=4.0 if request.hours is None else request.hours,
                position=len(live) + 1,
                planned_start="2030-01-01T12:00:00Z",
                guaranteed_by="2030-01-01T13:00:00Z",
                likely_start=None,
                reason="waiting for 2 GPUs: node-1 is free by 12:00 (bob)",
                created_at="2030-01-01T11:00:00Z",
                starts_at=None,
                ends_at=None,
                outcome=None,
                ended_at=None,
                url=None,
                ssh_command=None,
                vscode_url=None,
                allocation=[],
                version=1,
                mine=True,
                simulated=True,
            )
        return self.make_ready(new) if self.starts else self.reservations[new]

    def _find(self, ref: str) -> wire.Reservation:
        if ref in self.reservations:
            return self.reservations[ref]
        named = [r for r in self.reservations.values() if r.name == ref and r.state != "ended"]
        if named:
            return min(named, key=lambda r: r.state == "stopping")
        raise Refusal(404, "not_found", f"there is no reservation {ref!r}", "see `gpu-dev list`")

    def _show(self, ref: str, query: dict[str, str]) -> wire.Reservation:
        record = self._find(ref)
        if "version" in query and "wait" in query:
            until = time.monotonic() + float(query["wait"])
            with self._changed:
                self._changed.wait_for(
                    lambda: self._stopping or self.reservations[record.id].version != int(query["version"]),
                    until - time.monotonic(),
                )
                if self._stopping:
                    raise ConnectionAbortedError
        return self.reservations[record.id]

    def _end(self, record: wire.Reservation) -> wire.Reservation:
        if record.state == "ended":
            raise Refusal(409, "wrong_state", f"{record.id} has ended already")
        outcome = "cancelled" if record.state == "queued" else "released"
        return self.change(
            record.id,
            state="ended",
            server=None,
            outcome=outcome,
            ended_at="2030-01-01T12:30:00Z",
            position=None,
        )

    def _extend(self, record: wire.Reservation, request: wire.ExtendRequest) -> wire.Reservation:
        assert request.request_id is not None
        self.reasons.append(request.reason)
        if request.request_id in self.extensions:
            return self.reservations[record.id]
        if request.hours > 10:
            raise Refusal(409, "extension_refused", "bob was promised 18:00", "the longest is 1.5 hours")
        self.extensions.add(request.request_id)
        return self.change(record.id, hours=record.hours + request.hours)

    def _share(self, record: wire.Reservation, method: str, login: str) -> wire.Reservation:
        others = [guest for guest in record.guests if guest.login != login]
        if method == "PUT":
            if login == "stranger":
                raise Refusal(404, "not_found", "This hub has no user 'stranger'.")
            others.append(wire.Guest(login=login, since="2026-11-23T12:00:00Z"))
        return self.change(record.id, guests=others)

    def _operate(self, name: str, request: wire.NodeRequest) -> None:
        if not self.operator:
            raise Refusal(403, "forbidden", f"the token of {self.user} is not an operator's", "GPUDEV_TOKEN")
        if name != "node-1":
            raise Refusal(404, "not_found", f"there is no node {name!r}", "there are: node-1")
        after: dict[str, Literal["up", "down", "drained"]]
        after = {"drain": "drained", "undrain": "up", "lost": "down"}
        self.node_status = after[request.action]

    def _people(self) -> wire.People:
        if not self.operator:
            raise Refusal(403, "forbidden", f"the token of {self.user} is not an operator's", "GPUDEV_TOKEN")
        return self.people

    def _confirm(self, request: wire.RevocationsRequest) -> wire.People:
        for person in self._people().people:
            if person.subject in request.subjects:
                person.access, person.reason, person.held = "revoked", "not a member of o/team", False
        self.people.problems = []
        return self.people

    def _timeline(self) -> wire.Timeline:
        bars = [
            wire.TimelineBar(
                id=record.id,
                name=record.name,
                owner=record.owner,
                mine=True,
                gpus=record.gpus,
                nodes=1,
                state=record.state,
                start="2030-01-01T12:00:00Z",
                end="2030-01-01T16:00:00Z",
            )
            for record in self.reservations.values()
        ]
        node = wire.TimelineNode(
            name="node-1",
            status=self.node_status,
            gpus=8,
            bars=bars,
            reason=self.node_reason,
            until=self.node_until,
        )
        pool = wire.TimelinePool(gpu_type="h100", label="", simulated=True, nodes=[node], waiting=[])
        return wire.Timeline(now="2030-01-01T12:00:00Z", pools=[pool])


def _availability(hours: float) -> wire.Availability:
    def size(
        gpus: int, nodes: int, free: int, start: str | None, longest_now: float | None = None, why: str = ""
    ) -> wire.SizeAvailability:
        text = wire.Sentence(code="text", template="{text}", params={"text": why}, instants={})
        error = wire.Error(code="quota_exceeded", message=why) if "allowed" in why else None
        return wire.SizeAvailability(
            gpus=gpus,
            nodes=nodes,
            free_now=free,
            earliest_start=start,
            longest_now=longest_now,
            starts_now=not why,
            reason=why or None,
            reason_data=text if why else None,
            refused=error,
        )

    return wire.Availability(
        hours=hours,
        pools=[
            wire.PoolAvailability(
                gpu_type="h100",
                label="NVIDIA H100",
                simulated=True,
                gpus_per_node=8,
                nodes_up=2,
                gpus_total=16,
                gpus_free=6,
                queued=1,
                images=["default"],
                max_hours=24.0,
                sizes=[
                    size(1, 1, 6, "2020-01-01T00:00:00Z"),
                    size(4, 1, 1, None, why="8 GPU-hours more would make 28; 20 are allowed"),
                    size(8, 1, 0, "2100-01-01T00:00:00Z", 110 / 60, "waiting for 8 GPUs: node-1 frees"),
                    size(8, 2, 0, None, why="blocked: node-2 is drained"),
                ],
            )
        ],
    )


def _me(user: str) -> wire.Me:
    return wire.Me(
        user=user,
        subject=f"local:{user}",
        operator=False,
        max_hours=24.0,
        max_hours_extended=48.0,
        max_running_gpus=16,
        max_queued=10,
        running_gpus=0,
        queued=0,
        gpu_types=["h100"],
    )


def _handler(service: FakeService) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._serve()

        do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

        def _serve(self) -> None:
            url = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            service.requests.append((self.command, self.path))
            if not url.path.startswith(PREFIX):
                self._hub(url.path, body)
                return
            fault = self._fault(url.path)
            if fault is not None and fault.kind.isdigit():
                self._write(int(fault.kind), b"<html>Service Unavailable</html>", "text/html")
                return
            path = [unquote(part) for part in url.path.removeprefix(PREFIX).split("/")]
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            try:
                if path[0] == "login" and "Authorization" not in self.headers:
                    # A service of before there were logins.
                    raise Refusal(404, "not_found", "There is nothing at this address.")
                if self.headers.get("Authorization") != f"token {service.token}":
                    raise Refusal(401, "unauthenticated", "the Hub does not know this token")
                found = service.handle(self.command, path, query, body)
                status, answer = (204, b"") if found is None else (200, msgspec.json.encode(found))
            except Refusal as refusal:
                status, answer = refusal.status, msgspec.json.encode(wire.ErrorBody(error=refusal.error))
            except ConnectionAbortedError:
                return
            if fault is None:
                self._write(status, answer)
            elif fault.kind == "truncate":
                self._write(status, answer, cut=len(answer) // 2)
            elif fault.kind == "garbage":
                self._write(200, b"<html>hello</html>", "text/html")

        def _fault(self, path: str) -> Fault | None:
            for fault in service.faults:
                if fault.times > 0 and fault.method == self.command and fault.path in path:
                    fault.times -= 1
                    return fault
            return None

        def _write(
            self, status: int, body: bytes, kind: str = "application/json", cut: int | None = None
        ) -> None:
            try:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body if cut is None else body[:cut])
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client gave up

        def _hub(self, path: str, body: bytes) -> None:
            cookies = SimpleCookie(self.headers.get("Cookie", ""))
            session = cookies["session"].value if "session" in cookies else ""
            xsrf = f"xsrf-{session or 'nobody'}"
            match self.command, path:
                case "GET", "/hub/login":
                    form = (
                        '<input name="password">' if service.password_form else "<a>Sign in with GitHub</a>"
                    )
                    self._page(200, form, {"_xsrf": xsrf})
                case "POST", "/hub/login":
                    form_data = {key: values[0] for key, values in parse_qs(body.decode()).items()}
                    good = form_data.get("_xsrf") == xsrf and form_data.get("password") == service.password
                    self._page(302 if good else 403, "", {"session": "s1"} if good else {})
                case "GET", "/hub/token":
                    self._page(200, "tokens", {"_xsrf": xsrf})
                case "GET", "/hub/api/user" if session:
                    self._write(200, json.dumps({"name": service.user}).encode())
                case "POST", tokens if (
                    tokens == f"/hub/api/users/{service.user}/tokens"
                    and session
                    and self.headers.get("X-XSRFToken") == xsrf == cookies["_xsrf"].value
                ):
                    service.tokens_made.append(json.loads(body))
                    self._write(201, json.dumps({"token": service.token}).encode())
                case _:
                    self._write(403, b'{"message": "no"}')

        def _page(self, status: int, text: str, cookies: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in cookies.items():
                self.send_header("Set-Cookie", f"{name}={value}; Path=/hub/")
            if status == 302:
                self.send_header("Location", "/hub/home")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

    return Handler
