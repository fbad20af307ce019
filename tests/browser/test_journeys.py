"""Users' ways from login to release: with and without scripts, alone and in the queue."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from browsing import SLOW, Watcher, choose
from hub_users import wait_for
from stack import Stack
from tunnel import tunnel

pytestmark = [pytest.mark.browser, pytest.mark.integration, pytest.mark.timeout(400)]

LAB = re.compile(r"/user/alice/[a-z0-9-]+/lab")


def only(stack: Stack, user: str = "alice") -> dict[str, object]:
    """Return the only live reservation of a user."""
    (record,) = stack.api("GET", "reservations", None, user)["reservations"]
    return dict(record)


def seen(stack: Stack, user: str, file: str) -> str | None:
    """Return the content of a file in a demo user's home once it is complete; ``None`` before."""
    path: Path = stack.settings.home_of(user) / file
    return path.read_text().strip() if path.exists() and path.read_text().endswith("\n") else None


def test_login_picker_lab_terminal_extension_release(
    stack: Stack, login: Callable[..., Page], watcher: Watcher
) -> None:
    watcher.expected.add(409)
    page = login()
    page.get_by_role("button", name="Reserve GPUs").click()
    expect(page.get_by_text("16 free now")).to_be_visible()
    choose(page, "2 GPUs", "1", "first")

    page.wait_for_url(LAB, timeout=SLOW)
    page.locator(".jp-LauncherCard", has_text="Terminal").click()
    lab = json.loads(page.locator("#jupyter-config-data").text_content() or "")
    assert lab["news"] == {"disabled": True}, "no prompt about news"
    terminal = page.locator(".jp-Terminal .xterm-helper-textarea")
    terminal.wait_for(state="attached")
    page.locator(".jp-Terminal").click()
    page.keyboard.type('echo "$CUDA_VISIBLE_DEVICES" > "$HOME/seen"\n')
    assert wait_for("the terminal's echo", lambda: seen(stack, "alice", "seen")) == "0,1"

    page.goto("/services/gpudev/")
    page.get_by_role("link", name="first", exact=True).click()
    expect(page.get_by_text("ssh gpu-first")).to_be_visible()
    before = only(stack)
    page.get_by_role("button", name="+1 h").click()
    expect(page.locator("#facts")).to_contain_text("2 h")
    expect(page.get_by_text("Extended")).to_be_visible()
    assert only(stack)["hours"] == 2.0
    assert str(only(stack)["ends_at"]) > str(before["ends_at"])

    page.get_by_label("Hours to add").fill("100")
    page.get_by_role("button", name="Extend", exact=True).click()
    expect(page.get_by_role("alert")).to_be_visible()
    assert only(stack)["hours"] == 2.0

    page.get_by_text("Release …").click()
    page.get_by_role("button", name="Release it now").click()
    expect(page.locator("#title")).to_contain_text("Released", timeout=SLOW)
    expect(page.get_by_role("button", name="Reserve the same again")).to_be_visible()
    assert not stack.server_processes(str(before["id"]))


def test_who_waits_sees_when_and_his_page_opens_by_itself(stack: Stack, login: Callable[..., Page]) -> None:
    held = stack.reserve("bob", gpus=8, nodes=2, hours=2, name="everything")
    stack.wait_state(held["id"], "ready", "bob")
    page = login()
    page.get_by_role("button", name="New reservation").click()
    card = page.locator("label.g-size", has_text="4 GPUs")
    expect(card).to_contain_text("about")
    choose(page, "4 GPUs", "1", "patient")
    page.wait_for_url("**/reservations/*")
    expect(page.locator("#now")).to_contain_text("1st")
    expect(page.locator("#now")).to_contain_text("Guaranteed by")
    expect(page.locator("#now")).to_contain_text("(bob)")
    waiting = only(stack)
    assert waiting["state"] == "queued"
    assert waiting["guaranteed_by"] is not None

    stack.api("DELETE", f"reservations/{held['id']}", None, "bob")
    page.wait_for_url(LAB, timeout=SLOW)


def test_without_scripts(stack: Stack, login: Callable[..., Page]) -> None:
    page = login(java_script_enabled=False)
    page.get_by_role("button", name="Reserve GPUs").click()
    expect(page.get_by_text("16 free now")).to_be_visible()
    choose(page, "1 GPU", "0.5", "plain")
    # The form leads to the reservation's page. This page reloads itself, and then leads to the server.
    page.wait_for_url(LAB, timeout=SLOW)

    page.goto(f"/services/gpudev/reservations/{only(stack)['id']}")
    expect(page.locator("#now")).to_contain_text("min left")
    page.get_by_role("button", name="+2 h").click()
    expect(page.locator("#facts")).to_contain_text("2 h 30 min")
    page.get_by_text("Release …").click()
    page.get_by_role("button", name="Release it now").click()
    page.wait_for_url("**/reservations/*")
    assert wait_for(
        "the release", lambda: not stack.api("GET", "reservations", None, "alice")["reservations"]
    )


def test_a_stopped_server_is_started_again_or_released(stack: Stack, login: Callable[..., Page]) -> None:
    held = stack.reserve("alice", gpus=1, hours=1, name="pausing")
    stack.wait_state(held["id"], "ready", "alice")
    page = login()
    page.goto(f"/services/gpudev/reservations/{held['id']}")
    expect(page.get_by_role("link", name="Open JupyterLab")).to_be_visible()
    # As the button "Stop" in the Hub does.
    page.goto("/hub/token")
    status = page.evaluate(
        """(id) => fetch(`/hub/api/users/alice/servers/${id}`, {
            method: "DELETE", headers: { "X-XSRFToken": document.body.dataset.xsrf },
        }).then((answer) => answer.status)""",
        held["id"],
    )
    assert status in (202, 204)
    wait_for(
        "the stop",
        lambda: (
            "kept until" in (stack.api("GET", f"reservations/{held['id']}", None, "alice")["reason"] or "")
        ),
    )
    page.goto(f"/services/gpudev/reservations/{held['id']}")
    expect(page.locator("#title")).to_contain_text("Stopped")
    page.get_by_role("button", name="Start the server again").click()
    expect(page.locator("#title")).to_contain_text("Starting")
    page.wait_for_url(LAB, timeout=SLOW)


def test_an_outage_is_said_and_survived(stack: Stack, login: Callable[..., Page], watcher: Watcher) -> None:
    watcher.expected |= {502, 503, 504}
    held = stack.reserve("alice", gpus=1, hours=1, name="steady")
    stack.wait_state(held["id"], "ready", "alice")
    page = login()
    page.goto(f"/services/gpudev/reservations/{held['id']}")
    expect(page.get_by_role("link", name="Open JupyterLab")).to_be_visible()
    stack.kill("service")
    watcher.problems.clear()
    stack.wait_state(held["id"], "ready", "alice")
    stack.api("POST", f"reservations/{held['id']}/extend", {"hours": 1}, "alice")
    expect(page.locator("#facts")).to_contain_text("2 h", timeout=SLOW)
    expect(page.locator("#connection")).to_be_hidden()


def test_through_a_tunnel_at_another_port(stack: Stack, login: Callable[..., Page]) -> None:
    user, lab = "carol", re.compile(r"/user/carol/[a-z0-9-]+/lab")  # this user has no open tabs
    with tunnel(stack.port) as port:
        there = f"http://localhost:{port}"
        visited = []
        page = login(user, base_url=there)
        page.on("framenavigated", lambda frame: visited.append(frame.url))
        page.on("request", lambda request: visited.append(request.url))
        page.on("websocket", lambda socket: visited.append(socket.url))
        page.get_by_role("button", name="Reserve GPUs").click()
        choose(page, "1 GPU", "1", "tunnelled")
        page.wait_for_url(lab, timeout=SLOW)
        page.locator(".jp-LauncherCard", has_text="Terminal").click()
        page.locator(".jp-Terminal .xterm-helper-textarea").wait_for(state="attached")
        page.locator(".jp-Terminal").click()
        page.keyboard.type('echo here > "$HOME/tunnelled"\n')
        assert wait_for("the terminal's echo", lambda: seen(stack, user, "tunnelled")) == "here"
        page.goto("/services/gpudev/")
        page.get_by_role("link", name="Open JupyterLab").click()
        page.wait_for_url(lab, timeout=SLOW)
        page.goto("/services/gpudev/pool")
        for link in ("Reservations", "Tokens"):
            page.get_by_role("link", name=link).first.click()
            page.wait_for_load_state()
        page.get_by_role("link", name="Log out").click()
        page.get_by_label("Password").wait_for()
    away = {url for url in visited if urlsplit(url).scheme in ("http", "ws") and f":{port}/" not in url}
    assert away == set()


def answered(page: Page, what: str) -> None:
    """Check that the page stays, and shows within 2 s what does not answer."""
    expect(page.locator(".g-away")).to_contain_text(f"{what} does not answer", timeout=2_000)


def test_clicks_wait_for_a_hub_that_is_away(
    stack: Stack, login: Callable[..., Page], watcher: Watcher
) -> None:
    """If the Hub hangs or is dead, the page stays, says so, and continues when the Hub is back."""
    watcher.expected |= {502, 503, 504}
    page = login()
    note = page.locator(".g-away")
    home = page.url
    hub = stack.part("hub")
    os.kill(hub, signal.SIGSTOP)
    try:
        page.get_by_role("button", name="Reserve GPUs").click()
        answered(page, "The Hub")
        expect(note).to_contain_text("Your request is sent as soon as it answers")
        note.get_by_role("button", name="Cancel").click()
        expect(note).to_be_hidden()
        page.get_by_role("link", name="Tokens").click()
        answered(page, "The Hub")
        assert page.url == home
    finally:
        os.kill(hub, signal.SIGCONT)
    page.wait_for_url("**/hub/token")
    page.goto("/services/gpudev/")
    page.get_by_role("button", name="Reserve GPUs").click()
    page.wait_for_url("**/hub/spawn/**")

    picker = page.url
    os.kill(stack.pid, signal.SIGSTOP)  # otherwise another Hub may be there before the click
    try:
        stack.kill("hub")
        choose(page, "1 GPU", "1", "patient")
        answered(page, "The Hub")
        assert page.url == picker
    finally:
        os.kill(stack.pid, signal.SIGCONT)
    page.wait_for_url(LAB, timeout=SLOW)
    assert only(stack)["name"] == "patient"

    page.goto(f"/services/gpudev/reservations/{only(stack)['id']}")
    service = stack.part("service")
    os.kill(service, signal.SIGSTOP)
    try:
        page.get_by_text("Release …").click()
        page.get_by_role("button", name="Release it now").click()
        answered(page, "The reservation service")
    finally:
        os.kill(service, signal.SIGCONT)
    expect(page.locator("#title")).to_contain_text("Released", timeout=SLOW)


def test_home_shows_an_end_by_itself(stack: Stack, login: Callable[..., Page]) -> None:
    owner = stack.user  # this user has no ended reservations yet
    held = stack.reserve(owner, gpus=1, hours=1, name="brief")
    stack.wait_state(held["id"], "ready", owner)
    page = login(owner)
    expect(page.get_by_role("link", name="brief", exact=True)).to_be_visible()
    expect(page.get_by_text("Recently ended")).to_have_count(0)
    stack.api("DELETE", f"reservations/{held['id']}", None, owner)
    expect(page.get_by_text("Recently ended")).to_be_visible(timeout=SLOW)
    expect(page.locator("#ended")).to_contain_text("brief")
    expect(page.locator("#mine")).to_contain_text("Nothing is running")
