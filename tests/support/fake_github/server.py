"""Serve the fake GitHub over HTTP, in a separate thread."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from email.utils import formatdate
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from . import app_routes, oauth, rest, routes  # noqa: F401 (they add themselves)
from .control import OPERATIONS, Control, Rule, Seen
from .http import Answer, Failed, Request
from .state import NotKnown, State

API = "/api/v3"
_CONTROL = "/_control/"


class FakeGithub:
    """A GitHub at ``url``, with its API at ``api_url``. ``control`` changes it while it runs."""

    def __init__(self, state: State, port: int = 0, address: str = "127.0.0.1") -> None:
        self.state = state
        self.control = Control(state)
        self.address = address
        self._sockets = bind_sockets(port, address)
        self.port: int = self._sockets[0].getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="fake-github", daemon=True)
        self._hanging: set[asyncio.Event] = set()

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"

    @property
    def api_url(self) -> str:
        return f"{self.url}{API}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the server and its connections."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def requests(self, path: str = "") -> list[Seen]:
        """Return the requests so far whose path contains ``path``."""
        return [seen for seen in self.control.seen if path in seen.path]

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        application = Application([(".*", _Handler, {"github": self})], log_function=lambda handler: None)
        server = HTTPServer(application)
        server.add_sockets(self._sockets)
        self._loop.run_forever()
        server.stop()
        for event in self._hanging:
            event.set()
        self._loop.run_until_complete(server.close_all_connections())
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def answer(self, request: Request) -> Answer:
        """Return the answer before a rule changes it."""
        if request.path.startswith(f"{API}/"):
            inner = dataclasses.replace(request, path=request.path.removeprefix(API), base=request.base + API)
            return rest.answer(self.state, inner)
        try:
            return oauth.answer(self.state, request)
        except Failed as failed:
            return failed.answer

    def operate(self, name: str, fields: dict[str, Any]) -> Answer:
        """Run one operation of ``Control``, or return the requests or the state."""
        if name == "requests":
            return Answer(body=[dataclasses.asdict(seen) for seen in self.control.seen])
        if name == "accounts":
            return Answer(body={account.login: account.id for account in self.state.accounts.values()})
        if name not in OPERATIONS:
            return Answer(404, {"error": f"no operation {name}", "operations": sorted(OPERATIONS)})
        try:
            found = getattr(self.control, name)(**fields)
        except (TypeError, ValueError, NotKnown, KeyError) as error:
            return Answer(400, {"error": f"{type(error).__name__}: {error}"})
        return Answer(body={"id": getattr(found, "id", None)})


class _Handler(RequestHandler):
    def initialize(self, github: FakeGithub) -> None:
        self.github = github

    def set_default_headers(self) -> None:
        self.clear_header("Content-Type")
        self.set_header("Server", "github.com")

    def check_xsrf_cookie(self) -> None:
        return

    def compute_etag(self) -> None:
        """Return no tag: ``rest`` sets GitHub's tags."""
        return

    async def prepare(self) -> None:
        asked = self.request
        request = Request(
            method=asked.method or "",
            path=asked.path,
            query={name: values[-1].decode() for name, values in asked.query_arguments.items()},
            headers={name.lower(): value for name, value in asked.headers.get_all()},
            body=asked.body,
            address=asked.remote_ip or "",
            base=f"{asked.protocol}://{asked.host}",
        )
        control = self.github.control
        if request.path.startswith(_CONTROL):
            self._operate(request)
            return
        control.at_once += 1
        control.most_at_once = max(control.most_at_once, control.at_once)
        try:
            await self._serve(request)
        finally:
            control.at_once -= 1

    async def _serve(self, request: Request) -> None:
        control = self.github.control
        rules = [rule for rule in list(control.rules) if rule.applies(request.method, request.path)]
        for rule in rules:
            await asyncio.sleep(rule.delay)
        if any(rule.hang for rule in rules):
            self._see(request, 0)
            event = asyncio.Event()
            self.github._hanging.add(event)
            await event.wait()
            return
        if any(rule.drop for rule in rules):
            self._see(request, 0)
            self.request.connection.detach().close()  # type: ignore[union-attr]
            self._finished = True
            return
        answer = self.github.answer(request) if not any(rule.status for rule in rules) else Answer()
        for rule in rules:
            _spoil(answer, rule)
        self._see(request, answer.status)
        self._send(answer, min((rule.cut for rule in rules if rule.cut >= 0), default=-1))

    def _see(self, request: Request, status: int) -> None:
        control = self.github.control
        tagged = "if-none-match" in request.headers
        # Leave out other parameters, because codes and tokens are secrets.
        query = "&".join(
            f"{name}={value}" for name, value in request.query.items() if name in ("page", "per_page")
        )
        control.seen.append(
            Seen(request.method, request.path, query, status, tagged, self.github.state.now())
        )

    def _operate(self, request: Request) -> None:
        try:
            fields = request.fields() if request.method == "POST" else {}
        except Failed as failed:
            self._send(failed.answer)
            return
        self._send(self.github.operate(request.path.removeprefix(_CONTROL), fields))

    def _send(self, answer: Answer, cut: int = -1) -> None:
        self.set_status(answer.status)
        self.set_header("Date", formatdate(self.github.state.now(), usegmt=True))
        answer.headers.setdefault("Content-Type", "application/json; charset=utf-8")
        for name, value in answer.headers.items():
            if value:
                self.set_header(name, value)
        data = answer.data()
        if cut >= 0:
            self.set_header("Content-Length", str(len(data)))
            self.write(data[:cut])
            stream = self.request.connection
            self.flush()
            stream.detach().close()  # type: ignore[union-attr]
            self._finished = True
            return
        if answer.status in (204, 304):
            self.clear_header("Content-Type")
            self.finish()
        else:
            self.finish(data)


def _spoil(answer: Answer, rule: Rule) -> None:
    if rule.status:
        answer.status = rule.status
    if rule.body is not None:
        answer.body = rule.body.encode()
    elif rule.fewer and isinstance(answer.body, list):
        answer.body = answer.body[: -rule.fewer]
    if rule.body is not None or rule.fewer or rule.headers:
        # The tag belongs to the unchanged answer.
        answer.headers.pop("ETag", None)
    answer.headers.update(rule.headers)
