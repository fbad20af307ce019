"""What browsers are told and what they cannot be made to do, on every route and page."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from gpudev import wire
from gpudev_hub.core.model import Owner, Reservation
from gpudev_hub.core.request import Ask
from gpudev_hub.web.app import PUBLIC
from gpudev_hub.web.auth import Auth
from gpudev_hub.web.base import PageHandler
from gpudev_hub.web.pages import pages
from gpudev_hub.web.routes import Access, Route
from gpudev_hub.web.settings import WebSettings
from web_site import Running, local_owner, log_in, running

API = wire.API
ALICE = Owner("local:alice", "alice", "alice")
BOB = Owner("local:bob", "bob", "bob")
WRITES = [route for route in PUBLIC if route.write and route.access in (Access.PERSON, Access.OPERATOR)]
PAGES = [
    "",
    "new",
    "pool",
    "usage",
    "operator",
    "help",
    "login",
    "reservations/ID",
    "operator/reservations/ID",
]
FORMS = ["new", "login", "operator/nodes/node-1", "operator/reservations/ID"]
FORMS += [f"reservations/ID/{action}" for action in ("extend", "release", "resume")]
INLINE = re.compile(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son[a-z]+=|javascript:", re.IGNORECASE)


@pytest_asyncio.fixture
async def run() -> AsyncIterator[Running]:
    async with running(pages()) as run:
        run.hub.person("alices", "alice")
        run.hub.person("operators", "alice", scopes=("custom:gpudev:reserve", "custom:gpudev:operate"))
        yield run


async def ready(run: Running) -> Reservation:
    made = await run.service.submit(ALICE, Ask(hours=1, name="secret-project"))
    await run.make_ready(made.id)
    return run.service.view.reservations[made.id]


def address(route: Route, id: str) -> str:
    return route.path.format(ref=id, id=id, name="node-1", login="bob")


def assert_hardened(answer: httpx.Response, *, kept: bool = False) -> None:
    headers = answer.headers
    policy = headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy, answer.url
    assert "unsafe" not in policy, answer.url
    assert headers["X-Frame-Options"] == "DENY", answer.url
    assert headers["X-Content-Type-Options"] == "nosniff", answer.url
    assert headers["Referrer-Policy"] == "no-referrer", answer.url
    assert headers["Server"] == "gpudev", answer.url
    if not kept:
        assert headers["Cache-Control"] == "no-store", answer.url


async def test_no_change_is_made_with_a_cookie_alone(run: Running) -> None:
    """Pages of other origins can send the cookie, but do not know the token of our pages."""
    record = await ready(run)
    assert len(WRITES) >= 9
    async with run.client() as browser:
        assert (await log_in(run, browser, "operators")).status_code == 200
        before, nodes = dict(run.service.view.reservations), dict(run.service.view.nodes)
        for route in WRITES:
            for headers in ({}, {"X-XSRFToken": "guess"}, {"Sec-Fetch-Mode": "no-cors"}):
                answer = await browser.request(
                    route.method, address(route, record.id), json={}, headers=headers
                )
                assert answer.status_code == 403, (route.name, answer.text)
        for path in FORMS:
            answer = await browser.post(path.replace("ID", record.id), data={"hours": "1", "action": "drain"})
            assert answer.status_code == 403, (path, answer.status_code)
        assert dict(run.service.view.reservations) == before
        assert dict(run.service.view.nodes) == nodes


def test_every_page_that_takes_a_form_is_tried() -> None:
    """A form that is added must be added to ``FORMS``."""
    taking = [
        path
        for path, page, _ in pages()
        if issubclass(page, PageHandler) and page.post is not PageHandler.post and not path.startswith("(?!")
    ]
    for path in taking:
        assert any(re.fullmatch(path, form.replace("ID", "res-1")) for form in FORMS), path


async def test_every_answer_has_the_headers(run: Running) -> None:
    record = await ready(run)
    async with run.client() as browser:
        await log_in(run, browser, "operators")
        for path in PAGES:
            page = await browser.get(path.replace("ID", record.id))
            assert page.status_code in (200, 400), path
            assert_hardened(page)
            assert not INLINE.search(page.text), path
        for path in ("nowhere", "reservations/res-99", "api/nowhere"):
            answer = await browser.get(path)
            assert answer.status_code == 404
            assert_hardened(answer)
        for name in ("gpudev.css", "pages.js", "icon.svg", "missing.js"):
            assert_hardened(await browser.get(f"static/{name}"), kept=True)
    async with run.client("operators") as client:
        for route in PUBLIC:
            if route.method == "GET":
                assert_hardened(await client.get(address(route, record.id)))


async def test_strangers_learn_nothing_about_anybody(run: Running) -> None:
    """Not from health, metrics, or any other address that needs no login."""
    record = await ready(run)
    async with run.client() as stranger:
        for route in PUBLIC:
            body: dict[str, str] | None = {} if route.write else None
            answer = await stranger.request(route.method, address(route, record.id), json=body)
            if route.access not in (Access.ANYBODY, Access.MONITOR):
                assert answer.status_code in (401, 403), route.name
            if route.access is Access.MONITOR:
                assert answer.status_code == 401, route.name
            assert "alice" not in answer.text, route.name
            assert "secret-project" not in answer.text, route.name


@pytest.mark.parametrize("secure", [True, False])
def test_cookies_are_for_https_alone_where_the_hub_is(secure: bool) -> None:
    auth = Auth(
        hub_api="http://127.0.0.1:1/hub/api",
        api_token="token",
        cookie_secret=b"x" * 32,
        owner=lambda user: local_owner(user.name),
        seen=lambda subject: None,
        now=lambda: 0,
        settings=WebSettings(f"{'https' if secure else 'http'}://hub.example/"),
    )
    assert auth.browser.cookie_options == {"samesite": "Lax"} | ({"secure": True} if secure else {})


async def test_guests_have_ssh_alone_where_servers_share_an_origin() -> None:
    """A page of the owner's could act as the guest who opens it."""
    async with running(pages(), lab_shared=False) as run:
        run.hub.person("alices", "alice")
        run.hub.person("bobs", "bob")
        record = await ready(run)
        await run.service.share(record.id, ALICE.subject, BOB)
        async with run.client("bobs") as bob, run.client("alices") as alice:
            his = (await bob.get(f"{API}/reservations/{record.id}")).json()
            assert (his["url"], his["lab_shared"], his["shared"]) == (None, False, True)
            assert his["ssh_command"]
            hers = (await alice.get(f"{API}/reservations/{record.id}")).json()
            assert hers["url"].endswith("/lab")


async def test_each_user_has_an_origin_with_subdomains() -> None:
    async with running(pages(), public_url="https://gpudev.example/base/", subdomains=True) as run:
        run.hub.person("alices", "alice")
        record = await ready(run)
        async with run.client("alices") as alice:
            hers = (await alice.get(f"{API}/reservations/{record.id}")).json()
            assert hers["url"] == f"https://alice.gpudev.example/base/user/alice/{record.id}/lab"
            assert hers["url"] in (await alice.get(f"reservations/{record.id}")).text


async def test_the_token_of_a_server_gives_nobody_access(run: Running) -> None:
    """Guests can read it, and only the owner gives access."""
    record = await ready(run)
    own = f"access:servers!server=alice/{record.id}"
    run.hub.person("servers", "alice", scopes=("custom:gpudev:reserve", own))
    guests = ("access:servers!user=alice", "access:servers!server=bob/shared")
    run.hub.person("laptops", "alice", scopes=("custom:gpudev:reserve", *guests))
    for token, status in (("servers", 403), ("laptops", 200)):
        async with run.client(token) as client:
            answer = await client.put(f"{API}/reservations/{record.id}/guests/bob")
            assert answer.status_code == status, answer.text
    async with run.client("servers") as client:
        page = await client.post(f"reservations/{record.id}/share", data={"login": "carol"})
        assert "The token of a server cannot give access to others" in page.text, "nor by a page"
        renew = next(address(route, record.id) for route in PUBLIC if route.name == "renew_token")
        assert (await client.post(renew)).status_code == 403, "nor is it renewed"
