"""A small Hub over real HTTP: tells who a token belongs to, lets people log in, and fails on demand."""

from __future__ import annotations

import asyncio
import itertools
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler

RESERVE = "custom:gpudev:reserve"


class FakeHub:
    """``tokens``: token → the model that ``GET /user`` answers. ``failure``: how to fail instead."""

    def __init__(self) -> None:
        self.tokens: dict[str, dict[str, Any]] = {}
        self.codes: dict[str, str] = {}
        self.ids: dict[str, str] = {}
        """Id of each token that was made → the token."""
        self.models: dict[str, dict[str, Any]] = {}
        """What the Hub says of the tokens, by id."""
        self.unknown_users: set[str] = set()
        self.numbers = itertools.count(1)
        self.failure: str | None = None
        """``500`` | ``garbage`` | ``slow`` | ``reset``"""
        self.asked = 0
        self.delay = 0.0
        """Seconds that each answer takes."""
        self.at_once = 0
        self.most_at_once = 0
        self.passwords = {"alice": "opensesame"}
        self.password_form = True
        """Whether the page for logging in asks for a password."""
        self.made: list[dict[str, Any]] = []
        """What was asked for with each new token."""
        self._sockets = bind_sockets(0, "127.0.0.1")
        self.port: int = self._sockets[0].getsockname()[1]
        self._server = HTTPServer(
            Application(
                [
                    ("/hub/login", _LoginPage, {"hub": self}),
                    ("/hub/token", _TokenPage, {"hub": self}),
                    ("/hub/api/user", _User, {"hub": self}),
                    ("/hub/api/oauth2/token", _Token, {"hub": self}),
                    ("/hub/api/users/([^/]+)", _Known, {"hub": self}),
                    ("/hub/api/users/([^/]+)/tokens", _Tokens, {"hub": self}),
                    ("/hub/api/users/([^/]+)/tokens/([^/]+)", _OneToken, {"hub": self}),
                ],
                log_function=lambda handler: None,
            )
        )

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}/hub/api"

    def start(self) -> None:
        self._server.add_sockets(self._sockets)

    async def stop(self) -> None:
        self._server.stop()
        await self._server.close_all_connections()

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
        """Make a token of a user's. ``client``: what it was made for, as the Hub describes it."""
        now = datetime.now(UTC)
        token_id = f"a{next(self.numbers)}"
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


class _User(RequestHandler):
    def initialize(self, hub: FakeHub) -> None:
        self.hub = hub

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


class _OfTheService(RequestHandler):
    def initialize(self, hub: FakeHub) -> None:
        self.hub = hub

    def prepare(self) -> None:
        if self.hub.failure is not None:
            raise HTTPError(500)
        sent = self.request.headers
        of_the_page = sent.get("X-XSRFToken") == self.get_cookie("_xsrf") == xsrf(self.get_cookie("session"))
        if sent.get("Authorization") != "token the-services-token" and not of_the_page:
            raise HTTPError(403)


class _Known(_OfTheService):
    def get(self, name: str) -> None:
        if name in self.hub.unknown_users:
            raise HTTPError(404)
        self.finish({"name": name})


class _Tokens(_OfTheService):
    def post(self, name: str) -> None:
        asked = json.loads(self.request.body)
        self.hub.made.append(asked)
        if name in self.hub.unknown_users:
            raise HTTPError(403)
        token = f"made-{next(self.hub.numbers)}-for-{name}"
        scopes = tuple(scope.replace("!user", f"!user={name}") for scope in asked["scopes"])
        life = timedelta(seconds=asked["expires_in"])
        self.hub.person(token, name, scopes=scopes, note=asked["note"], life=life)
        self.set_status(201)
        self.finish(self.hub.models[self.hub.tokens[token]["token_id"]] | {"token": token})


class _OneToken(_OfTheService):
    def find(self, name: str, id: str) -> str:
        if id not in self.hub.ids or self.hub.models[id]["user"] != name:
            raise HTTPError(404)
        return self.hub.ids[id]

    def get(self, name: str, id: str) -> None:
        self.find(name, id)
        self.finish(self.hub.models[id])

    def delete(self, name: str, id: str) -> None:
        del self.hub.tokens[self.find(name, id)]
        del self.hub.ids[id], self.hub.models[id]
        self.set_status(204)


class _Token(RequestHandler):
    def initialize(self, hub: FakeHub) -> None:
        self.hub = hub

    def post(self) -> None:
        token = self.hub.codes.pop(self.get_body_argument("code"), None)
        if token is None:
            raise HTTPError(400)
        self.finish({"access_token": token, "token_type": "Bearer"})


def xsrf(session: str | None) -> str:
    """The token that the forms of a browser's session must send."""
    return f"xsrf-{session or 'nobody'}"


class _Page(RequestHandler):
    def initialize(self, hub: FakeHub) -> None:
        self.hub = hub

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
