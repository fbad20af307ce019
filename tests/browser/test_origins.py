"""A page of a user's server cannot act as the guest who opens it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from browsing import SLOW, Watcher
from hub_users import wait_for
from stack import Stack, running_stack

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

ATTACK = """
async ({ hub, reservation }) => {
  const ways = {};
  const attempt = async (name, act) => {
    try { ways[name] = await act(); } catch (error) { ways[name] = `refused: ${error.name}`; }
  };
  const service = `${hub}/services/gpudev/`;
  await attempt("read the API", async () =>
    (await (await fetch(`${service}api/v1/me`, { credentials: "include" })).json()).user);
  // Pages of one origin can read each other's windows, and so the token that allows every change.
  await attempt("use a window", async () => {
    const opened = window.open(service);
    let token;
    for (let i = 0; i < 100 && !token; i++) {
      await new Promise((later) => setTimeout(later, 100));
      token = opened.document.querySelector("[name=_xsrf]")?.value;
    }
    const headers = { "X-XSRFToken": token };
    return (await (await fetch(`${service}api/v1/me`, { headers, credentials: "include" })).json()).user;
  });
  await attempt("read the page of tokens", async () =>
    (await (await fetch(`${hub}/hub/token`, { credentials: "include" })).text()).includes("make-token"));
  // Simple requests leave without asking; only the cookies' owner and the token of the page protect these.
  for (const [name, method, url, body] of [
    ["release", "POST", `${service}reservations/${reservation}/end`, ""],
    ["log out", "POST", `${hub}/hub/logout`, ""],
    ["reserve", "POST", `${service}api/v1/reservations`, '{"gpus": 1, "hours": 1}'],
  ])
    await attempt(name, async () => {
      const answer = await fetch(url, { method, body, mode: "no-cors", credentials: "include" });
      return answer.type;
    });
  await attempt("frame", () => new Promise((done) => {
    const frame = document.createElement("iframe");
    frame.onload = () => {
      try { done(frame.contentDocument.body.innerText.length > 0 && frame.contentWindow.location.href); }
      catch (error) { done(`refused: ${error.name}`); }
    };
    frame.src = service;
    document.body.append(frame);
  }));
  ways.cookies = document.cookie;
  return ways;
}
"""


@pytest.fixture(scope="module")
def apart() -> Iterator[Stack]:
    """Run a hub where each user has a separate origin."""
    with (
        TemporaryDirectory(prefix="gd-", ignore_cleanup_errors=True) as folder,
        running_stack(Path(folder), environment={"GPUDEV_SUBDOMAINS": "1"}) as running,
    ):
        yield running


def log_in(stack: Stack, browser: Browser, user: str) -> Page:
    context = browser.new_context(base_url=stack.url)
    context.set_default_timeout(SLOW)
    page = context.new_page()
    page.goto("/")
    page.get_by_label("Name").fill(user)
    page.get_by_label("Password").fill(stack.password(user))
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/services/gpudev/")
    return page


def attacked(stack: Stack, browser: Browser) -> tuple[Page, dict[str, Any], dict[str, Any]]:
    """Let alice open the JupyterLab that bob shares, and run a hostile script in that page."""
    own = stack.reserve("alice", name="own")
    bobs = stack.reserve("bob", name="trap")
    stack.wait_state(own["id"], "ready", "alice")
    stack.wait_state(bobs["id"], "ready", "bob")
    stack.api("PUT", f"reservations/{bobs['id']}/guests/alice", None, "bob")
    url = stack.api("GET", f"reservations/{bobs['id']}", None, "alice")["url"]
    page = log_in(stack, browser, "alice")

    def opened() -> bool:
        page.goto(url)
        button = page.get_by_role("button", name="Authorize")
        if button.is_visible():
            button.click()
        try:
            page.wait_for_selector("#jp-main-dock-panel", timeout=20_000)
        except Exception:
            return False
        return True

    wait_for("JupyterLab of bob", opened)
    found = page.evaluate(ATTACK, {"hub": stack.url, "reservation": own["id"]})
    return page, own, found


def test_a_hostile_page_of_a_shared_server_cannot_act_as_its_guest(apart: Stack, browser: Browser) -> None:
    page, own, found = attacked(apart, browser)
    assert page.evaluate("location.host").startswith("bob.localhost:")
    for way in ("read the API", "use a window", "read the page of tokens", "frame"):
        assert str(found[way]).startswith("refused: "), found
    assert apart.api("GET", f"reservations/{own['id']}", None, "alice")["state"] == "ready"
    assert len(apart.api("GET", "reservations", None, "alice")["reservations"]) == 2
    page.goto(f"{apart.url}/services/gpudev/")
    assert page.url == f"{apart.url}/services/gpudev/", "she is still logged in"
    page.context.close()


def test_the_same_page_could_without_subdomains(stack: Stack, browser: Browser, watcher: Watcher) -> None:
    """The attack works without separate origins, as on one machine, where users are not isolated."""
    page, _, found = attacked(stack, browser)
    assert found["use a window"] == "alice", found
    page.context.close()


def test_pages_links_and_logins_work_with_subdomains(apart: Stack, browser: Browser) -> None:
    record = apart.reserve("carol", name="mine")
    ready = apart.wait_state(record["id"], "ready", "carol")
    host = f"carol.localhost:{apart.port}"
    assert ready["url"] == f"http://{host}/user/carol/{record['id']}/lab"
    page = log_in(apart, browser, "carol")
    page.goto(f"/services/gpudev/reservations/{record['id']}")
    page.get_by_role("link", name="Open JupyterLab").click()
    page.wait_for_selector("#jp-main-dock-panel")
    assert page.evaluate("location.host") == host
    config = json.loads(page.locator("#jupyter-config-data").text_content() or "")
    assert json.loads(config["gpudev"])["root"] == f"{apart.url}/services/gpudev/"
    # The address of a server that does not run leads to the Hub, where the user is logged in.
    apart.api("DELETE", f"reservations/{record['id']}", None, "carol")
    apart.wait_state(record["id"], "ended", "carol")
    page.goto(ready["url"])
    page.wait_for_url(f"{apart.url}/services/gpudev/reservations/{record['id']}*")
    page.context.close()
