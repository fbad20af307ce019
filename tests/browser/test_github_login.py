"""Login with GitHub in a real browser, and the pages that people without access see."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from browsing import SLOW, Watcher, check_accessibility
from github_hub import GithubStack, running_github_stack
from hub_users import wait_for

pytestmark = [pytest.mark.browser, pytest.mark.integration, pytest.mark.timeout(400)]

GRACE = 4
"""Seconds for which access continues in an outage of GitHub, short enough to test its end."""
SHOTS = os.environ.get("GPUDEV_SCREENSHOTS")
"""A folder for pictures of every page, wide and narrow, light and dark."""


@pytest.fixture(scope="module")
def stack() -> Iterator[GithubStack]:
    """Run one hub with GitHub for all tests here, instead of the hub with passwords."""
    with (
        TemporaryDirectory(prefix="gh-", ignore_cleanup_errors=True) as folder,
        running_github_stack(Path(folder)) as running,
    ):
        yield running


@pytest.fixture(autouse=True)
def _healed(stack: GithubStack) -> Iterator[None]:
    yield
    stack.github.control.heal()


@pytest.fixture
def visit(stack: GithubStack, browser: Browser, watcher: Watcher) -> Iterator[Callable[[], Page]]:
    """Return a function that opens a separate browser on the login page."""
    contexts: list[BrowserContext] = []

    def come() -> Page:
        context = browser.new_context(base_url=stack.url)
        contexts.append(context)
        context.set_default_timeout(SLOW)
        watcher.watch(context)
        page = context.new_page()
        page.goto("/")
        page.wait_for_url("**/hub/login*")
        return page

    yield come
    for context in contexts:
        context.close()


def to_github(page: Page) -> None:
    """Begin a login, as far as GitHub's page."""
    page.get_by_role("link", name="Log in with GitHub").click()
    expect(page.get_by_role("heading", name="Sign in to the fake GitHub")).to_be_visible()


def choose(page: Page, login: str) -> None:
    """Choose an account on GitHub's page."""
    page.get_by_role("radio", name=re.compile(rf"^{login}\b")).check()
    page.get_by_role("button", name="Sign in and authorize").click()


def look(page: Page, name: str, *, layout: bool = False) -> None:
    """Check that a page is not too wide, and save pictures of it if a folder is set.

    ``layout``: also check accessibility, in both widths and colour schemes. Other pages with the same layout
    differ only in their text, which can be too long for a narrow screen.
    """
    for scheme in ("light", "dark") if layout or SHOTS else ("light",):
        page.emulate_media(color_scheme=scheme)
        for width in (1280, 390) if layout or SHOTS else (390,):
            page.set_viewport_size({"width": width, "height": 844})
            wider = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
            assert wider <= 0, f"{page.url} is {wider} px wider than {width}"
            if layout:
                check_accessibility(page)
            if SHOTS:
                Path(SHOTS).mkdir(parents=True, exist_ok=True)
                path = Path(SHOTS) / f"{name}-{scheme}-{width}.png"
                page.screenshot(path=path, full_page=True, animations="disabled")


def refusal(page: Page, watcher: Watcher, status: int, heading: str, *said: str) -> None:
    """Check that the page has this status and contains all these texts."""
    watcher.expected.add(status)
    expect(page.get_by_role("heading", level=1)).to_have_text(heading)
    expect(page.locator(".g-pill")).to_have_text(str(status))
    for words in said:
        expect(page.get_by_role("main")).to_contain_text(words)


def shut_out(page: Page, *said: str) -> None:
    """Check that the service's page has these texts, or the login page if the Hub has asked again."""
    page.goto("/services/gpudev/")
    heading = page.get_by_role("heading", level=1)
    expect(heading).to_have_text(re.compile("^(You cannot use this hub now|Log in)$"))
    for words in said:
        expect(page.get_by_role("main")).to_contain_text(words)


def logged_out(page: Page, *said: str) -> None:
    """Wait until the Hub redirects to the login page with these texts, which happens when it asks again."""

    def sent() -> bool:
        page.goto("/hub/token")
        return "/hub/login" in page.url

    wait_for("the Hub to ask again", sent)
    for words in said:
        expect(page.get_by_role("alert")).to_contain_text(words)


def test_a_member_with_push_gets_in_and_reserves(
    stack: GithubStack, visit: Callable[[], Page], watcher: Watcher
) -> None:
    page = visit()
    expect(page.locator(".g-button:visible")).to_have_count(1)
    expect(page.get_by_role("main")).to_contain_text("pytorch/metamates")
    look(page, "login", layout=True)
    to_github(page)
    choose(page, "ada")
    page.wait_for_url("**/services/gpudev/")
    expect(page.locator(".g-who")).to_contain_text("ada")
    held = stack.reserve("ada", gpus=1, hours=1, name="mine")
    stack.wait_state(held["id"], "ready", "ada")
    page.goto(f"/user/ada/{held['id']}/lab")
    expect(page).to_have_title(re.compile("JupyterLab|mine"))
    page.goto("/hub/logout")
    expect(page.get_by_role("heading", level=1)).to_have_text("Log in")


NOT_LET_IN = {
    "member-without-push": ("cleo", "no push permission on pytorch/pytorch"),
    "push-outside-the-team": ("dora", "not a member of pytorch/metamates"),
    "stranger": ("eve", "not a member of pytorch/metamates", "no push"),
    "invitation-pending": ("pete", "accept the invitation"),
}


@pytest.mark.parametrize("case", NOT_LET_IN)
def test_whoever_may_not_enter_is_told_why(visit: Callable[[], Page], watcher: Watcher, case: str) -> None:
    login, *said = NOT_LET_IN[case]
    page = visit()
    to_github(page)
    watcher.expected.add(403)
    choose(page, login)
    refusal(page, watcher, 403, "You cannot use this hub", login, *said, "Ask ")
    look(page, case, layout=case == "stranger")
    page.get_by_role("link", name="Use another GitHub account").click()
    expect(page.get_by_role("heading", name="Sign in to the fake GitHub")).to_be_visible()
    if case == "stranger":
        choose(page, "ada")
        page.wait_for_url("**/services/gpudev/")


OUTAGES: dict[str, dict[str, Any]] = {
    "github-down": {"status": 503},
    "rate-limited": {"path": "/api/v3/.*", "status": 429, "headers": {"Retry-After": "60"}},
}


@pytest.mark.parametrize("outage", OUTAGES)
def test_an_outage_lets_nobody_new_in_and_is_no_refusal(
    stack: GithubStack, visit: Callable[[], Page], watcher: Watcher, outage: str
) -> None:
    inside, page, new = visit(), visit(), stack.newcomer()
    to_github(inside)
    choose(inside, "ada")
    inside.wait_for_url("**/services/gpudev/")
    to_github(page)
    watcher.expected.add(503)
    stack.github.control.fail(**{"path": "/(api|login/oauth/access_token).*", **OUTAGES[outage]})
    choose(page, new)
    refusal(
        page,
        watcher,
        503,
        "Logging in does not work now",
        "does not mean that your access was refused",
        "Try again",
    )
    look(page, outage, layout=outage == "github-down")
    inside.reload()
    expect(inside.locator(".g-who")).to_contain_text("ada")
    stack.github.control.heal()
    page.get_by_role("link", name="Try again").click()
    page.wait_for_url("**/services/gpudev/")


def test_a_login_that_was_cancelled_or_has_expired(visit: Callable[[], Page], watcher: Watcher) -> None:
    page = visit()
    to_github(page)
    watcher.expected |= {400, 403}
    page.get_by_role("button", name="Cancel").click()
    refusal(page, watcher, 403, "You cancelled the login", "authorize it")
    look(page, "cancelled")
    to_github(page)
    page.context.clear_cookies(name="oauthenticator-state")
    choose(page, "ada")
    refusal(page, watcher, 400, "This login has expired", "Start the login again")
    look(page, "expired")
    page.get_by_role("link", name="Log in with GitHub").click()
    page.wait_for_url("**/services/gpudev/")


def test_suspended_accounts_and_an_app_that_github_does_not_accept(
    stack: GithubStack, visit: Callable[[], Page], watcher: Watcher
) -> None:
    page = visit()
    to_github(page)
    watcher.expected |= {403, 500}
    body = '{"message": "Sorry. Your account was suspended."}'
    stack.github.control.fail(path="/api/v3/user", status=403, body=body)
    choose(page, "ben")
    refusal(page, watcher, 403, "You cannot use this hub", "Your account was suspended")
    look(page, "suspended")
    stack.github.control.heal()
    secret = stack.github.state.app.client_secret
    stack.github.control.app(client_secret="another")
    try:
        page.get_by_role("link", name="Try again").click()
        refusal(page, watcher, 500, "This hub is not set up correctly", "incorrect_client_credentials")
    finally:
        stack.github.control.app(client_secret=secret)
    look(page, "app-broken")


def test_whoever_lost_access_reads_why_where_they_are(
    stack: GithubStack, visit: Callable[[], Page], watcher: Watcher
) -> None:
    """The service's pages say so at once, and the login page after the Hub has asked again.

    A user whom an operator has blocked is told so, and is not asked to use another account.
    """
    login, unwanted, page, other, blocked = stack.newcomer(), "ben", visit(), visit(), visit()
    for browser, account in ((page, login), (blocked, unwanted)):
        to_github(browser)
        choose(browser, account)
        browser.wait_for_url("**/services/gpudev/")
    stack.github.control.leave("pytorch", "metamates", login)
    watcher.expected |= {403, 404, 503}
    to_github(other)
    choose(other, login)
    refusal(other, watcher, 403, "You cannot use this hub", "not a member of pytorch/metamates")
    shut_out(page, "was revoked: not a member of pytorch/metamates", "who runs this hub.")
    look(page, "revoked-page", layout=True)
    stack.block(unwanted)
    logged_out(page, "was revoked: not a member of pytorch/metamates")
    look(page, "revoked-login", layout=True)
    blocked.goto("/services/gpudev/")
    logged_out(blocked, "The operators of this hub have blocked ben.", "Ask them why.")
    look(blocked, "blocked-login")
    blocked.get_by_role("link", name="Log in with GitHub").click()
    refusal(blocked, watcher, 403, "You cannot use this hub", "have blocked ben.", "Ask them why.")
    look(blocked, "blocked")


def test_when_the_grace_of_an_outage_is_over_everybody_reads_so(
    stack: GithubStack, visit: Callable[[], Page], watcher: Watcher
) -> None:
    inside, page = visit(), visit()
    to_github(page)
    to_github(inside)
    choose(inside, "ada")
    inside.wait_for_url("**/services/gpudev/")
    headers = {"Authorization": f"token {stack.token_for('ada')}"}
    watcher.expected |= {401, 403, 404, 503}
    stack.github.control.fail(path="/api/v3/(orgs|repos|app|user/).*", status=503)
    stack.restart_service(outage_grace_hours=GRACE / 3600)
    try:
        me = f"{stack.url}/services/gpudev/api/v1/me"
        wait_for(
            "the end of the grace", lambda: httpx.get(me, headers=headers, trust_env=False).is_client_error
        )
        said = (
            f"GitHub has not confirmed the access of ada for more than {GRACE} s.",
            "This does not mean that your access was refused. Try again in a few minutes.",
            "who runs this hub.",
        )
        shut_out(inside, *said)
        look(inside, "grace-over-page")
        logged_out(inside, *said)
        choose(page, "ada")
        refusal(
            page,
            watcher,
            503,
            "Logging in does not work now",
            "GitHub could not confirm the access of ada",
            "does not mean that your access was refused. Try again",
        )
        look(page, "grace-over-login")
    finally:
        stack.github.control.heal()
        stack.restart_service(outage_grace_hours=12)
    page.get_by_role("link", name="Try again").click()
    page.wait_for_url("**/services/gpudev/")
