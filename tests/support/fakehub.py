"""A small Hub over real HTTP: knows tokens, lets people log in, runs servers, and fails on demand."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler

from gpudev_hub.core.gate import AdmitRequest, StopAsked, Verdict
from gpudev_hub.core.gate import Deleted as DeletedServer
from gpudev_hub.service.readiness import Report
from gpudev_hub.service.service import Service
from hub_users import HeldPort

TOKEN = "the-services-token"
RESERVE = "custom:gpudev:reserve"


class Servers(Protocol):
    """What a ``FakeHub`` starts and ends."""

    def launch(self, id: str, attempt: int, ranks: int) -> None:
        """Start a server, unless it runs."""

    def runs(self, id: str, attempt: int) -> bool:
        """Return whether it was started and not ended."""
        ...

    def end(self, id: str, attempt: int, detail: str, /) -> None:
        """End it."""


class FakeHub:
    """Starts servers in ``cluster`` if ``service`` admits them. Nothing listens before ``up``."""

    def __init__(self, cluster: Servers) -> None:
        self.cluster = cluster
        self.service: Service | None = None
        self.users: set[str] = set()
        """Names of known users."""
        self.failure: str | tuple[int, str] | None = None
        """The failure of all requests: status and message, or ``500``, ``garbage``, ``slow``, ``reset``."""
        # Who a token belongs to
        self.tokens: dict[str, dict[str, Any]] = {}
        """The answer of ``GET /user`` for each token."""
        self.models: dict[str, dict[str, Any]] = {}
        """The Hub's models of tokens, by id."""
        self.ids: dict[str, str] = {}
        """The tokens that tests know, by id."""
        self.codes: dict[str, str] = {}
        """The token for each code of an OAuth login."""
        self.numbers = itertools.count(1)
        self.asked = 0
        """How often the owner of a token was requested."""
        self.delay = 0.0
        """Seconds before each such answer."""
        self.at_once = 0
        self.most_at_once = 0
        self.passwords = {"alice": "opensesame"}
        self.password_form = True
        """Whether the login page asks for a password."""
        self.made: list[dict[str, Any]] = []
        """The request for each new token."""
        # Servers
        self.refuses: str | None = None
        """If set, the spawner fails with this message."""
        self.stops = True
        """Whether a server really ends when the Hub reports it as stopped."""
        self.before_answer: Callable[[str], Awaitable[None]] | None = None
        """Called between the start of a server and the answer."""
        self.before_stop: Callable[[], Awaitable[None]] | None = None
        """Called before a DELETE is carried out."""
        self.reports = True
        """Whether servers start far enough for their agents to report."""
        self.pending = False
        """Whether each start is answered with 202: it is still under way."""
        self.rows: dict[str, int] = {}
        """Servers that the Hub runs, with their attempts."""
        self.forgotten: set[str] = set()
        """Servers that were removed from the Hub."""
        self.calls: list[tuple[str, str]] = []
        """Method and name of each request for a server."""
        self.shares: dict[str, set[str]] = {}
        """Guests of servers; a new server has none."""
        self.subject_of: Callable[[str], str] = lambda user: f"local:{user}"
        self._held = HeldPort()
        self.port = self._held.number
        self._sockets = bind_sockets(self.port, "127.0.0.1")
        self._server: HTTPServer | None = None

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}/hub/api"

    def up(self) -> None:
        """Listen, also again after ``down``."""
        if not self._sockets:
            self._sockets = bind_sockets(self.port, "127.0.0.1")
        routes: list[tuple[str, type[RequestHandler]]] = [
            ("/hub/login", _LoginPage),
            ("/hub/token", _TokenPage),
            ("/hub/api/user", _Self),
            ("/hub/api/oauth2/token", _OauthToken),
            ("/hub/api/users", _Users),
            ("/hub/api/users/([^/]+)", _User),
            ("/hub/api/users/([^/]+)/tokens", _Tokens),
            ("/hub/api/users/([^/]+)/tokens/([^/]+)", _Token),
            ("/hub/api/users/([^/]+)/servers/([^/]+)", _Server),
            ("/hub/api/shares/([^/]+)/([^/]+)", _Shares),
        ]
        handlers: list[Any] = [(path, handler, {"hub": self}) for path, handler in routes]
        self._server = HTTPServer(Application(handlers, log_function=lambda handler: None))
        self._server.add_sockets(self._sockets)

    async def down(self) -> None:
        """Refuse connections from now on."""
        if self._server is not None:
            self._server.stop()
            await self._server.close_all_connections()
        self._server, self._sockets = None, []

    # Tokens

    def person(
        self,
        token: str,
        name: str,
        *,
        admin: bool = False,
        scopes: tuple[str, ...] = (RESERVE,),
        note: str = "made by hand",
        life: timedelta | None = None,
        client: str = "JupyterHub",
    ) -> str:
        """Make a token of a user. ``client``: its OAuth client, as the Hub describes it."""
        now = datetime.now(UTC)
        token_id = f"a{next(self.numbers)}"
        self.users.add(name)
        self.ids[token_id] = token
        self.models[token_id] = {
            "user": name,
            "id": token_id,
            "kind": "api_token",
            "scopes": sorted(scopes),
            "created": now.isoformat(),
            "expires_at": None if life is None else (now + life).isoformat(),
            "note": note,
            "oauth_client": client,
        }
        self.tokens[token] = {
            "kind": "user",
            "name": name,
            "admin": admin,
            "groups": [],
            "scopes": sorted(scopes),
            "session_id": None,
            "token_id": token_id,
        }
        return token

    def add_tokens(self, *models: dict[str, Any]) -> None:
        """Add tokens of which only the models are known, not the secrets."""
        self.models |= {model["id"]: model for model in models}

    def tokens_of(self, user: str) -> list[dict[str, Any]]:
        """Return the Hub's models of all tokens of a user."""
        return [model for model in self.models.values() if model["user"] == user]

    # Servers

    async def spawn(self, user: str, id: str) -> int:
        """Start a server like the spawner; return the status of the answer."""
        assert self.service is not None
        asked = AdmitRequest(self.subject_of(user), user, user, id, form=False)
        admission = await self.service.gate.admit(asked)
        if admission.verdict is not Verdict.START or admission.launch is None:
            raise HTTPError(409, log_message=admission.message)
        launch = admission.launch
        if self.pending:
            self.cluster.launch(id, launch.attempt, len(launch.allocation))
            return 202
        if self.rows.get(id) == launch.attempt and self.cluster.runs(id, launch.attempt):
            raise HTTPError(400, log_message=f"{user}:{id} is already running")
        self.cluster.launch(id, launch.attempt, len(launch.allocation))
        self.rows[id] = launch.attempt
        if self.reports:
            await self.report(id, launch.attempt, len(launch.allocation))
        if self.before_answer is not None:
            await self.before_answer(id)
        return 201

    async def report(self, id: str, attempt: int, ranks: int = 1) -> None:
        """Report, like the agents of a server, that all parts answer."""
        assert self.service is not None
        for rank in range(ranks):
            self.service.readiness.report(id, attempt, rank, Report(True if rank == 0 else None, True, ""))

    async def stop(self, id: str, *, user: bool) -> bool:
        """Stop a server like the spawner; return whether it stopped."""
        assert self.service is not None
        if id not in self.rows:
            return False
        attempt = self.rows.pop(id)
        record = await self.service.reads.find(id)
        assert record is not None
        if not (await self.service.gate.stop_asked(StopAsked(record.owner.subject, id, user))).stop:
            return False
        if self.stops:
            self.cluster.end(id, attempt, "stopped")
        return True

    async def deleted(self, user: str, id: str) -> None:
        """Report to the gate, like the spawner, that a server was deleted by the service or in the Hub."""
        assert self.service is not None
        self.forgotten.add(id)
        await self.service.gate.deleted(DeletedServer(self.subject_of(user), id))


def xsrf(session: str | None) -> str:
    """Return the token that the forms of a browser's session must send."""
    return f"xsrf-{session or 'nobody'}"


class _Handler(RequestHandler):
    def initialize(self, hub: FakeHub) -> None:
        self.hub = hub

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs["exc_info"][1]
        self.finish(json.dumps({"status": status_code, "message": getattr(error, "log_message", str(error))}))


class _Self(_Handler):
    async def get(self) -> None:
        self.hub.asked += 1
        self.hub.at_once += 1
        self.hub.most_at_once = max(self.hub.most_at_once, self.hub.at_once)
        await asyncio.sleep(self.hub.delay)
        self.hub.at_once -= 1
        failure = self.hub.failure
        if failure == "slow":
            await asyncio.sleep(30)
        if failure == "500":
            raise HTTPError(500)
        if failure == "reset":
            assert self.request.connection is not None
            self.detach().close()
            return
        if failure == "garbage":
            self.finish("<html>")
            return
        if session := self.get_cookie("session"):
            self.finish({"name": session})
            return
        token = self.request.headers.get("Authorization", "").removeprefix("token ")
        if token not in self.hub.tokens:
            raise HTTPError(403)
        self.finish(json.dumps(self.hub.tokens[token]))


class _OfTheService(_Handler):
    """Requests of the service with its token, and of the Hub's own page with its session."""

    def prepare(self) -> None:
        if isinstance(self.hub.failure, tuple):
            raise HTTPError(self.hub.failure[0], log_message=self.hub.failure[1])
        if self.hub.failure is not None:
            raise HTTPError(500)
        sent = self.request.headers
        of_the_page = sent.get("X-XSRFToken") == self.get_cookie("_xsrf") == xsrf(self.get_cookie("session"))
        if sent.get("Authorization") != f"token {TOKEN}" and not of_the_page:
            raise HTTPError(403)


class _Users(_OfTheService):
    def get(self) -> None:
        user = {"name": "all", "servers": {name: {} for name in self.hub.rows}}
        self.finish({"items": [user], "_pagination": {"next": None}})


class _User(_OfTheService):
    def get(self, name: str) -> None:
        if name not in self.hub.users:
            raise HTTPError(404)
        self.finish({"name": name})


class _Tokens(_OfTheService):
    def get(self, name: str) -> None:
        if name not in self.hub.users:
            raise HTTPError(404)
        self.finish({"api_tokens": self.hub.tokens_of(name)})

    def post(self, name: str) -> None:
        asked = json.loads(self.request.body)
        self.hub.made.append(asked)
        if name not in self.hub.users:
            raise HTTPError(403)
        token = f"made-{next(self.hub.numbers)}-for-{name}"
        scopes = tuple(scope.replace("!user", f"!user={name}") for scope in asked["scopes"])
        life = timedelta(seconds=asked["expires_in"])
        self.hub.person(token, name, scopes=scopes, note=asked["note"], life=life)
        self.set_status(201)
        self.finish(self.hub.models[self.hub.tokens[token]["token_id"]] | {"token": token})


class _Token(_OfTheService):
    def prepare(self) -> None:
        super().prepare()
        name, token_id = self.path_args
        if self.hub.models.get(token_id, {}).get("user") != name:
            raise HTTPError(404)

    def get(self, _: str, id: str) -> None:
        self.finish(self.hub.models[id])

    def delete(self, _: str, id: str) -> None:
        del self.hub.models[id]
        self.hub.tokens.pop(self.hub.ids.pop(id, ""), None)
        self.set_status(204)


class _Server(_OfTheService):
    def prepare(self) -> None:
        super().prepare()
        user, server = self.path_args
        self.hub.calls.append((str(self.request.method), server))
        if user not in self.hub.users:
            raise HTTPError(404, log_message="no such user")

    async def post(self, user: str, id: str) -> None:
        assert json.loads(self.request.body) == {}
        if self.hub.refuses is not None:
            raise HTTPError(500, log_message=self.hub.refuses)
        self.set_status(await self.hub.spawn(user, id))

    async def delete(self, user: str, id: str) -> None:
        if self.hub.before_stop is not None:
            await self.hub.before_stop()
        await self.hub.stop(id, user=True)  # the real Hub does not say who asked for a DELETE
        if json.loads(self.request.body)["remove"]:
            await self.hub.deleted(user, id)
        self.set_status(204)


class _Shares(_OfTheService):
    def prepare(self) -> None:
        super().prepare()
        if self.path_args[1] not in self.hub.rows:
            raise HTTPError(404)
        self.guests = self.hub.shares.setdefault(self.path_args[1], set())

    def get(self, _: str, __: str) -> None:
        items = [{"user": {"name": name}} for name in sorted(self.guests)]
        self.finish({"items": items, "_pagination": {"next": None}})

    def post(self, user: str, id: str) -> None:
        body = json.loads(self.request.body)
        assert body["scopes"] == [f"access:servers!server={user}/{id}"]
        if body["user"] not in self.hub.users:
            self.set_status(400)
            self.finish({"message": f"No such user: {body['user']}"})
            return
        self.guests.add(body["user"])
        self.finish({})

    def patch(self, _: str, __: str) -> None:
        self.guests.discard(json.loads(self.request.body)["user"])
        self.finish({})


class _OauthToken(_Handler):
    def post(self) -> None:
        token = self.hub.codes.pop(self.get_body_argument("code"), None)
        if token is None:
            raise HTTPError(400)
        self.finish({"access_token": token, "token_type": "Bearer"})


class _Page(_Handler):
    def show(self, text: str) -> None:
        self.set_cookie("_xsrf", xsrf(self.get_cookie("session")), path="/hub/")
        self.finish(text)


class _LoginPage(_Page):
    def get(self) -> None:
        self.show('<input name="password">' if self.hub.password_form else "<a>Sign in with GitHub</a>")

    def post(self) -> None:
        name = self.get_body_argument("username")
        given = self.get_body_argument("password"), self.get_body_argument("_xsrf")
        if given != (self.hub.passwords.get(name), xsrf(None)):
            raise HTTPError(403)
        self.set_cookie("session", name, path="/hub/")
        self.redirect("/hub/home", status=302)


class _TokenPage(_Page):
    def get(self) -> None:
        self.show("tokens")
