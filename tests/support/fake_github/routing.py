"""Find the route of a request; functions that routes share, for pages of lists and models."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from .http import Answer, Request, not_found
from .state import Account, State
from .tokens import Caller

Handler = Callable[..., Answer]
_ROUTES: list[tuple[str, re.Pattern[str], Handler]] = []


def route(method: str, path: str) -> Callable[[Handler], Handler]:
    path = path.replace("{id}", "(?P<id>[0-9]+)")
    pattern = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))

    def add(handler: Handler) -> Handler:
        _ROUTES.append((method, pattern, handler))
        return handler

    return add


def answer(state: State, request: Request, asker: Caller) -> Answer:
    """Return the answer of the request's route. Raises ``Failed`` or ``NotKnown``."""
    for method, pattern, handler in _ROUTES:
        match = pattern.fullmatch(request.path)
        if match and method == request.method:
            return handler(state, request, asker, **match.groupdict())
    raise not_found()


def when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def user_model(account: Account) -> dict[str, Any]:
    return {
        "login": account.login,
        "id": account.id,
        "node_id": f"U_{account.id}",
        "type": "User",
        "name": account.name,
        "site_admin": False,
    }


def pages(request: Request, items: list[Any], default: int = 30) -> Answer:
    """Return one page of a list, with GitHub's ``Link`` header."""
    try:
        size = max(1, min(100, int(request.query.get("per_page", default))))
        page = max(1, int(request.query.get("page", "1")))
    except ValueError:
        size, page = default, 1
    last = max(1, -(-len(items) // size))
    links = []
    relations = {"prev": page - 1, "next": page + 1, "last": last, "first": 1}
    for relation, number in relations.items():
        forward = relation in ("next", "last")
        if (page < last) if forward else (page > 1):
            query = urlencode({**request.query, "page": number})
            links.append(f'<{request.base}{request.path}?{query}>; rel="{relation}"')
    headers = {"Link": ", ".join(links)} if links else {}
    return Answer(200, items[(page - 1) * size : page * size], headers)
