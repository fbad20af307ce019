"""The pool's page on screens of all sizes: the timeline fits, names are readable, and values have labels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from browsing import check_accessibility
from stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.integration, pytest.mark.timeout(400)]

LONGEST = "abcdefghij-klmnopqrst-uvwxyz12"
CROSSED = """() => [...document.querySelectorAll(".g-drawing")].flatMap((drawing) => {
    const lines = [...drawing.querySelectorAll(".g-now")].map((line) => line.getBoundingClientRect());
    const names = [...drawing.querySelectorAll(".g-bar-label span, .g-node-name")];
    return names.filter((name) => {
        const box = name.getBoundingClientRect();
        return lines.some((line) =>
            box.left < line.left && line.left < box.right
            && box.top < line.bottom && line.top < box.bottom);
    }).map((name) => name.textContent);
})"""
SCROLLS_SIDEWAYS = """() => [...document.querySelectorAll("*")]
    .filter((e) => e.scrollWidth > e.clientWidth
        && ["auto", "scroll"].includes(getComputedStyle(e).overflowX))
    .map((e) => e.outerHTML.slice(0, 80))"""


@pytest.fixture
def crowded(stack: Stack) -> str:
    """Make short and long reservations; return the id of one whose bar is too narrow for its name."""
    stack.reserve("alice", gpus=2, hours=2, name=LONGEST)
    short = stack.reserve("bob", gpus=1, hours=0.9, name="short")
    stack.reserve("carol", gpus=4, hours=24, name="long")
    stack.reserve("dave", gpus=8, hours=1, name="next-node")
    stack.reserve("alice", gpus=8, hours=1, name="waits")
    for record in stack.api("GET", "reservations?owner=all")["reservations"]:
        if record["state"] != "queued":
            stack.wait_state(record["id"], "ready", record["owner"])
    return str(short["id"])


@pytest.mark.parametrize("width", [1280, 390])
def test_every_bar_can_be_read(stack: Stack, login: Callable[..., Page], crowded: str, width: int) -> None:
    page = login(viewport={"width": width, "height": 844})
    page.goto("/services/gpudev/pool")
    bar = page.locator(f".g-drawing a[href$='{crowded}']")
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    assert page.evaluate(SCROLLS_SIDEWAYS) == []
    assert page.evaluate(CROSSED) == []
    # The bar is too narrow for its name, so the name is hidden, and shown in full when the bar has focus.
    expect(bar.locator(".g-bar-label span")).to_be_hidden()
    told = page.locator("[data-told]")
    expect(told).to_be_visible()
    bar.focus()
    expect(told).to_contain_text("bob · short: 1 GPU, ready, node-")
    # Cut names end in an ellipsis, not in the middle of a letter.
    label = page.locator(".g-drawing .g-bar-label span", has_text=LONGEST)
    assert label.evaluate("(e) => getComputedStyle(e).textOverflow") == "ellipsis"
    check_accessibility(page)


def test_every_value_has_its_label_on_a_narrow_screen(
    stack: Stack, login: Callable[..., Page], crowded: str
) -> None:
    stack.api("DELETE", f"reservations/{crowded}", None, "bob")
    stack.wait_state(crowded, "ended", "bob")
    page = login("bob", viewport={"width": 390, "height": 844})
    for address in ("/services/gpudev/pool", "/services/gpudev/"):
        page.goto(address)
        page.locator(".g-folds td").first.wait_for()
        unlabelled = page.evaluate(
            """() => [...document.querySelectorAll(".g-folds td")]
            .filter((cell) => ["none", '""'].includes(getComputedStyle(cell, "::before").content))
            .map((cell) => cell.textContent.trim())"""
        )
        assert unlabelled == [], address
        headings = page.locator(".g-folds").first.evaluate(
            """(table) => [[...table.querySelectorAll("th")].map((e) => e.textContent),
            [...table.querySelector("tbody tr").cells].map((e) => e.dataset.label)]"""
        )
        assert headings[0] == headings[1], "the labels are the columns' headings"
