"""Routes below ``gpudev/`` for JupyterLab's page, authenticated by Jupyter."""

from __future__ import annotations

from typing import Any

import msgspec
from jupyter_server.auth.decorator import authorized, ws_authenticated
from jupyter_server.base.handlers import APIHandler, JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from jupyter_server.utils import url_path_join
from tornado import web
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from gpudev import wire
from gpudev.hours import EXAMPLES, read_hours

from .guests import is_owner
from .service import Away, Follower, Refused, State

RESOURCE = "gpudev"
_ENCODER = msgspec.json.Encoder()


class Extension(msgspec.Struct):
    """``POST gpudev/extend``."""

    hours: str
    """As people write it: ``1``, ``90m``, ``1:30``."""
    request_id: wire.RequestId
    """The same for a retry, so that the extension is not granted twice."""


class Handler(APIHandler):
    """Base class: answers in JSON, and errors in the format of the service."""

    auth_resource = RESOURCE

    def initialize(self, follower: Follower) -> None:
        self.follower = follower

    def answer(self, value: State | wire.ErrorBody, status: int = 200) -> None:
        self.set_status(status)
        self.finish(_ENCODER.encode(value))

    def by_owner(self) -> bool:
        """Return whether the owner asks; refuse the request of a guest."""
        if is_owner(self.current_user):
            return True
        self.refuse(403, "forbidden", "Only the owner of this reservation can extend or release it.")
        return False

    def refuse(self, status: int, code: str, message: str) -> None:
        """Answer that nothing was done, and why."""
        self.answer(wire.ErrorBody(error=wire.Error(code=code, message=message)), status)

    async def perform(self, action: Any, unsure: str) -> None:
        """Await a request to the service, and answer with the new state."""
        try:
            self.follower.heard(await action)
        except Refused as refused:
            self.answer(wire.ErrorBody(error=refused.error), refused.status)
        except Away:
            self.refuse(503, "unavailable", f"The reservation service does not answer. {unsure}")
        else:
            self.answer(self.follower.state)


class StateHandler(Handler):
    """``GET gpudev/state``."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        self.follower.start()
        self.answer(self.follower.state)


class ExtendHandler(Handler):
    """``POST gpudev/extend``."""

    @web.authenticated
    @authorized
    async def post(self) -> None:
        if not self.by_owner():
            return
        try:
            asked = msgspec.json.decode(self.request.body, type=Extension)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self.refuse(400, "invalid_request", f"The request is malformed: {error}.")
            return
        hours = read_hours(asked.hours)
        if hours is None:
            self.refuse(
                400, "invalid_hours", f"{asked.hours[:20]!r} is not a length of time. Use {EXAMPLES}."
            )
            return
        await self.perform(
            self.follower.service.extend(hours, asked.request_id),
            "Try again in a minute. A second try does not extend twice.",
        )


class ReleaseHandler(Handler):
    """``POST gpudev/release``."""

    @web.authenticated
    @authorized
    async def post(self) -> None:
        if not self.by_owner():
            return
        await self.perform(self.follower.service.release(), "Try again in a minute.")


class LiveHandler(WebSocketMixin, WebSocketHandler, JupyterHandler):
    """``gpudev/live``: a websocket that sends the state at once and after each change.

    Browsers limit other connections to six for each host, counted over all tabs.
    """

    auth_resource = RESOURCE

    def initialize(self, follower: Follower) -> None:
        self.follower = follower

    @ws_authenticated
    @authorized
    async def get(self, *args: Any, **kwargs: Any) -> None:
        await super().get(*args, **kwargs)

    def open(self, *args: Any, **kwargs: Any) -> None:
        super().open(*args, **kwargs)
        self.follower.listeners.add(self.tell)
        self.follower.start()
        self.tell()

    def on_message(self, message: str | bytes) -> None:
        """Answer any message with the state. The page asks after its machine was asleep."""
        del message
        self.tell()

    def on_close(self) -> None:
        super().on_close()
        self.follower.listeners.discard(self.tell)

    def tell(self) -> None:
        try:
            self.write_message(_ENCODER.encode(self.follower.state).decode())
        except WebSocketClosedError:
            self.follower.listeners.discard(self.tell)


def add_handlers(application: Any, follower: Follower) -> None:
    """Serve the routes below the base URL of ``application``."""
    base = application.settings["base_url"]
    routes = {"state": StateHandler, "extend": ExtendHandler, "release": ReleaseHandler, "live": LiveHandler}
    application.add_handlers(
        ".*$",
        [
            (url_path_join(base, "gpudev", name), handler, {"follower": follower})
            for name, handler in routes.items()
        ],
    )
