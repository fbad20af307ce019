"""axe-core finds no serious problem on any page: narrow and wide, light and dark."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import jinja2
import msgspec
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from browsing import Watcher, check_accessibility, choose
from gpudev import wire
from gpudev_hub.hub import picker
from gpudev_hub.web import page_view
from gpudev_hub.web.page import TEMPLATES
from stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.integration, pytest.mark.timeout(400)]

OURS = "/services/gpudev/"
NAME = "abcdefghijklmnopqrstuvwxyz-123"
"""The longest allowed name."""
RIGHT_TO_LEFT = "\N{HEBREW LETTER ALEF}\N{HEBREW LETTER BET} <b>"


def judge(page: Page) -> None:
    """Check a page in both widths and colour schemes. Nothing may be wider than the screen."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 844})
            check_accessibility(page)
            wider = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
            assert wider <= 0, f"{page.url} is {wider} px wider than {width}"


def judge_all(page: Page, *addresses: str) -> None:
    """Check the pages at these addresses."""
    for address in addresses:
        page.goto(address)
        judge(page)


def test_the_check_sees_what_is_wrong(browser: Browser) -> None:
    page = browser.new_page()
    page.set_content(
        """<html lang="en"><title>x</title><main><h1>x</h1><p id="faint" style="color: #aaa">faint</p>
        <button id="nameless"></button></main></html>"""
    )
    for include, rule in ((None, "button-name"), (None, "color-contrast"), ("#faint", "color-contrast")):
        with pytest.raises(AssertionError, match=rule):
            check_accessibility(page, include)
    check_accessibility(page, "h1")
    with pytest.raises(AssertionError, match="nothing matches"):
        check_accessibility(page, "#none")
    page.close()


def test_pages_without_reservations(stack: Stack, login: Callable[..., Page], watcher: Watcher) -> None:
    watcher.expected |= {400, 403, 404, 409}
    page = login("dave")
    page.get_by_role("button", name="Reserve GPUs").click()
    page.wait_for_url("**/hub/spawn/**")
    expect(page.locator(".g-free").last).not_to_be_empty()
    judge(page)
    choose(page, "1 GPU", "1", RIGHT_TO_LEFT)
    expect(page.locator("#refused")).to_contain_text("\N{HEBREW LETTER ALEF}")
    judge(page)
    judge_all(
        page, OURS, f"{OURS}new?gpus=8&hours=2", f"{OURS}pool", f"{OURS}usage", f"{OURS}help", "/hub/token"
    )
    judge_all(page, f"{OURS}nothing", "/hub/nothing", f"{OURS}operator", "/hub/admin")
    judge_all(page, "/hub/logout", "/hub/login")


def test_pages_of_a_busy_pool(stack: Stack, login: Callable[..., Page]) -> None:
    over = stack.reserve("alice", gpus=1, hours=1, name="over")
    stack.api("DELETE", f"reservations/{over['id']}", None, "alice")
    found = [over]
    for user, ask in (
        ("alice", {"gpus": 8, "name": NAME}),
        ("bob", {"gpus": 4, "hours": 0.2, "name": "brief"}),
        ("bob", {"nodes": 2, "gpus": 8, "name": "pair"}),
        ("alice", {"gpus": 4, "hours": 3, "name": "eval"}),
    ):
        found.append(stack.reserve(user, **ask))
    stack.wait_state(found[1]["id"], "ready", "alice")
    page = login()
    page.goto("/hub/token")
    page.get_by_role("button", name="Make the token").click()
    expect(page.locator("#token-made")).to_be_visible()
    page.locator("details:has(.g-scopes) summary").first.click()
    page.locator("summary.g-button").first.click()
    judge(page)
    page.goto(f"{OURS}reservations/{found[1]['id']}")
    page.get_by_text("Release …").click()
    judge(page)
    judge_all(
        page,
        OURS,
        f"{OURS}pool",
        f"{OURS}usage?by=size",
        *(f"{OURS}reservations/{record['id']}" for record in found),
    )


@contextmanager
def held_up(pid: int) -> Iterator[None]:
    """Suspend a process."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_reservations_page_while_it_starts_and_when_it_is_stopped(
    stack: Stack, login: Callable[..., Page], watcher: Watcher
) -> None:
    watcher.expected |= {502, 503, 504}
    page = login()
    stack.api("GET", "me", None, "alice")  # so that the service knows the user while the Hub is suspended
    with held_up(stack.part("hub")):
        held = stack.reserve("alice", gpus=1, hours=1, name="passing")
        page.goto(f"{OURS}reservations/{held['id']}")
        expect(page.locator("#title")).to_contain_text("Starting")
        judge(page)
    page.goto("/hub/token")
    stack.wait_state(held["id"], "ready", "alice")
    page.evaluate(
        """(id) => fetch(`/hub/api/users/alice/servers/${id}`, {
            method: "DELETE", headers: { "X-XSRFToken": document.body.dataset.xsrf },
        })""",
        held["id"],
    )
    page.goto(f"{OURS}reservations/{held['id']}")
    expect(page.locator("#title")).to_contain_text("Stopped")
    judge(page)


PASSED: list[dict[str, Any]] = [
    {"state": "stopping", "server": "running"},
    *({"state": "ended", "server": None, "outcome": outcome} for outcome in ("expired", "failed", "idle")),
    {"state": "queued", "server": None, "position": None, "planned_start": None, "starts_at": None},
]
"""States that are rare or short: stopping, ended without a release, blocked."""


def test_a_reservations_page_in_rare_states(stack: Stack, login: Callable[..., Page]) -> None:
    """The pages are rendered from the template, with a changed reservation."""
    held = stack.reserve("alice", gpus=1, hours=1, name=NAME)
    ready = msgspec.convert(stack.wait_state(held["id"], "ready", "alice"), wire.Reservation)
    page = login()
    shown: list[str] = []

    def serve(route: Route) -> None:
        changes = PASSED[int(route.request.url.rpartition("/")[2])]
        record = msgspec.structs.replace(ready, **changes)
        s = page_view.Shown(record, ready.starts_at or "", stopped=False)
        shown.append(s.pill[0])
        values = {
            "root": OURS,
            "hub": "/hub/",
            "user": "alice",
            "operator": False,
            "xsrf": "x",
            "here": "home",
            "store_away": False,
        }
        again, slots = {"gpus": 1}, page_view.slots(record.allocation)
        route.fulfill(
            body=TEMPLATES.get_template("reservation.html").render(
                values,
                now=s.now,
                s=s,
                may_act=True,
                history=[],
                logs={},
                slots=slots,
                again=again,
                error=None,
            ),
            content_type="text/html",
        )

    # The page's script gets no answers, so the page does not change.
    page.route("**/api/v1/**", lambda route: None)
    page.route("**/stand-in/*", serve)
    judge_all(page, *(f"{OURS}stand-in/{number}" for number in range(len(PASSED))))
    assert shown == ["Stopping", "Expired", "Failed", "Idle", "Blocked"]


def test_pages_of_operators(stack: Stack, login: Callable[..., Page], watcher: Watcher) -> None:
    """They show a drained node, a blocked request, and a reason that is written from right to left."""
    watcher.expected |= {409}
    held = stack.reserve("alice", gpus=2, hours=1, name=NAME)
    stack.wait_state(held["id"], "ready", "alice")
    page = login(stack.user)
    page.get_by_role("link", name="Operator").click()
    page.get_by_role("link", name="Drain or mark lost node-2").click()
    page.wait_for_url("**/operator/nodes/node-2")
    judge(page)
    page.get_by_role("button", name="Drain node-2").click()
    expect(page.locator("#title")).to_contain_text("Drained")
    judge(page)
    try:
        blocked = stack.reserve("bob", gpus=8, nodes=2, hours=1, name="blocked")
        one = f"{OURS}operator/reservations/"
        judge_all(
            page,
            f"{OURS}pool",
            f"{OURS}operator",
            *(f"{OURS}reservations/{blocked['id']}", f"{one}{blocked['id']}", f"{one}{held['id']}"),
        )
        page.get_by_label("Time to add").fill("99")
        page.get_by_label("Reason").first.fill(RIGHT_TO_LEFT)
        page.get_by_role("button", name="Extend the reservation of alice").click()
        expect(page.get_by_role("alert").first).to_contain_text("cannot be extended")
        judge(page)
        page.get_by_label("Reason").last.fill(RIGHT_TO_LEFT)
        page.get_by_role("button", name="End the reservation of alice", exact=True).click()
        expect(page.locator("main")).to_contain_text("There is nothing to do")
        judge(page)
    finally:
        page.goto(f"{OURS}operator/nodes/node-2")
        page.get_by_role("button", name="Undrain node-2").click()
        expect(page.locator("#title")).to_contain_text("Up")
    owner = login("alice")
    owner.goto(f"{OURS}reservations/{held['id']}")
    expect(owner.locator("#title")).to_contain_text("nded by an operator")
    expect(owner.locator("#now")).to_contain_text(RIGHT_TO_LEFT)
    expect(owner.locator("#history")).to_contain_text(f"by {stack.user}")
    judge(owner)


STAND_INS: dict[str, dict[str, Any]] = {
    "accept-share.html": {},
    "admin.html": {},
    "error.html": {"status_code": 500, "status_message": "Internal Server Error", "message": "No luck"},
    "home.html": {},
    "login.html": {
        "authenticator_login_url": "/hub/login",
        "login_error": "Invalid username or password",
        "username": RIGHT_TO_LEFT,
        "gpudev_demo_users": ["alice", "bob"],
        "gpudev_simulated": True,
    },
    "logout.html": {"login_url": "/hub/login"},
    "not_running.html": {"server_name": "abc", "failed": True, "failed_message": "It failed."},
    "oauth.html": {
        "oauth_client": {
            "description": "Service of the site",
            "identifier": "service-of-the-site",
            "redirect_uri": f"https://example.org/{'long' * 30}",
        },
        "allowed_scopes": ["access:services", "read:users!user"],
        "scope_descriptions": [
            {"scope": "read:users!user", "description": "Read your user model.", "filter": "user alice"}
        ],
    },
    "page.html": {},
    "spawn_pending.html": {"spawner": {"name": "abc"}},
    "stop_pending.html": {"spawner": {"name": "abc"}},
}
"""Pages that are shown for a moment or only at some sites, each with the values of its template."""


def test_pages_of_the_hub_that_come_and_go(stack: Stack, login: Callable[..., Page]) -> None:
    """The Hub's templates are rendered at an address of the Hub, so that the pages find their files."""
    page = login()
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(picker.TEMPLATES), autoescape=True)
    common = {
        "prefix": "/",
        "base_url": "/hub/",
        "logout_url": "/hub/logout",
        "user": SimpleNamespace(name="alice"),
        "expanded_scopes": {"custom:gpudev:operate"},
        "xsrf": "x",
    }
    shown = {}

    def serve(route: Route) -> None:
        name = route.request.url.rpartition("/")[2]
        text = environment.get_template(name).render(common | STAND_INS[name])
        found = re.findall(r'<meta http-equiv="refresh" content="([^;]*);', text)
        # axe-core accepts no other delay, because slow readers cannot stop it.
        assert found in ([], ["0"]), name
        shown[name] = found
        route.fulfill(body=re.sub(r'<meta http-equiv="refresh"[^>]*>', "", text), content_type="text/html")

    page.route("**/hub/stand-in/*", serve)
    judge_all(page, *(f"/hub/stand-in/{name}" for name in STAND_INS))
    assert set(shown) == set(STAND_INS)
    assert shown["admin.html"] == ["0"]
