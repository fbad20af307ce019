"""The reservation in JupyterLab: time left, extension and end, in two tabs, and while parts do not answer."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, WebSocketRoute, expect

from browsing import SLOW, Watcher, check_accessibility
from hub_users import wait_for
from stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.integration, pytest.mark.timeout(300)]

SOON = 20_000
"""Milliseconds until JupyterLab shows a change made elsewhere, on a busy machine."""
LONGEST = "a-name-of-thirty-letters-is-ok"
A_LITTLE_OVER = 0.6 / 60
"""Hours. A reservation that is this much longer than a threshold soon reaches it."""
PANEL = ".gpudev-panel"
DIALOG = "dialog.gpudev-dialog"


def reserve(stack: Stack, user: str = "alice", **ask: object) -> dict[str, Any]:
    """Make a reservation and wait until it is ready."""
    made = stack.reserve(user, **ask)
    return stack.wait_state(made["id"], "ready", user)


def hours_of(stack: Stack, record: dict[str, Any]) -> float:
    """Return the hours that a reservation has now."""
    return float(stack.api("GET", f"reservations/{record['id']}", None, record["owner"])["hours"])


def open_lab(page: Page, record: dict[str, Any]) -> Page:
    """Open JupyterLab of a reservation and wait until it shows the time left."""
    page.goto(f"/user/{record['owner']}/{record['id']}/lab")
    expect(status(page)).to_contain_text("left", timeout=SLOW)
    return page


def status(page: Page) -> Locator:
    """Return the item of the status bar."""
    return page.locator(".gpudev-status")


def heading(page: Page, text: str) -> Locator:
    """Return the heading of a dialog on a page of any size."""
    return page.locator(DIALOG).get_by_role("heading", name=text)


@contextmanager
def paused(stack: Stack, part: str) -> Iterator[None]:
    """Keep a part of the hub from answering."""
    pid = stack.part(part)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def no_question(page: Page) -> None:
    """Check that neither Jupyter asks about news, nor JupyterHub about a restart."""
    expect(page.get_by_text("official Jupyter news")).to_have_count(0)
    expect(page.locator(".jp-Dialog")).to_have_count(0)


@pytest.fixture(autouse=True)
def _of_jupyter(watcher: Watcher) -> Iterator[None]:
    """Expect errors of JupyterLab's own scripts while its server does not answer."""
    yield
    watcher.problems[:] = [problem for problem in watcher.problems if "Invalid response: 50" not in problem]


def test_time_left_extension_refusal_and_release(stack: Stack, login: Callable[..., Page]) -> None:
    record = reserve(stack, gpus=2, hours=1, name="first")
    page = login()
    other = page.context.new_page()
    open_lab(page, record)
    open_lab(other, record)
    expect(status(page)).to_have_text(re.compile(r"^first · 5\d\smin left$"))
    config = json.loads(page.locator("#jupyter-config-data").text_content() or "")
    turned_off = {"@jupyterlab/hub-extension:connectionlost", "@jupyterlab/apputils-extension:announcements"}
    assert turned_off <= set(config["disabledExtensions"])
    no_question(page)

    status(page).click()
    panel = page.locator(PANEL)
    expect(panel).to_contain_text("2 GPUs")
    check_accessibility(page, PANEL)
    panel.get_by_role("button", name="+1 h").click()
    expect(panel).to_contain_text("Extended")
    for each in (page, other):
        expect(status(each)).to_contain_text(re.compile(r"1\sh\s5\d\smin left"), timeout=SOON)
    assert hours_of(stack, record) == 2.0

    panel.get_by_label("Hours").fill("100")
    panel.get_by_role("button", name="Extend", exact=True).click()
    expect(panel).to_contain_text("46 h")
    panel.get_by_role("button", name="Extend by 46").click()
    expect(panel).to_contain_text("Extended")
    assert hours_of(stack, record) == 48.0
    panel.get_by_label("Hours").fill("a while")
    page.keyboard.press("Enter")
    expect(panel).to_contain_text("not a length of time")

    forged = page.evaluate(
        "(url) => fetch(url, { method: 'POST' }).then((answer) => answer.status)",
        f"/user/alice/{record['id']}/gpudev/release",
    )
    assert forged == 403, "a change needs the token of the page"
    panel.get_by_role("button", name="Release …").click()
    check_accessibility(page, DIALOG)
    page.get_by_role("button", name="Keep it").click()
    status(page).click()
    panel.get_by_role("button", name="Release …").click()
    page.get_by_role("button", name="Release it now").click()
    for each in (page, other):
        expect(heading(each, "Your reservation was released")).to_be_visible(timeout=SLOW)
        no_question(each)
    page.get_by_role("button", name="Stay here").click()
    status(page).click()
    expect(panel).to_be_hidden()
    page.get_by_role("link", name="Reserve the same again").click()
    page.wait_for_url("**/services/gpudev/new?**")
    expect(page.get_by_role("main")).to_contain_text("2 GPUs")


def test_warnings_are_answered_once_for_all_tabs(stack: Stack, login: Callable[..., Page]) -> None:
    record = reserve(stack, gpus=1, hours=0.25 + A_LITTLE_OVER, name="quarter")
    page = login(viewport={"width": 390, "height": 800})
    other = page.context.new_page()
    for each in (page, other):
        open_lab(each, record)
        expect(heading(each, "quarter: less than 15 minutes left")).to_be_visible(timeout=60_000)
        expect(status(each)).to_be_visible()
    check_accessibility(page, DIALOG)
    page.get_by_role("button", name="Not now").click()
    for each in (page, other):
        expect(each.locator(DIALOG)).to_have_count(0)
    open_lab(other, record)
    other.wait_for_timeout(1500)
    expect(other.locator(DIALOG)).to_have_count(0)
    stack.api("DELETE", f"reservations/{record['id']}", None, "alice")
    stack.wait_state(record["id"], "ended", "alice")

    record = reserve(stack, gpus=1, hours=5 / 60 + A_LITTLE_OVER, name=LONGEST)
    for each in (page, other):
        open_lab(each, record)
        expect(heading(each, f"{LONGEST}: less than 5 minutes left")).to_be_visible(timeout=60_000)
    page.locator(DIALOG).get_by_role("button", name="+1 h").click()
    for each in (page, other):
        expect(each.locator(DIALOG)).to_have_count(0, timeout=SOON)
        expect(status(each)).to_contain_text(re.compile(r"1\sh"))


def test_the_dialogs_follow_the_warnings_of_the_policy(stack: Stack, login: Callable[..., Page]) -> None:
    """The dialogs use the last two warnings, which the test sets to 16 minutes and 1 minute."""
    record = reserve(stack, gpus=1, hours=0.25 + A_LITTLE_OVER, name="other-policy")
    page = login()
    close = False

    def tell(server: WebSocketRoute) -> None:
        """Pass messages on with changed warnings and, if the end is close, with another time left."""
        service = server.connect_to_server()
        server.on_message(service.send)

        def changed(message: str | bytes) -> None:
            said = json.loads(message)
            if said["reservation"] is not None:
                said["warn_minutes"] = [45, 16, 1]
                said["seconds_left"] = 50 if close else said["seconds_left"]
            server.send(json.dumps(said))

        service.on_message(changed)

    page.route_web_socket(re.compile("/gpudev/live"), tell)
    open_lab(page, record)
    expect(heading(page, "other-policy: less than 16 minutes left")).to_be_visible(timeout=60_000)
    expect(status(page)).to_have_attribute("data-level", "near")
    close = True
    stack.api("POST", f"reservations/{record['id']}/extend", {"hours": 1}, "alice")
    expect(heading(page, "other-policy: less than 1 minute left")).to_be_visible(timeout=SOON)
    expect(status(page)).to_have_attribute("data-level", "bad")
    stack.api("DELETE", f"reservations/{record['id']}", None, "alice")


def test_an_operator_ends_it_and_the_queue_refuses(stack: Stack, login: Callable[..., Page]) -> None:
    record = reserve(stack, gpus=8, hours=1, name="contended")
    held = reserve(stack, "bob", gpus=8, hours=1)
    waiting = stack.reserve("carol", gpus=8, nodes=2, hours=1)
    page = open_lab(login(), record)
    status(page).click()
    page.locator(PANEL).get_by_role("button", name="+2 h").click()
    expect(page.locator(PANEL)).to_contain_text("contended cannot be extended by 2 h")
    expect(page.locator(PANEL)).to_contain_text("carol")
    assert hours_of(stack, record) == 1.0
    for other in (waiting, held):
        stack.api("DELETE", f"reservations/{other['id']}", None, other["owner"])

    operator = login(stack.user)
    operator.goto(f"/services/gpudev/operator/reservations/{record['id']}")
    operator.locator("#end-reason").fill("node-1: the fan is broken")
    operator.get_by_role("button", name="End the reservation of alice", exact=True).click()
    expect(heading(page, "An operator ended your reservation")).to_be_visible(timeout=SLOW)
    expect(page.locator(DIALOG)).to_contain_text("node-1: the fan is broken")


def test_a_blocked_hub_an_extension_elsewhere_and_the_end_of_the_time(
    stack: Stack, login: Callable[..., Page]
) -> None:
    record = reserve(stack, gpus=8, nodes=1, hours=1, name="long")
    first = login()
    page = first.context.new_page()
    open_lab(page, record)
    # It ends soon, and nothing slow comes before its JupyterLab is open.
    short = reserve(stack, gpus=1, hours=1 / 60)
    open_lab(first, short)
    stack.api("POST", f"reservations/{record['id']}/extend", {"hours": 1}, "alice")
    expect(status(page)).to_contain_text(re.compile(r"1\sh"), timeout=SOON)
    with paused(stack, "hub"):
        status(page).click()
        page.locator(PANEL).get_by_role("button", name="+1 h").click()
        expect(page.locator(PANEL)).to_contain_text("Extended")
        expect(status(page)).to_contain_text(re.compile(r"2\sh"))
        expect(heading(first, "Your time is up")).to_be_visible(timeout=SLOW)
        no_question(first)


def test_a_service_that_does_not_answer_and_a_jupyterlab_that_restarts(
    stack: Stack, login: Callable[..., Page]
) -> None:
    record = reserve(stack, gpus=1, hours=1, name="steady")
    page = open_lab(login(), record)
    status(page).click()
    panel = page.locator(PANEL)
    with paused(stack, "service"):
        panel.get_by_role("button", name="+1 h").click()
        expect(panel).to_contain_text("The reservation service does not answer. Try again", timeout=SOON)
        expect(status(page)).to_contain_text("left")
        expect(status(page)).to_contain_text("service does not answer", timeout=60_000)
    expect(status(page)).not_to_contain_text("does not answer", timeout=60_000)
    panel.get_by_role("button", name="+1 h").click()
    expect(panel).to_contain_text("Extended", timeout=SOON)
    assert hours_of(stack, record) == 2.0, "it was asked for twice and granted once"

    runtime = next(stack.settings.servers.glob(f"{record['id']}-*")) / "0" / "private" / "runtime"
    os.kill(int((runtime / "jupyterlab.pid").read_text()), signal.SIGKILL)
    expect(status(page)).to_contain_text("server does not answer", timeout=SOON)
    no_question(page)
    expect(status(page)).not_to_contain_text("does not answer", timeout=SLOW)


def test_a_pair_and_a_server_that_was_stopped(stack: Stack, login: Callable[..., Page]) -> None:
    record = reserve(stack, gpus=8, nodes=2, hours=1, name="pair")
    page = login(permissions=["clipboard-read", "clipboard-write"])
    open_lab(page, record)
    status(page).click()
    panel = page.locator(PANEL)
    expect(panel).to_contain_text("2 nodes with 8 GPUs each")
    panel.get_by_role("button", name="Copy SSH command of node 1").click()
    expect(panel).to_contain_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == record["ssh_commands"][1]

    other = page.context.new_page()
    other.goto("/hub/token")
    other.evaluate(
        """(id) => fetch(`/hub/api/users/alice/servers/${id}`, {
            method: "DELETE", headers: { "X-XSRFToken": document.body.dataset.xsrf },
        })""",
        record["id"],
    )
    expect(heading(page, "Your server is stopped")).to_be_visible(timeout=SLOW)
    no_question(page)
    page.get_by_role("link", name="Open its page").last.click()
    page.get_by_role("button", name=re.compile("^Start the server again|^Restart")).click()
    page.wait_for_url(re.compile(r"/user/alice/[a-z0-9-]+/lab"), timeout=SLOW)
    expect(status(page)).to_contain_text("left", timeout=SLOW)


def test_notifications_are_asked_for_and_can_be_forbidden(stack: Stack, login: Callable[..., Page]) -> None:
    record = reserve(stack, gpus=1, hours=1, name="told")
    page = login()
    asked = """
        window.asked = 0;
        Notification.requestPermission = () => { window.asked += 1; return Promise.resolve("denied"); };
    """
    page.add_init_script(asked)
    open_lab(page, record)
    assert page.evaluate("window.asked") == 0, "no prompt when the page opens"
    status(page).click()
    panel = page.locator(PANEL)
    panel.get_by_role("button", name="Turn notifications on").click()
    expect(panel).to_contain_text(re.compile("blocks notifications|stay off"))

    allowed = login("ALICE", permissions=["notifications"])
    open_lab(allowed, record)
    status(allowed).click()
    allowed.locator(PANEL).get_by_role("button", name="Turn notifications on").click()
    expect(allowed.locator(PANEL)).to_contain_text("Notifications are on")
    stack.api("DELETE", f"reservations/{record['id']}", None, "alice")
    expect(heading(allowed, "Your reservation was released")).to_be_visible(timeout=SLOW)
    wait_for(
        "the notification",
        lambda: f"{record['id']}-end" in (allowed.evaluate("localStorage.getItem('gpudev-notified')") or ""),
    )


def test_it_is_there_without_the_users_configuration(stack: Stack, login: Callable[..., Page]) -> None:
    config: Path = stack.settings.home_of("dave") / ".jupyter" / "jupyter_server_config.py"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text("raise SystemExit('broken')\n")
    try:
        record = reserve(stack, "dave", gpus=1, hours=1, name="plain")
        page = open_lab(login("dave"), record)
        told = page.get_by_role("alert").filter(has_text="JupyterLab runs without your configuration")
        told.get_by_role("button", name="Show all").click()
        expect(page.locator(PANEL)).to_contain_text("kill $(cat")
        no_question(page)
    finally:
        config.unlink()
