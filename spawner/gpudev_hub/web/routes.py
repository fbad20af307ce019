"""Routes are functions: their decorator and annotations define everything about them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from types import ModuleType, NoneType
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import msgspec
from msgspec import Meta

from gpudev_hub.core.errors import Code
from gpudev_hub.core.model import Reservation

from .auth import Identity
from .settings import MAX_WAIT
from .site import Site


class Access(Enum):
    """Who may use a route."""

    PERSON = "person"
    """Every user of the Hub who may reserve."""
    OPERATOR = "operator"
    """Callers with the scope for operators, and admins of the Hub."""
    SERVER = "server"
    """The server of the route's reservation, with the token of its current attempt."""
    MONITOR = "monitor"
    """A person, or a token with the Hub's scope for metrics."""
    BASTION = "bastion"
    """The bastion, with its secret."""
    HUB = "hub"
    """The Hub, with the gate's secret."""
    ANYBODY = "anybody"


Wait = Annotated[
    float, Meta(ge=0, le=MAX_WAIT, description="Seconds to wait for a change before the answer.")
]
Version = Annotated[
    int,
    Meta(ge=0, description="The version you know. If the current version differs, the answer comes at once."),
]
Fingerprint = Annotated[
    str, Meta(pattern="^SHA256:[A-Za-z0-9+/]{43}$", description="Fingerprint of the offered key.")
]


@dataclass(frozen=True, slots=True)
class Param:
    """One query parameter. ``type`` is for conversion and description by msgspec."""

    name: str
    type: Any
    default: Any

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema without the description."""
        found = msgspec.json.schema(self.type)
        del found["description"]
        return found if self.required or self.default is None else found | {"default": self.default}

    @property
    def description(self) -> str:
        return str(msgspec.json.schema(self.type)["description"])


@dataclass(frozen=True, slots=True)
class Text:
    """An answer that is not JSON."""

    body: str
    media: str = "text/plain; charset=utf-8"


class Call:
    """One request, as functions of routes see it. Every handler is one."""

    site: Site
    caller = ""
    """Subject or name of the caller, for limits and logs."""
    identity: Identity | None = None
    reserved: Reservation | None = None
    """For ``Access.SERVER``: the live reservation whose server asks."""
    reservation = ""
    """Id of the reservation that the request is about, for the log."""
    peer: str
    """Network address of the caller."""
    token: str | None = None
    """Token of the ``Authorization`` header, ``None`` without one."""
    headers: dict[str, str]
    """Headers for the answer."""

    @property
    def person(self) -> Identity:
        """The caller, on pages and on routes for users."""
        assert self.identity is not None
        return self.identity

    @property
    def server(self) -> Reservation:
        """The reservation whose server asks, on routes for servers."""
        assert self.reserved is not None
        return self.reserved


Handle = Callable[..., Awaitable[Any]]
H = TypeVar("H", bound=Handle)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method of one address."""

    method: str
    path: str
    """Path below the service's prefix, with ``{name}`` for parameters."""
    handle: Handle
    """Its name is the ``operationId`` and the label in metrics, its docstring the summary."""
    access: Access
    codes: tuple[Code, ...]
    """Error codes in addition to those of all routes with this access."""
    success: int
    """Status of a successful answer."""
    media: str
    """Media type of an answer that is ``Text``."""
    answers: Any
    """Type of the body; ``None``: no body (204), ``Text``: text."""
    takes: Any
    """Type of the request's body; ``None``: it has none."""
    names: tuple[str, ...]
    """Names of parameters of the path that the function takes."""
    query: tuple[Param, ...]

    @property
    def name(self) -> str:
        """Name in logs, metrics and the document."""
        return self.handle.__name__

    @property
    def summary(self) -> str:
        """Summary in the document."""
        return inspect.cleandoc(self.handle.__doc__ or "")

    @property
    def write(self) -> bool:
        """Whether it changes anything."""
        return self.method != "GET"

    @property
    def all_codes(self) -> tuple[Code, ...]:
        """All error codes of the route, sorted."""
        codes = {*self.codes}
        if self.access is not Access.ANYBODY:
            codes |= {Code.UNAUTHENTICATED, Code.FORBIDDEN, Code.RATE_LIMITED, Code.UNAVAILABLE}
            codes |= {Code.INVALID_REQUEST}
        if self.access in (Access.PERSON, Access.OPERATOR, Access.MONITOR):
            codes |= {Code.ACCESS_REVOKED}
        if self.write:
            codes |= {Code.INVALID_REQUEST, Code.TOO_LARGE}
        if self.takes is not None:
            codes |= {Code.UNSUPPORTED_MEDIA_TYPE}
        return tuple(sorted(codes))


ROUTES: list[Route] = []
"""All routes, in the order of import."""
PARAMETER = re.compile(r"\{(\w+)\}")


def route(
    method: str,
    path: str,
    *codes: Code,
    access: Access = Access.PERSON,
    status: int = 200,
    media: str = "text/plain",
) -> Callable[[H], H]:
    """Return a decorator that makes a function a route.

    The function takes a `Call`, then parameters of the path by their names, the body as `body`, and
    parameters of the query. The annotations define their types and the type of the answer.
    `codes`: of refusals, in addition to those of all routes with this access.
    """

    def define(handle: H) -> H:
        types = get_type_hints(handle, include_extras=True)
        answers = types.pop("return")
        takes = types.pop("body", None)
        given = list(inspect.signature(handle).parameters.values())[1:]
        names = tuple(one.name for one in given if one.name in PARAMETER.findall(path))
        found = Route(
            method=method,
            path=path,
            handle=handle,
            access=access,
            codes=codes,
            success=204 if answers is NoneType else status,
            media=media,
            answers=None if answers is NoneType else answers,
            takes=takes,
            names=names,
            query=tuple(
                Param(one.name, _present(types[one.name]), one.default)
                for one in given
                if one.name not in (*names, "body")
            ),
        )
        ROUTES.append(found)
        return handle

    return define


def _present(kind: Any) -> Any:
    """Return ``T`` for ``T | None``, and other types unchanged."""
    return next((one for one in get_args(kind) if NoneType in get_args(kind) and one is not NoneType), kind)


def routes_of(*modules: ModuleType) -> list[Route]:
    """Return the routes of modules, in the order of their functions."""
    return [one for module in modules for one in ROUTES if one.handle.__module__ == module.__name__]


def pattern(prefix: str, path: str) -> str:
    """Return the regular expression of an address."""
    escaped = re.escape(prefix + path).replace(r"\{", "{").replace(r"\}", "}")
    return PARAMETER.sub(r"(?P<\1>[^/]+)", escaped)


def by_path(routes: Iterable[Route]) -> dict[str, dict[str, Route]]:
    """Return routes by path and method. Raises ``ValueError`` if two have the same."""
    table: dict[str, dict[str, Route]] = {}
    for route in routes:
        methods = table.setdefault(route.path, {})
        if route.method in methods:
            raise ValueError(f"{route.method} {route.path} is defined twice")
        methods[route.method] = route
    return table
