"""A function's decorator and annotations say all there is to know about a route."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Annotated

import pytest
from msgspec import Meta

from gpudev import wire
from gpudev_hub.core.errors import Code
from gpudev_hub.web import routes
from gpudev_hub.web.app import GATE, METRICS, PUBLIC
from gpudev_hub.web.routes import Access, Call, Param, Route, route

Count = Annotated[int, Meta(ge=1, description="How many.")]


@pytest.fixture
def added() -> Iterator[None]:
    """Forget the routes that a test defines."""
    before = len(routes.ROUTES)
    yield
    del routes.ROUTES[before:]


def last() -> Route:
    return routes.ROUTES[-1]


@pytest.mark.usefixtures("added")
def test_annotations_say_what_a_route_takes_and_answers() -> None:
    @route("POST", "things/{ref}/{other}", Code.NOT_FOUND, access=Access.OPERATOR)
    async def change(
        call: Call, ref: str, count: Count, body: wire.ExtendRequest, most: Count | None = None
    ) -> wire.Reservation:
        """Change a thing."""
        raise AssertionError(call, ref, count, body, most)

    made = last()
    assert (made.method, made.path, made.name, made.summary) == (
        "POST",
        "things/{ref}/{other}",
        "change",
        "Change a thing.",
    )
    assert (made.takes, made.answers, made.success) == (wire.ExtendRequest, wire.Reservation, 200)
    assert made.names == ("ref",), "parameters of the path that the function does not take are left out"
    assert made.query == (Param("count", Count, inspect.Parameter.empty), Param("most", Count, None))
    assert [(one.required, one.description, one.schema) for one in made.query] == [
        (True, "How many.", {"type": "integer", "minimum": 1}),
        (False, "How many.", {"type": "integer", "minimum": 1}),
    ]
    assert {Code.NOT_FOUND, Code.ACCESS_REVOKED, Code.TOO_LARGE} <= {*made.all_codes}


@pytest.mark.usefixtures("added")
def test_a_route_without_an_answer_has_no_body() -> None:
    @route("DELETE", "things")
    async def forget(call: Call, count: Count = 3) -> None:
        """Forget them."""
        raise AssertionError(call, count)

    made = last()
    assert (made.takes, made.answers, made.success, made.access) == (None, None, 204, Access.PERSON)
    assert made.query[0].schema == {"type": "integer", "minimum": 1, "default": 3}


def test_every_route_is_answered_by_an_application() -> None:
    assert {*routes.ROUTES} == {*PUBLIC, *GATE}
    assert [(one.name, one.access) for one in METRICS] == [("metrics", Access.ANYBODY)]
    for one in GATE:
        assert one.access in (Access.HUB, Access.BASTION)
