"""The document and the application say the same."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from gpudev_hub.core.errors import Code
from gpudev_hub.web.app import GATE, PUBLIC, make_gate_app, make_public_app
from gpudev_hub.web.dispatch import RouteHandler
from gpudev_hub.web.routes import by_path
from web_site import PREFIX, Running


def answered(application: Any) -> set[tuple[str, str]]:
    """(method, path pattern) of everything that an application's own handlers answer."""
    found = set()
    for rule in application.wildcard_router.rules:
        handler, arguments = rule.target, rule.target_kwargs
        if issubclass(handler, RouteHandler):
            found |= {(method, rule.matcher.regex.pattern) for method in arguments["routes"]}
        else:
            found |= {
                (method.upper(), rule.matcher.regex.pattern)
                for method in ("get", "post", "delete", "put", "patch")
                if getattr(handler, method) is not getattr(handler.__mro__[-2], method, None)
                and method in vars(handler)
            }
    return found


def shape(path: str) -> str:
    """A path with its parameters' names made equal."""
    return re.sub(r"\{\w+\}|\(\?P<\w+>\[\^/\]\+\)", "*", path).replace("\\", "").rstrip("$")


async def test_every_address_is_in_the_document_and_the_other_way_round(run: Running) -> None:
    async with run.client() as anybody:
        document = (await anybody.get("api/v1/openapi.json")).json()
    written = {
        (method.upper(), shape(PREFIX.rstrip("/") + path))
        for path, operations in document["paths"].items()
        for method in operations
    }
    real = {(method, shape(path)) for method, path in answered(make_public_app(run.site))}
    others = {("GET", f"{PREFIX}oauth_callback"), ("POST", f"{PREFIX}github/webhook")}
    assert real - written == others, "of JupyterHub, and of GitHub"
    assert written - real == set()
    gate = {(method, shape(path)) for method, path in answered(make_gate_app(run.site))}
    assert gate == {(route.method, shape(f"/{route.path}")) for route in GATE}


async def test_the_document_is_complete(run: Running) -> None:
    async with run.client() as anybody:
        document = (await anybody.get("api/v1/openapi.json")).json()
    assert document["openapi"] == "3.1.0"
    text = json.dumps(document)
    for name in re.findall(r'"#/components/schemas/(\w+)"', text):
        assert name in document["components"]["schemas"]
    operations = [op for path in document["paths"].values() for op in path.values()]
    ids = [op["operationId"] for op in operations]
    assert len(set(ids)) == len(ids)
    for op in operations:
        assert op["summary"].endswith("."), op
        assert any(status.startswith("2") for status in op["responses"])
    for code in Code:
        assert f"`{code}`" in document["info"]["description"]


def test_an_address_is_defined_once() -> None:
    with pytest.raises(ValueError, match="defined twice"):
        by_path([*PUBLIC, PUBLIC[0]])
