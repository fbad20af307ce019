"""GitHub's REST API: applies limits, versions and conditional requests to all routes."""

from __future__ import annotations

import hashlib

from .http import Answer, Failed, Request, not_found
from .routing import answer as route_answer
from .state import NotKnown, State, Window
from .tokens import Caller, caller, window_of

VERSIONS = ("2022-11-28", "2026-03-10")


def answer(state: State, request: Request) -> Answer:
    """Return the answer to a request to the API."""
    window: Window | None = None
    try:
        _check_form(request)
        asker = caller(state, request)
        if request.path != "/rate_limit":
            window = _count(state, asker)
        reply = route_answer(state, request, asker)
    except Failed as failed:
        reply = failed.answer
    except NotKnown:
        reply = not_found().answer
    else:
        reply = _conditional(request, asker, reply, window)
    reply.headers.setdefault("Content-Type", "application/json; charset=utf-8")
    reply.headers["X-GitHub-Api-Version-Selected"] = request.headers.get("x-github-api-version", VERSIONS[0])
    if window is not None:
        reply.headers.update(limit_headers(window))
    return reply


def limit_headers(window: Window) -> dict[str, str]:
    """Return the headers of every answer that counts against a limit."""
    return {
        "X-RateLimit-Limit": str(window.limit),
        "X-RateLimit-Remaining": str(window.remaining),
        "X-RateLimit-Used": str(window.used),
        "X-RateLimit-Reset": str(round(window.reset_at)),
        "X-RateLimit-Resource": "core",
    }


def _check_form(request: Request) -> None:
    if not request.headers.get("user-agent"):
        raise Failed(
            403,
            "Request forbidden by administrative rules. Make sure your request has a User-Agent header",
        )
    version = request.headers.get("x-github-api-version", VERSIONS[0])
    if version not in VERSIONS:
        raise Failed(400, f"{version} is not a valid version. Supported versions: {', '.join(VERSIONS)}")
    if request.path.endswith("/"):
        raise not_found()


def _count(state: State, asker: Caller) -> Window:
    window = window_of(state, asker)
    if window.remaining == 0:
        failed = Failed(state.limit_status, f"API rate limit exceeded for {asker.kind} ID {asker.name}.")
        failed.answer.headers.update(limit_headers(window))
        raise failed
    window.used += 1
    return window


def _conditional(request: Request, asker: Caller, reply: Answer, window: Window | None) -> Answer:
    """Tag the answer. Tags depend on the token, so the first request of a new token gets a full answer."""
    if request.method != "GET" or reply.status != 200 or request.path == "/rate_limit":
        return reply
    link = reply.headers.get("Link", "")
    tag = 'W/"' + hashlib.sha256(asker.token.encode() + link.encode() + reply.data()).hexdigest() + '"'
    if request.headers.get("if-none-match") == tag:
        if window is not None:
            window.used -= 1
        reply = Answer(304, None, {"Link": link} if link else {})
    reply.headers["ETag"] = tag
    return reply
