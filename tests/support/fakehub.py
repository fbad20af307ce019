"""A small Hub over real HTTP: tells who a token belongs to, lets browsers log in, and fails on demand."""

from __future__ import annotations

import asyncio
import json
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
        self.failure: str | None = None
        """``500`` | ``garbage`` | ``slow`` | ``reset``"""
        self.asked = 0
        self.delay = 0.0
        """Seconds that each answer takes."""
        self.at_once = 0
        self.most_at_once = 0
        self._sockets = bind_sockets(0, "127.0.0.1")
        self.port: int = self._sockets[0].getsockname()[1]
        self._server = HTTPServer(
            Application(
                [
                    ("/hub/api/user", _User, {"hub": self}),
                    ("/hub/api/oauth2/token", _Token, {"hub": self}),
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
        self, token: str, name: str, *, admin: bool = False, scopes: tuple[str, ...] = (RESERVE,)
    ) -> str:
        """Make a token of a user's."""
        self.tokens[token] = {
            "kind": "user",
            "name": name,
            "admin": admin,
            "groups": [],
            "scopes": sorted(scopes),
            "session_id": None,
            "token_id": "a1",
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
        token = self.request.headers.get("Authorization", "").removeprefix("token ")
        if token not in self.hub.tokens:
            raise HTTPError(403)
        self.finish(json.dumps(self.hub.tokens[token]))


class _Token(RequestHandler):
    def initialize(self, hub: FakeHub) -> None:
        self.hub = hub

    def post(self) -> None:
        token = self.hub.codes.pop(self.get_body_argument("code"), None)
        if token is None:
            raise HTTPError(400)
        self.finish({"access_token": token, "token_type": "Bearer"})
