"""The operator page in a browser: its script updates it, and it also works without scripts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from browsing import SLOW, Watcher
from stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.integration, pytest.mark.timeout(400)]

OPERATOR = "/services/gpudev/operator"
REASON = "The driver is updated."


def test_it_shows_what_happens_and_ends_it_with_a_reason(stack: Stack, login: Callable[..., Page]) -> None:
    page = login(stack.user)
    page.goto("/hub/admin")
    page.wait_for_url(f"**{OPERATOR}")
    expect(page.get_by_text("No GPUs are held now.")).to_be_visible()
    held = stack.reserve("alice", gpus=2, hours=1, name="train")
    stack.wait_state(held["id"], "ready", "alice")
    row = page.locator("#held tr", has_text="train")
    expect(row).to_contain_text("Ready", timeout=SLOW)
    expect(page.locator("#nodes tr", has_text="(alice)")).to_contain_text("2 of 8")

    owner = login("alice")
    owner.goto(f"/services/gpudev/reservations/{held['id']}")
    expect(owner.get_by_role("link", name="Open JupyterLab")).to_be_visible()
    expect(owner.get_by_role("link", name="Operator")).to_have_count(0)

    row.get_by_role("link", name="End or extend train of alice").click()
    expect(page.get_by_text("1 server of alice ends now: train (2 GPUs on node-")).to_be_visible()
    end = page.get_by_role("button", name="End the reservation of alice", exact=True)
    end.click()
    expect(page.locator("#end-reason:invalid")).to_be_focused()
    page.get_by_label("Time to add").fill("30m")
    page.get_by_label("Reason").first.fill("It was slow.")
    page.get_by_role("button", name="Extend the reservation of alice").click()
    expect(owner.locator("#history")).to_contain_text("It was slow.", timeout=SLOW)
    page.get_by_label("Reason").last.fill(REASON)
    end.click()
    expect(page.get_by_text("There is nothing to do.")).to_be_visible(timeout=SLOW)

    expect(owner.locator("#title")).to_contain_text("nded by an operator", timeout=SLOW)
    expect(owner.locator("#now")).to_contain_text(REASON)
    expect(owner.locator("#history")).to_contain_text(f"by {stack.user}")
    assert not stack.server_processes(str(held["id"]))


def test_without_scripts(stack: Stack, login: Callable[..., Page], watcher: Watcher) -> None:
    watcher.expected.add(409)
    held = stack.reserve("alice", gpus=1, hours=1, name="train")
    stack.wait_state(held["id"], "ready", "alice")
    node = stack.api("GET", f"reservations/{held['id']}", None, "alice")["allocation"][0]["node"]
    page = login(stack.user, java_script_enabled=False)
    page.get_by_role("link", name="Operator").click()
    page.get_by_role("link", name=f"Drain or mark lost {node}").click()
    expect(
        page.get_by_text(f"1 server on {node} keeps running until its reservation ends: train")
    ).to_be_visible()
    page.get_by_role("button", name=f"Drain {node}").click()
    try:
        expect(page.locator("#title")).to_contain_text("Drained")
        assert stack.api("GET", f"reservations/{held['id']}", None, "alice")["state"] == "ready"
    finally:
        page.get_by_role("button", name=f"Undrain {node}").click()
    expect(page.locator("#title")).to_contain_text("Up")
    page.goto(f"{OPERATOR}/reservations/{held['id']}")
    page.get_by_label("Reason").last.fill(REASON)
    page.get_by_role("button", name="End the reservation of alice", exact=True).click()
    page.wait_for_url(f"**{OPERATOR}/reservations/*")
    ended = stack.wait_state(held["id"], "ended", "alice")
    assert (ended["outcome"], REASON.rstrip(".") in ended["reason"]) == ("ended_by_operator", True)
