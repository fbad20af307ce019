"""Unusual names: the longest one, with capitals, and from right to left."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route, expect

from browsing import Watcher, choose
from stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.integration, pytest.mark.timeout(400)]

LONGEST = "abcdefghij-klmnopqrst-uvwxyz12"
HEBREW = "\u05e9\u05dc\u05d5\u05dd 12"


def replaced(word: str, by: str) -> Callable[[Route], None]:
    """Serve pages with a word replaced, as if the service used the other name."""

    def serve(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=answer.text().replace(word, by))

    return serve


def test_what_follows_a_name_from_right_to_left_stays_behind_it(
    stack: Stack, login: Callable[..., Page]
) -> None:
    made = stack.reserve("alice", gpus=8, hours=1, name="abcdefg")
    stack.wait_state(made["id"], "ready", "alice")
    page = login()
    page.route("**/services/gpudev/pool", replaced("abcdefg", HEBREW))
    page.goto("/services/gpudev/pool")
    page.locator(f".g-drawing a[href$='{made['id']}']").focus()
    expect(page.locator("[data-told]")).to_contain_text(f"alice · {HEBREW}: 8 GPUs, ready, node-")
    name, size = page.locator("[data-told]").evaluate(
        """(line, name) => {
            const walker = document.createTreeWalker(line, NodeFilter.SHOW_TEXT);
            const found = [name, "8 GPUs"].map((text) => {
                walker.currentNode = line;
                while (walker.nextNode()) {
                    const at = walker.currentNode.textContent.indexOf(text);
                    if (at < 0) continue;
                    const range = document.createRange();
                    range.setStart(walker.currentNode, at);
                    range.setEnd(walker.currentNode, at + text.length);
                    return range.getBoundingClientRect();
                }
            });
            return found.map((box) => [box.left, box.right]);
        }""",
        HEBREW,
    )
    assert name[1] <= size[0], "the size is right of the name, as it is written"


def test_the_longest_name_fits_everywhere(stack: Stack, login: Callable[..., Page]) -> None:
    page = login(viewport={"width": 360, "height": 844})
    page.get_by_role("button", name="Reserve GPUs").click()
    page.wait_for_url("**/hub/spawn/**")
    choose(page, "2 GPUs", "1", LONGEST)
    page.wait_for_url("**/lab")
    (made,) = stack.api("GET", "reservations", None, "alice")["reservations"]
    assert made["name"] == LONGEST
    for address in ("", "pool", f"reservations/{made['id']}"):
        page.goto(f"/services/gpudev/{address}")
        expect(page.get_by_text(LONGEST).first).to_be_attached()
        assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0, address


def test_a_login_in_capitals_is_the_same_person(stack: Stack, login: Callable[..., Page]) -> None:
    made = stack.reserve("alice", gpus=1, hours=1, name="mine")
    page = login("ALICE")
    expect(page.locator(".g-who")).to_contain_text("alice")
    page.get_by_role("link", name="mine", exact=True).click()
    page.wait_for_url(f"**/reservations/{made['id']}")
    expect(page.locator("#actions")).to_contain_text("Release")


def test_a_name_that_is_refused_is_typed_and_told_in_its_own_direction(
    login: Callable[..., Page], watcher: Watcher
) -> None:
    watcher.expected |= {400, 409}
    page = login()
    page.get_by_role("button", name="Reserve GPUs").click()
    page.wait_for_url("**/hub/spawn/**")
    choose(page, "2 GPUs", "1", HEBREW)
    expect(page.locator("#refused")).to_contain_text(HEBREW)
    assert page.get_by_label("Name").evaluate("(e) => getComputedStyle(e).direction") == "rtl"
    assert page.locator("#refused").evaluate("(e) => getComputedStyle(e).direction") == "ltr"
