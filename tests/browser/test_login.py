"""The page that confirms a login of the command line, in a real browser, narrow and wide."""

from __future__ import annotations

import queue
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from browsing import Watcher, check_accessibility, picture
from gpudev.login_flows import Login
from gpudev.login_wire import LoginResult
from stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.integration, pytest.mark.timeout(400)]


def look(page: Page, name: str) -> None:
    """Check that the page fits and is accessible; save a picture of it if a folder is set."""
    for width in (1280, 390, 360):
        page.set_viewport_size({"width": width, "height": 844})
        wider = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wider <= 0, f"{name} is {wider} px wider than {width}"
        if width != 360:
            picture(page, f"{name}-{width}")
    check_accessibility(page)


def begin(
    stack: Stack, way: Callable[[Login, Callable[[str], bool]], LoginResult]
) -> tuple[Callable[[], str], Callable[[], LoginResult], list[str]]:
    """Start a login in another thread; return its page, its future result and its messages."""
    said: list[str] = []
    opened: queue.SimpleQueue[str] = queue.SimpleQueue()

    def open_page(address: str) -> bool:
        opened.put(address)
        return True

    result = ThreadPoolExecutor(1).submit(way, Login(stack.url, said.append), open_page)
    return lambda: opened.get(timeout=60), lambda: result.result(60), said


def test_one_button_logs_the_command_line_in(
    stack: Stack, login: Callable[..., Page], watcher: Watcher
) -> None:
    page = login("alice")
    address, result, _ = begin(stack, lambda flow, open_page: flow.in_browser(open_page, 120))
    page.goto(address())
    expect(page.get_by_role("heading", name="Log in this command line?")).to_be_visible()
    expect(page.locator("dl")).to_contain_text("alice")
    look(page, "login-confirm")
    page.get_by_role("button", name="Log in", exact=True).click()
    page.wait_for_url("http://127.0.0.1:*/callback**")
    expect(page.get_by_role("heading", name="Login confirmed")).to_be_visible()
    assert urlsplit(page.url).port != stack.port
    got = result()
    assert (got.status, got.user) == ("granted", "alice")
    assert stack.api("GET", "me", None, "alice")["user"] == "alice"


def test_refuse_tells_the_command_line(stack: Stack, login: Callable[..., Page]) -> None:
    page = login("alice")
    address, result, _ = begin(stack, lambda flow, open_page: flow.in_browser(open_page, 120))
    page.goto(address())
    page.get_by_role("button", name="Refuse").click()
    page.wait_for_url("http://127.0.0.1:*/callback**")
    with pytest.raises(Exception, match="refused in the browser"):
        result()


def test_a_code_is_typed_and_confirmed(stack: Stack, login: Callable[..., Page], watcher: Watcher) -> None:
    watcher.expected.add(400)
    page = login("alice")
    _, result, said = begin(stack, lambda flow, _: flow.by_code())
    page.goto("/services/gpudev/login")
    look(page, "login-code")
    page.get_by_label("Code").fill("BBBB-BBBB")
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("alert")).to_contain_text("not valid")
    look(page, "login-wrong-code")
    while not (code := re.search(r"the code ([B-Z]{4}-[B-Z]{4})", "\n".join(said))):
        page.wait_for_timeout(100)
    page.get_by_label("Code").fill(code[1].lower())
    page.get_by_role("button", name="Continue").click()
    expect(page.locator("dl")).to_contain_text(code[1])
    expect(page.locator("dl")).to_contain_text("127.0.0.1")
    look(page, "login-confirm-code")
    page.get_by_role("button", name="Log in", exact=True).click()
    expect(page.get_by_role("heading", name="Logged in")).to_be_visible()
    look(page, "login-done")
    assert result().user == "alice"
