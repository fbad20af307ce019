"""Rules for every page: it fits, has no errors and runs no script from a name; a link reserves nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from browsing import Watcher, choose, picture
from stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.integration, pytest.mark.timeout(400)]

SCRIPT = "<img src=x onerror=alert(1)>"


@pytest.fixture
def busy(stack: Stack) -> dict[str, str]:
    """Fill the pool with reservations in all states; return their addresses by name."""
    found = {}
    for user, name, ask in (
        ("alice", "train-llama", {"gpus": 4, "hours": 2}),
        ("bob", "finetune", {"gpus": 8, "hours": 3}),
        ("carol", "kernels", {"gpus": 2, "hours": 1.5}),
        ("dave", "fsdp-two-nodes", {"nodes": 2, "gpus": 8, "hours": 4}),
        ("alice", "eval", {"gpus": 4, "hours": 3}),
    ):
        found[name] = stack.reserve(user, name=name, **ask)["id"]
    stack.wait_state(found["train-llama"], "ready", "alice")
    return found


def test_every_page_fits_and_has_no_errors(
    stack: Stack, login: Callable[..., Page], watcher: Watcher, busy: dict[str, str]
) -> None:
    watcher.expected.add(404)
    old = stack.reserve("alice", gpus=1, hours=1, name="over")
    stack.api("DELETE", f"reservations/{old['id']}", None, "alice")
    stack.wait_state(old["id"], "ended", "alice")
    ours = "/services/gpudev/"
    page = login()
    page.get_by_role("button", name="New reservation").click()
    page.wait_for_url("**/hub/spawn/**")
    picker = page.url
    addresses = {
        "home": ours,
        "picker": picker,
        "ready": f"{ours}reservations/{busy['train-llama']}",
        "queued": f"{ours}reservations/{busy['eval']}",
        "ended": f"{ours}reservations/{old['id']}",
        "others": f"{ours}reservations/{busy['finetune']}",
        "pool": f"{ours}pool",
        "new": f"{ours}new?gpus=8&hours=2",
        "nothing": f"{ours}nothing",
        "hub-nothing": "/hub/nothing",
        "tokens": "/hub/token",
    }
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for name, address in addresses.items():
            page.goto(address)
            if name == "picker":
                expect(page.locator(".g-free").last).not_to_be_empty()
            for width in (1280, 390, 360):
                page.set_viewport_size({"width": width, "height": 844})
                wider = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
                assert wider <= 0, f"{name} is {wider} px wider than {width}"
                if width != 360:
                    picture(page, f"{name}-{scheme}-{width}")
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 1280, "height": 844})
    page.goto(picker)
    page.get_by_role("radio", name="2 GPUs").check(force=True)
    expect(page.locator(".g-size:has(input:checked)")).to_contain_text("or now for up to 2 h")
    expect(page.locator("#summary")).to_contain_text("For up to 2 h")
    # Playwright treats all spaces as equal. A line must not break between number and unit.
    assert "For up to 2\N{NO-BREAK SPACE}h" in (page.locator("#summary").text_content() or "")
    page.get_by_role("button", name="1 h", exact=True).click()
    expect(page.get_by_text("1 free now")).to_be_visible()
    page.get_by_role("radio", name="8 GPUs a whole node").check(force=True)
    expect(page.locator("#summary")).to_contain_text("guaranteed")
    picture(page, "picker")
    page.goto(addresses["pool"])
    picture(page, "pool")


def test_the_plan_is_never_about_other_hours(login: Callable[..., Page], watcher: Watcher) -> None:
    """This holds while hours are typed, if they cannot be reserved, and while the service does not answer."""
    watcher.expected |= {400, 409, 503}
    page = login()
    page.get_by_role("button", name="New reservation").click()
    page.wait_for_url("**/hub/spawn/**")
    cards, summary, hours = page.locator(".g-free"), page.locator("#summary"), page.locator("#hours")
    expect(cards.first).to_contain_text("now")
    fresh = page.evaluate("""() => new Promise((resolve) => {
        // The instant after each key: nothing has been asked yet.
        const hours = document.getElementById("hours");
        hours.addEventListener("input", () => resolve([
            ...[...document.querySelectorAll(".g-free")].map((free) => free.textContent),
            document.getElementById("summary").textContent,
        ]));
        hours.value = "1.5";
        hours.dispatchEvent(new Event("input", { bubbles: true }));
    })""")
    assert set(fresh[:-1]) == {"…"}
    assert "checking" in fresh[-1]
    expect(cards.first).to_contain_text("now")
    expect(summary).to_contain_text("1.5 hours: starts now")

    hours.fill("99")
    expect(page.get_by_role("alert")).to_have_text("You asked for 99 h; your limit for one request is 24 h.")
    for card in cards.all():
        expect(card).to_have_text("–")
    expect(summary).to_be_empty()
    picture(page, "picker-99-hours")
    page.get_by_role("button", name="Reserve", exact=True).click()
    assert page.evaluate("document.getElementById('hours').validity.customError")
    page.wait_for_url("**/hub/spawn/**")
    hours.fill("1h30")
    expect(summary).to_contain_text("1.5 hours: starts now")
    expect(page.locator("#hours-problem")).to_be_empty()

    page.route("**/picker?*", lambda route: route.fulfill(status=503, json={}))
    hours.fill("2")
    expect(cards.first).to_have_text("unknown now")
    expect(summary).to_contain_text("does not answer")
    page.unroute_all()
    expect(cards.first).not_to_have_text("unknown now")


def test_labels_and_landmarks(login: Callable[..., Page], busy: dict[str, str]) -> None:
    page = login()
    for address in ("", "pool", f"reservations/{busy['eval']}", f"reservations/{busy['train-llama']}"):
        page.goto(f"/services/gpudev/{address}")
        nameless = page.evaluate(
            """() => [...document.querySelectorAll("input:not([type=hidden]), select, button, a")]
            .filter((e) => !(e.labels && e.labels.length) && !e.ariaLabel && !e.textContent.trim())
            .map((e) => e.outerHTML)"""
        )
        assert nameless == []
        expect(page.get_by_role("main")).to_have_count(1)
        expect(page.get_by_role("heading", level=1)).to_have_count(1)
    page.goto("/services/gpudev/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()


def test_names_and_links_run_no_script(stack: Stack, login: Callable[..., Page], watcher: Watcher) -> None:
    watcher.expected |= {400, 404, 409}
    page = login()
    page.goto(f"/services/gpudev/new?gpus=2&hours={SCRIPT}&name={SCRIPT}")
    page.get_by_role("button", name="Choose a server").click()
    expect(page.get_by_label("Name")).to_have_value(SCRIPT)
    choose(page, "2 GPUs", "1", SCRIPT)
    expect(page.locator("#refused")).to_contain_text("is not a valid name")
    expect(page.locator("#refused")).to_contain_text(SCRIPT)
    # The form keeps what was filled in.
    expect(page.get_by_label("Name")).to_have_value(SCRIPT)
    expect(page.get_by_role("radio", name="2 GPUs", exact=False).first).to_be_checked()
    choose(page, "2 GPUs", SCRIPT)
    expect(page.locator("#hours-problem")).to_contain_text("is not a length of time")
    assert page.locator("img").count() == 0
    assert stack.api("GET", "reservations", None, "alice")["reservations"] == []
    page.goto(f"/services/gpudev/reservations/{SCRIPT.replace('/', '')}", wait_until="load")
    assert page.locator("img").count() == 0


def test_a_link_reserves_nothing(stack: Stack, login: Callable[..., Page]) -> None:
    page = login()
    page.get_by_role("button", name="New reservation").click()
    page.wait_for_url("**/hub/spawn/**")
    form = page.url
    page.goto(f"{form}?gpus=2&nodes=1&hours=1&name=sneaky")
    expect(page.get_by_label("Name")).to_have_value("sneaky")
    expect(page.get_by_role("button", name="Reserve", exact=True)).to_be_visible()
    page.goto("/services/gpudev/new?gpus=2&hours=1")
    page.goto("/hub/spawn/alice")
    page.wait_for_url("**/services/gpudev/new")
    assert stack.api("GET", "reservations", None, "alice")["reservations"] == []


def test_the_form_of_a_used_id_leads_to_its_reservation(stack: Stack, login: Callable[..., Page]) -> None:
    held = stack.reserve("alice", gpus=1, hours=1)
    stack.api("DELETE", f"reservations/{held['id']}", None, "alice")
    stack.wait_state(held["id"], "ended", "alice")
    page = login()
    page.goto(f"/hub/spawn/alice/{held['id']}")
    page.wait_for_url(f"**/reservations/{held['id']}")
    page.goto("/hub/spawn/alice/never-minted")
    page.wait_for_url("**/services/gpudev/new")


def test_somebody_elses_reservation_shows_no_ways_in(
    login: Callable[..., Page], busy: dict[str, str]
) -> None:
    page = login("carol")
    page.goto(f"/services/gpudev/reservations/{busy['train-llama']}")
    expect(page.get_by_role("heading", level=1)).to_have_text("train-llama")
    for word in ("Open JupyterLab", "ssh gpu-", "Release", "Extend", "What happened"):
        expect(page.get_by_text(word)).to_have_count(0)
