"""What a route is: one record from which both its handler and its entry in the OpenAPI document are made."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any, Protocol

import msgspec

from gpudev_hub.core.errors import Code
from gpudev_hub.core.model import Reservation

from .auth import Identity
from .site import Site


class Access(Enum):
    """Who may use a route."""

    PERSON = "person"
    """Anybody whom the Hub knows and who may reserve."""
    OPERATOR = "operator"
    """Whoever has the scope for operators, or is an admin of the Hub."""
    SERVER = "server"
    """The server of the route's reservation, with the token of its current attempt."""
    MONITOR = "monitor"
    """A person, or a token with the Hub's scope for metrics."""
    BASTION = "bastion"
    """A bastion, with the secret of the bastions."""
    HUB = "hub"
    """The Hub, with the gate's secret."""
    ANYBODY = "anybody"


@dataclass(frozen=True, slots=True)
class Param:
    """One query parameter; ``type`` is what msgspec converts and describes it with."""

    name: str
    type: Any
    description: str
    default: Any = None
    required: bool = False


def poll_params(longest: float) -> tuple[Param, Param]:
    """The query of a long poll for a change of a reservation, of at most ``longest`` seconds."""
    return (
        Param(
            "wait",
            Annotated[float, msgspec.Meta(ge=0, le=longest)],
            "Seconds to wait for a change before the answer.",
            default=0.0,
        ),
        Param(
            "version",
            Annotated[int, msgspec.Meta(ge=0)],
            "The version you know. If the current version differs, the answer comes at once.",
        ),
    )


@dataclass(frozen=True, slots=True)
class Text:
    """An answer that is not JSON."""

    body: str
    media: str = "text/plain; charset=utf-8"


@dataclass(slots=True)
class Call:
    """One request, authenticated, checked and decoded."""

    site: Site
    path: dict[str, str]
    query: dict[str, Any]
    body: Any
    caller: str
    """Subject or name for limits and logs."""
    identity: Identity | None = None
    server: Reservation | None = None
    """For ``Access.SERVER``: the live reservation whose server asks."""
    peer: str = ""
    """Network address that asks."""
    token: str | None = None
    """The token of the request's header; ``None``: it has none."""
    headers: dict[str, str] = field(default_factory=dict)
    """Headers to answer with."""
    reservation: str = ""
    """Id of the reservation that the request turned out to be about (for the log)."""

    @property
    def person(self) -> Identity:
        """Who asks, on routes of people."""
        assert self.identity is not None
        return self.identity


class Handle(Protocol):
    """What a route does: a plain function on a checked request."""

    __name__: str

    def __call__(self, call: Call, /) -> Awaitable[Any]:
        """Answer, or raise ``Refused``."""
        ...


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one address."""

    method: str
    path: str
    """Below the service's prefix, ``{name}`` for parameters."""
    handle: Handle
    """Its name is the ``operationId`` and the label in metrics, its docstring the summary."""
    access: Access
    answers: Any = None
    """Type of the body; ``None``: no body (204), ``Text``: text."""
    takes: Any = None
    """Type of the request's body."""
    query: tuple[Param, ...] = ()
    codes: tuple[Code, ...] = ()
    """Error codes beyond those that every route of its access has."""
    status: int = 200
    media: str = "text/plain"
    """Media type of an answer that is ``Text``."""

    @property
    def name(self) -> str:
        """What logs, metrics and the document call it."""
        return self.handle.__name__

    @property
    def summary(self) -> str:
        """What it does, for readers of the document."""
        return inspect.cleandoc(self.handle.__doc__ or "")

    @property
    def write(self) -> bool:
        """Whether it changes anything."""
        return self.method != "GET"

    @property
    def success(self) -> int:
        """Status of an answer that is no error."""
        return 204 if self.answers is None else self.status

    @property
    def all_codes(self) -> tuple[Code, ...]:
        """Every error code the route may answer, sorted."""
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


PARAMETER = re.compile(r"\{(\w+)\}")


def pattern(prefix: str, path: str) -> str:
    """The regular expression of an address."""
    escaped = re.escape(prefix + path).replace(r"\{", "{").replace(r"\}", "}")
    return PARAMETER.sub(r"(?P<\1>[^/]+)", escaped)


def by_path(routes: Iterable[Route]) -> dict[str, dict[str, Route]]:
    """Routes by path and method; a route given twice is a defect."""
    table: dict[str, dict[str, Route]] = {}
    for route in routes:
        methods = table.setdefault(route.path, {})
        if route.method in methods:
            raise ValueError(f"{route.method} {route.path} is defined twice")
        methods[route.method] = route
    return table
