"""The API against requests made from its own document, good and bad."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import httpx
import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)

from gpudev_hub.core.model import Owner
from gpudev_hub.core.request import Ask
from gpudev_hub.service.reads import Reads
from gpudev_hub.service.service import Service
from gpudev_hub.web.app import PUBLIC
from gpudev_hub.web.pages import pages
from gpudev_hub.web.routes import Access, Route
from web_site import TOKENS, Running, checked, looked, running

T = TypeVar("T")
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
OLGA = Owner("local:olga", "olga", "olga")


class Thread:
    """A service in a thread of its own, since requests of the fuzzer block."""

    def __init__(self) -> None:
        self.run: Running
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._down = asyncio.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()))
        self._thread.start()
        assert self._up.wait(20)
        self._live = ""

    async def _serve(self) -> None:
        async with running(pages()) as self.run:
            self.run.site.github_check = checked
            self.run.site.doctor = looked
            self.run.hub.person(
                "operators", "olga", scopes=("custom:gpudev:reserve", "custom:gpudev:operate")
            )
            self._up.set()
            await self._down.wait()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._down.set)
        self._thread.join(20)
        self._loop.close()

    def do(self, work: Callable[[], Awaitable[T]]) -> T:
        async def it() -> T:
            return await work()

        return asyncio.run_coroutine_threadsafe(it(), self._loop).result(20)

    def live(self) -> str:
        """A ready reservation of the operator's; another one if the last has ended."""

        async def find() -> str:
            service = self.run.service
            record = service.view.reservations.get(self._live)
            if record is None or record.state != "ready":
                record = await service.submit(OLGA, Ask(gpus=1, hours=1))
                await self.run.make_ready(record.id)
            return record.id

        self._live = self.do(find)
        return self._live

    def share_with_bob(self) -> None:
        """Make bob a guest of the live reservation, if he is not."""
        service, bob = self.run.service, Owner("local:bob", "bob", "bob")
        record = service.view.reservations[self.live()]
        if record.guest(bob.subject) is None:
            self.do(lambda: service.share(record.id, OLGA.subject, bob))


def hastened(wait: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
    """A wait with its longest time as the last argument; here it lasts a moment."""
    return lambda *arguments: wait(*arguments[:-1], min(arguments[-1], 0.05))


@pytest.fixture
def thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[Thread]:
    for kind, name in ((Reads, "wait_change"), (Service, "news")):
        monkeypatch.setattr(kind, name, hastened(getattr(kind, name)))
    thread = Thread()
    yield thread
    thread.close()


PROVED = {"collect_login", "login_by_key", "renew_token"}
"""Nothing made up can succeed here. tests/web/test_login.py has the successes."""
NOBODY_HELD = {"confirm_revocations"}
"""Succeeds only while a mass revocation is held, as in tests/web/test_people.py."""


def make_real(route: Route, case: Any, thread: Thread) -> None:
    """Let a made-up request speak of what exists."""
    real = {"name": "node-2", "login": "bob"}
    for name in case.path_parameters or {}:
        case.path_parameters[name] = real.get(name) or thread.live()
    if route.name == "unshare":
        thread.share_with_bob()
    if route.name == "clear_limits":
        case.query = {"scope": "default"}
    if isinstance(case.body, dict):
        if route.name == "set_limits":
            case.body |= {"scope": "person:local:zoe", "limits": {"running_gpus": 4}}
            case.body.pop("gpu_type", None)
        if route.name == "report" and "attempt" in case.body:
            case.body |= {"attempt": 1, "rank": 0}
        if route.name == "extend" and "hours" in case.body:
            case.body["hours"] = 0.02


@pytest.mark.parametrize("route", PUBLIC, ids=lambda route: route.name)
def test_no_request_breaks_it(route: Route, thread: Thread) -> None:
    """No 5xx, every answer as documented, and each operation reaches its success."""
    schema = schemathesis.openapi.from_dict(thread.run.site.document)
    operation = schema[f"/{route.path}"][route.method]
    made_up = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    if route.takes is not None or route.query:
        made_up |= operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
    statuses = set()

    @hypothesis.settings(
        max_examples=60,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=made_up, real=st.booleans())
    def once(case: Any, real: bool) -> None:
        if real:
            make_real(route, case, thread)
        token = TOKENS.make(thread.live(), 1) if route.access is Access.SERVER else "operators"
        answer = case.call(
            base_url=thread.run.url.rstrip("/"), headers={"Authorization": f"Bearer {token}"}, timeout=20
        )
        case.validate_response(answer, checks=CHECKS)
        statuses.add(answer.status_code)

    once()
    assert route.success in statuses or route.name in PROVED | NOBODY_HELD


PIECES = st.sampled_from(
    (
        *("api", "v1", "reservations", "new", "pool", "picker", "static", "gpudev.css", "oauth_callback"),
        *("servers", "health", "live", "metrics", "extend", "release"),
        *("x" * 65, "%", "%zz", "%00", "%ff", "%2e%2e", "..", "é"),
    )
)
METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "X"])
FORM = "application/x-www-form-urlencoded"
KINDS = st.sampled_from(["application/json", FORM, "multipart/form-data; boundary=x", "text/plain", "é"])


def test_no_address_method_or_body_breaks_it(thread: Thread) -> None:
    """Pages, and what is no address, with and without a token; bodies of a stated size and chunked."""

    @hypothesis.settings(
        max_examples=150,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        pieces=st.lists(PIECES, max_size=6),
        method=METHODS,
        kind=KINDS,
        body=st.binary(max_size=200) | st.just(b"--x\r\n") | st.just(b" " * 20_000),
        chunked=st.booleans(),
        token=st.sampled_from([None, "operators", "forged"]),
        query=st.sampled_from(["", "?", "?wait=x", "?hours=%zz", "?=&=", "?open=1&hours=2"]),
    )
    def once(
        pieces: list[str], method: str, kind: str, body: bytes, chunked: bool, token: str | None, query: str
    ) -> None:
        headers = [(b"Content-Type", kind.encode())]
        if token is not None:
            headers.append((b"Authorization", f"Bearer {token}".encode()))
        content = iter([body]) if chunked and body else body
        url = thread.run.url + "/".join(pieces) + query
        answer = httpx.request(
            method, url, headers=headers, content=content, trust_env=False, follow_redirects=False, timeout=20
        )
        assert answer.status_code < 500, answer.text
        if answer.status_code == 405:
            assert answer.headers["Allow"]
        if len(body) > 16 * 1024 and method not in ("TRACE", "X"):
            assert answer.status_code == 413
        if answer.status_code >= 400 and method != "HEAD":
            assert answer.text, (answer.status_code, method, url, kind, body[:50], token, chunked)

    once()
