"""Light, dark or the system's theme: one choice for all pages of service and Hub, without a flash."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from browsing import Watcher
from hub_users import wait_for
from stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.integration, pytest.mark.timeout(400)]

PAGES = ("/services/gpudev/", "/services/gpudev/pool", "/services/gpudev/help", "/hub/token", "/hub/nothing")
BRIGHTNESS = r"Math.max(...getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number))"
AT_THE_BODY = """
new MutationObserver((_, observer) => {
    if (!document.body) return;
    // What is painted first: the theme that the page has when its body begins.
    window.themeAtTheBody = document.documentElement.dataset.bsTheme;
    observer.disconnect();
}).observe(document, { childList: true, subtree: true });
"""


def is_dark(page: Page) -> None:
    """Wait until the page's background is dark."""
    wait_for("a dark page", lambda: page.evaluate(BRIGHTNESS) < 60)


def is_light(page: Page) -> None:
    """Wait until the page's background is light."""
    wait_for("a light page", lambda: page.evaluate(BRIGHTNESS) > 200)


def test_the_choice_holds_on_every_page_from_its_first_paint(
    login: Callable[..., Page], watcher: Watcher
) -> None:
    watcher.expected.add(404)
    page = login(color_scheme="light")
    page.add_init_script(AT_THE_BODY)
    theme = page.get_by_label("Theme")
    expect(theme).to_have_value("system")
    is_light(page)
    page.emulate_media(color_scheme="dark")
    is_dark(page)
    # Use the keyboard only.
    theme.focus()
    page.keyboard.type("Li")
    expect(theme).to_have_value("light")
    is_light(page)
    for address in PAGES:
        page.goto(address)
        expect(theme).to_have_value("light")
        is_light(page)
        assert page.evaluate("themeAtTheBody") == "light", address
    page.emulate_media(color_scheme="light")
    other = page.context.new_page()
    other.goto(PAGES[0])
    theme.select_option("dark")
    is_dark(page)
    expect(other.get_by_label("Theme")).to_have_value("dark")
    is_dark(other)
    theme.select_option("system")
    is_light(page)
    page.reload()
    expect(theme).to_have_value("system")


def test_without_scripts_the_systems_setting_holds(stack: Stack, login: Callable[..., Page]) -> None:
    page = login(color_scheme="dark", java_script_enabled=False)
    is_dark(page)
    expect(page.get_by_label("Theme")).to_be_hidden()
    page.emulate_media(color_scheme="light")
    is_light(page)


def test_a_browser_that_keeps_nothing_still_switches(login: Callable[..., Page]) -> None:
    page = login(color_scheme="light")
    page.add_init_script(
        "Object.defineProperty(window, 'localStorage', { get() { throw new Error('not for this site') } })"
    )
    page.reload()
    page.get_by_label("Theme").select_option("dark")
    is_dark(page)
    page.reload()
    is_light(page)


def test_help_is_one_link_away_also_before_the_log_in(
    stack: Stack, login: Callable[..., Page], watcher: Watcher
) -> None:
    watcher.expected.add(404)
    page = login()
    for address in ("/services/gpudev/", "/services/gpudev/pool", "/hub/token", "/hub/nothing"):
        page.goto(address)
        page.get_by_role("navigation").get_by_role("link", name="Help").click()
        page.wait_for_url("**/services/gpudev/help")
        # It shows the address that this browser uses.
        expect(page.get_by_text("gpu-dev login --url").first).to_contain_text(stack.url)
    page.get_by_role("link", name="Log out").click()
    page.get_by_role("heading", name="Log in").wait_for()
    page.get_by_role("navigation").get_by_role("link", name="Help").click()
    page.wait_for_url("**/services/gpudev/help")
    expect(page.get_by_role("heading", level=1)).to_have_text("Help")
