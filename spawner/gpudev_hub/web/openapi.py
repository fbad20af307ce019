"""The OpenAPI 3.1 document, made from the routes."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

import msgspec

from gpudev import wire
from gpudev_hub.core.errors import STATUS, Code

from .routes import PARAMETER, Access, Route, Text, by_path

REF = "#/components/schemas/{name}"
SECURITY: dict[Access, list[dict[str, list[str]]]] = {
    Access.PERSON: [{"hubToken": []}, {"browser": []}],
    Access.OPERATOR: [{"hubToken": []}, {"browser": []}],
    Access.MONITOR: [{"hubToken": []}, {"browser": []}],
    Access.SERVER: [{"serverToken": []}],
    Access.ANYBODY: [],
}
PATH_PARAMETERS = {
    "login": "Login of the other user.",
    "ref": "Id of a reservation, or name of a live reservation of the caller.",
    "id": "Id of the reservation whose server asks.",
    "name": "Name of a node.",
}


def document(routes: Iterable[Route], server: str) -> dict[str, Any]:
    """Return the document of routes below the path ``server``."""
    routes = list(routes)
    types = [wire.ErrorBody]
    for route in routes:
        types += [t for t in (route.takes, route.answers) if t is not None and t is not Text]
    references, components = msgspec.json.schema_components(types, ref_template=REF)
    schemas = dict(zip(types, references, strict=True))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "gpudev reservation service",
            "version": version("gpudev"),
            "description": "Times are in RFC 3339 format in UTC. Durations are in hours. "
            "`gpus` is the number of GPUs per node. Errors have stable codes: `"
            + "`, `".join(sorted(Code))
            + "`.",
        },
        "servers": [{"url": server.rstrip("/")}],
        "paths": {
            f"/{path}": {method.lower(): _operation(route, schemas) for method, route in methods.items()}
            for path, methods in by_path(routes).items()
        },
        "components": {
            "schemas": components,
            "securitySchemes": {
                "hubToken": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A Hub token with the scope custom:gpudev:reserve.",
                },
                "browser": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "service-gpudev",
                    "description": "The cookie of a browser login. Changes, and requests from scripts, "
                    "also need the X-XSRFToken header.",
                },
                "serverToken": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A running server's own token, valid for one start of the server.",
                },
            },
        },
    }


def _operation(route: Route, schemas: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    text = {"type": "string", "minLength": 1}
    parameters = [
        *((name, "path", True, PATH_PARAMETERS[name], text) for name in PARAMETER.findall(route.path)),
        *((one.name, "query", one.required, one.description, one.schema) for one in route.query),
    ]
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "security": SECURITY[route.access],
        "parameters": [
            dict(zip(("name", "in", "required", "description", "schema"), one, strict=True))
            for one in parameters
        ],
        "responses": _responses(route, schemas),
    }
    if route.takes is not None:
        operation["requestBody"] = {"required": True, "content": _json(schemas[route.takes])}
    return operation


def _responses(route: Route, schemas: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    success: dict[str, Any] = {"description": "Success."}
    if route.answers is Text:
        success["content"] = {route.media: {"schema": {"type": "string"}}}
    elif route.answers is not None:
        success["content"] = _json(schemas[route.answers])
    responses = {str(route.success): success}
    by_status: dict[int, list[Code]] = {}
    for code in route.all_codes:
        by_status.setdefault(STATUS[code], []).append(code)
    for status in sorted(by_status):
        responses[str(status)] = {
            "description": "Error code " + " or ".join(f"`{code}`" for code in by_status[status]) + ".",
            "content": _json(schemas[wire.ErrorBody]),
        }
    return responses


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
