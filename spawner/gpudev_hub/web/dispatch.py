"""Handle requests of routes: authenticate, limit, decode, call the route's function, answer."""

from __future__ import annotations

import asyncio
import hmac
import inspect
import math
from collections.abc import Iterable
from typing import Any

import msgspec
from tornado.web import HTTPError

from gpudev_hub.core.errors import TRY_AGAIN, Code, Refused
from gpudev_hub.core.model import Reservation

from . import ranges
from .auth import METRICS, OPERATE, Identity
from .base import JSON, BaseHandler, bearer
from .limits import network
from .routes import Access, Param, Route, Text
from .site import Site


class RouteHandler(BaseHandler):
    """The handler of all routes with the same path."""

    route: Route | None = None
    work: asyncio.Future[Any] | None = None
    gone = False

    def initialize(self, site: Site, routes: dict[str, Route]) -> None:  # type: ignore[override]
        super().initialize(site)
        self.routes = routes

    async def prepare(self) -> None:
        """Find the route. ``run`` does everything else."""
        self.route = self.routes.get(self.request.method or "")
        if self.route is None:
            raise HTTPError(405)

    def allowed(self) -> Iterable[str]:
        return self.routes

    async def run(self, **path: str) -> None:
        """Answer a request, for every method of every route."""
        route = self.route
        assert route is not None
        await self.authenticate(route, path)
        arguments = {name: path[name] for name in route.names} | self._query(route) | self._body(route)
        work = route.handle(self, **arguments)
        if not route.write:
            # A long poll ends with its connection. A write is completed even if the client has gone.
            work = self.work = asyncio.ensure_future(work)
        try:
            result = await work
        except asyncio.CancelledError:
            if not self.gone:
                raise Refused(Code.UNAVAILABLE, "The reservation service is stopping.", TRY_AGAIN) from None
            self.set_status(499, "Client Closed Request")
            return
        for name, value in self.headers.items():
            self.set_header(name, value)
        self.set_status(route.success)
        if isinstance(result, Text):
            self.set_header("Content-Type", result.media)
            self.finish(result.body)
        elif route.answers is None:
            self.finish()
        else:
            self.answer(result, route.success)

    get = post = put = delete = run

    def on_connection_close(self) -> None:
        self.gone = True
        if self.work is not None:
            self.work.cancel()

    async def authenticate(self, route: Route, path: dict[str, str]) -> None:
        """Authenticate the caller. Raises ``Refused`` for callers who may not use the route."""
        access = route.access
        if access is Access.ANYBODY:
            return
        if access is Access.HUB:
            self._check_secret(self.site.gate_secret, "Hub")
            return
        if access is Access.BASTION:
            self._check_secret(self.site.bastion_secret, "bastion")
            return
        if access is Access.SERVER:
            self.reserved = self._server(path["id"])
            self.reservation = self.reserved.id
        elif access is not Access.MONITOR or not await self._monitor():
            self.identity = await self._person(operator=access is Access.OPERATOR)
        self.limit(write=route.write)

    async def _person(self, *, operator: bool) -> Identity:
        identity = await self.identify()
        if identity is None:
            self.site.strangers.check(network(self.peer))
            raise Refused(
                Code.UNAUTHENTICATED,
                "The request has no token.",
                "Send `Authorization: Bearer TOKEN`. `gpu-dev login` makes a token.",
            )
        if operator and not identity.operator:
            raise Refused(
                Code.FORBIDDEN,
                f"Only operators can do this; this token of {identity.owner.login} is not an operator token.",
                f"Operators can make a token with the permission Operator (scope {OPERATE}) on the Tokens "
                "page (URL/hub/token), and set it as GPUDEV_TOKEN for gpu-dev.",
            )
        return identity

    async def _monitor(self) -> bool:
        """Return whether the token has the scope for metrics; tokens of Hub services can have it."""
        token = bearer(self)
        user = await self.hub_user(token) if token is not None else None
        if user is None or METRICS not in user.scopes:
            return False
        self.caller = f"monitor:{user.name}"
        return True

    def _check_secret(self, secret: str, whose: str) -> None:
        token = bearer(self)
        if token is None or not secret or not hmac.compare_digest(token.encode(), secret.encode()):
            raise Refused(Code.UNAUTHENTICATED, f"This address accepts only the {whose}'s secret.")
        self.caller = whose.lower()

    def _server(self, id: str) -> Reservation:
        """Return the live reservation if the token belongs to its current attempt. Works without the Hub."""
        token = bearer(self)
        if token is None:
            raise Refused(Code.UNAUTHENTICATED, "The request has no token.", "Send the server's own token.")
        reservation = self.site.service.view.reservations.get(id)
        if (
            reservation is None
            or not reservation.live
            or not self.site.server_token_ok(id, reservation.attempt, token)
        ):
            raise Refused(
                Code.FORBIDDEN,
                f"This token does not belong to a running server of reservation {id}.",
                "A server's token is valid for one start of the server, until the reservation ends.",
            )
        self.caller = f"server:{id}/{reservation.attempt}"
        return reservation

    def _query(self, route: Route) -> dict[str, Any]:
        known = {param.name: param for param in route.query}
        values = {param.name: param.default for param in route.query}
        for name, given in self.request.query_arguments.items():
            param = known.get(name)
            if param is None:
                raise Refused(
                    Code.INVALID_REQUEST,
                    f"{name[:64]!r} is not a query parameter of this address.",
                    f"Query parameters: {', '.join(sorted(known))}."
                    if known
                    else "This address has no query parameters.",
                )
            if len(given) > 1:
                raise Refused(
                    Code.INVALID_REQUEST,
                    f"The query parameter {name} is given {len(given)} times.",
                    "Give it once.",
                )
            values[name] = _convert(param, self.decode_argument(given[0], name))
        for param in route.query:
            if values[param.name] is inspect.Parameter.empty:
                raise _wrong(param, "missing")
        return values

    def _body(self, route: Route) -> dict[str, Any]:
        body = self.request.body
        if route.takes is None:
            if route.write and body not in (b"", b"{}"):
                raise Refused(Code.INVALID_REQUEST, "This address takes no body.", "Send an empty body.")
            return {}
        media = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if media != JSON:
            raise Refused(
                Code.UNSUPPORTED_MEDIA_TYPE,
                f"The content type of the body is {media[:64] or 'not given'}; it must be {JSON}.",
                f"Send `Content-Type: {JSON}`.",
            )
        try:
            value = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Refused(Code.INVALID_REQUEST, f"The body is not JSON: {error}.") from error
        try:
            return {"body": msgspec.convert(value, route.takes)}
        except msgspec.ValidationError as error:
            found = ranges.outside(error, route.takes, value)
            problem = str(error) if found is None else f"{found[0]} is {found[1]}"
            raise Refused(
                Code.INVALID_REQUEST,
                f"The body is not valid for {route.name}: {problem}.",
                "See the API reference.",
            ) from error


def _convert(param: Param, text: str) -> Any:
    try:
        value = msgspec.convert(text, param.type, strict=False)
    except msgspec.ValidationError as error:
        found = ranges.outside(error, param.type, text)
        raise _wrong(param, f"{text[:64]!r}: {error}" if found is None else found[1]) from error
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong(param, f"{text[:64]!r}; it must be a finite number")
    return value


def _wrong(param: Param, problem: str) -> Refused:
    return Refused(
        Code.INVALID_REQUEST,
        f"The query parameter {param.name} is {problem}.",
        f"{param.name}: {param.description}",
    )
