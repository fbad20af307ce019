"""Notifications of the browser: a button turns them on. Each event has one, with any number of tabs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from browsing import SLOW
from hub_users import wait_for
from stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.integration, pytest.mark.timeout(400)]

RECORDED = """
(() => {
    const real = Notification;
    window.Notification = class extends EventTarget {
        constructor(title, options) {
            super();
            record({ title, body: options.body, tag: options.tag });
        }
        static get permission() { return real.permission; }
        static requestPermission() { record({ title: "asked" }); return real.requestPermission(); }
        close() {}
    };
})();
"""


class Told:
    """Records the notifications of a browser's pages, in order."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.all: list[dict[str, Any]] = []
        page.context.expose_binding("record", lambda _, shown: self.all.append(shown))
        page.context.add_init_script(RECORDED)

    @property
    def titles(self) -> list[str]:
        return [shown["title"] for shown in self.all]

    def wait(self, *titles: str) -> dict[str, Any]:
        """Wait for a notification with one of these titles."""

        def found() -> dict[str, Any] | None:
            self.page.evaluate("1")  # lets Playwright receive messages of the pages
            return next((shown for shown in self.all if shown["title"] in titles), None)

        return wait_for(" or ".join(titles), found)


def both(page: Page, address: str) -> Page:
    """Open the address in ``page`` and in a second tab; return the second tab."""
    page.goto(address)
    other = page.context.new_page()
    other.goto(address)
    return other


def test_a_turn_is_told_once_to_who_asked_for_it(stack: Stack, login: Callable[..., Page]) -> None:
    held = stack.reserve("bob", gpus=8, nodes=2, hours=2)
    waiting = stack.reserve("alice", gpus=1, hours=1, name="train")
    page = login(permissions=["notifications"])
    told = Told(page)
    other = both(page, f"/services/gpudev/reservations/{waiting['id']}")
    expect(page.get_by_role("button", name="Notify me")).to_be_visible()
    assert told.titles == [], "no prompt at load"
    page.get_by_role("button", name="Notify me").click()
    expect(page.get_by_role("button", name="Turn notifications off")).to_be_visible()
    expect(other.get_by_role("button", name="Turn notifications off")).to_be_visible()
    assert told.titles == ["asked", "Notifications are on"]

    stack.api("DELETE", f"reservations/{held['id']}", None, "bob")
    shown = told.wait("train: your turn has come")
    assert shown["body"] in ("Your server is starting.", "Your server is ready.")
    for tab in (page, other):  # each tab opens the server after its notification
        tab.wait_for_url(lambda url: "/reservations/" not in url, timeout=SLOW)
    assert told.titles.count("train: your turn has come") == 1


def test_the_end_is_told_before_it_comes_and_when_it_comes(stack: Stack, login: Callable[..., Page]) -> None:
    made = stack.reserve("alice", gpus=1, hours=1, name="train")
    stack.wait_state(made["id"], "ready", "alice")
    page = login(permissions=["notifications"])
    told = Told(page)
    page.context.clock.install()
    other = both(page, f"/services/gpudev/reservations/{made['id']}")
    page.get_by_role("button", name="Notify me").click()
    expect(page.get_by_role("button", name="Turn notifications off")).to_be_visible()
    page.context.clock.fast_forward("44:00")
    assert told.titles == ["asked", "Notifications are on"]
    page.context.clock.fast_forward("01:30")
    shown = told.wait("train: 15 min left")
    assert shown["body"].startswith("Your reservation ends at ")
    page.context.clock.fast_forward("05:00")
    assert told.titles.count("train: 15 min left") == 1

    stack.api("DELETE", f"reservations/{made['id']}", None, "alice")
    # The page may check again only after the end.
    last = told.wait("train is ending", "train has ended")
    assert last["body"].rstrip(".") == "Released"
    for tab in (page, other):
        expect(tab.locator("#title")).to_contain_text("Released", timeout=SLOW)
        expect(tab.locator("#notify")).to_be_hidden()
    assert told.titles == ["asked", "Notifications are on", "train: 15 min left", last["title"]]


def test_off_is_off_and_remembered(stack: Stack, login: Callable[..., Page]) -> None:
    made = stack.reserve("alice", gpus=1, hours=1)
    stack.wait_state(made["id"], "ready", "alice")
    page = login(permissions=["notifications"])
    told = Told(page)
    page.goto(f"/services/gpudev/reservations/{made['id']}")
    page.get_by_role("button", name="Notify me").click()
    page.reload()
    page.get_by_role("button", name="Turn notifications off").click()
    page.reload()
    expect(page.get_by_role("button", name="Notify me")).to_be_visible()
    stack.api("DELETE", f"reservations/{made['id']}", None, "alice")
    expect(page.locator("#title")).to_contain_text("Released", timeout=SLOW)
    assert told.titles == ["asked", "Notifications are on"]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("delete window.Notification", "Your browser does not support notifications."),
        (
            "Object.defineProperty(window, 'isSecureContext', { value: false })",
            "Your browser allows notifications only over HTTPS.",
        ),
        (
            "Object.defineProperty(Notification, 'permission', { value: 'denied' })",
            "Your browser blocks notifications from this site.",
        ),
    ],
)
def test_a_browser_that_cannot_says_why(
    stack: Stack, login: Callable[..., Page], script: str, said: str
) -> None:
    made = stack.reserve("alice", gpus=1, hours=1)
    page = login()
    page.add_init_script(script)
    page.goto(f"/services/gpudev/reservations/{made['id']}")
    expect(page.locator("#notify")).to_contain_text(said)
    expect(page.locator("#notify").get_by_role("button")).to_have_count(0)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "Notification.requestPermission = async () => 'default'",
            "Your browser did not allow notifications, so they stay off.",
        ),
        (
            """window.Notification = class {
                static permission = "default";
                static async requestPermission() { return (this.permission = "granted"); }
                constructor() { throw new TypeError("Illegal constructor"); }
            }""",
            "Your browser does not show notifications.",
        ),
    ],
)
def test_a_browser_that_refuses_says_so(
    stack: Stack, login: Callable[..., Page], script: str, said: str
) -> None:
    made = stack.reserve("alice", gpus=1, hours=1)
    page = login()
    page.add_init_script(
        f"Object.defineProperty(Notification, 'permission', {{ value: 'default' }});{script}"
    )
    page.goto(f"/services/gpudev/reservations/{made['id']}")
    page.get_by_role("button", name="Notify me").click()
    expect(page.locator("#notify")).to_contain_text(said)


def test_nobody_else_is_offered_any(stack: Stack, login: Callable[..., Page]) -> None:
    made = stack.reserve("alice", gpus=1, hours=1)
    page = login("bob")
    page.goto(f"/services/gpudev/reservations/{made['id']}")
    expect(page.locator("#title")).to_contain_text(made["name"])
    expect(page.get_by_text("notif", exact=False)).to_have_count(0)
