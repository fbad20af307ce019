"""Requests and answers of the fake GitHub, and its error texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl


@dataclass(frozen=True, slots=True)
class Request:
    """A request. Header names are in lower case; ``base`` is the address that the client used."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    address: str
    base: str

    def fields(self) -> dict[str, Any]:
        """Return the fields of the body, which is JSON or a form."""
        if "json" in self.headers.get("content-type", ""):
            try:
                found = json.loads(self.body or b"{}")
            except ValueError:
                raise Failed(400, "Problems parsing JSON") from None
            if not isinstance(found, dict):
                raise Failed(400, "Body should be a JSON object")
            return found
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))


@dataclass(slots=True)
class Answer:
    """An answer; ``body`` is sent as JSON unless it is bytes."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)

    def data(self) -> bytes:
        if self.body is None:
            return b""
        if isinstance(self.body, bytes):
            return self.body
        return json.dumps(self.body).encode()


class Failed(Exception):
    """An error, answered as JSON."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.answer = Answer(
            status,
            {"message": message, "documentation_url": "https://docs.github.com/rest", "status": str(status)},
            {name.replace("_", "-"): value for name, value in headers.items()},
        )


def not_found() -> Failed:
    return Failed(404, "Not Found")
