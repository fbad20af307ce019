"""The Hub's own pages: tokens, and names with capitals or right-to-left text."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from browsing import Watcher
from stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.integration, pytest.mark.timeout(400)]

RIGHT_TO_LEFT = "\N{HEBREW LETTER ALEF}\N{HEBREW LETTER BET}\N{RIGHT-TO-LEFT OVERRIDE}cba"


def scopes_of(stack: Stack, token: str) -> set[str]:
    """Return the scopes of a token; none if the Hub does not know it."""
    headers = {"Authorization": f"token {token}"}
    answer = httpx.get(f"{stack.url}/hub/api/user", headers=headers, trust_env=False, timeout=30)
    return set(answer.json()["scopes"]) if answer.is_success else set()


def made(page: Page) -> str:
    """Return the token that the page shows."""
    expect(page.locator("#token-made")).to_be_visible()
    return page.locator("#token-value").text_content() or ""


def test_tokens_are_made_listed_and_revoked(
    stack: Stack, login: Callable[..., Page], watcher: Watcher
) -> None:
    watcher.expected.add(400)
    page = login()
    page.get_by_role("link", name="Tokens").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Tokens")
    expect(page.get_by_label("Permissions").locator("option")).to_have_count(3)
    page.get_by_label("What is it for?").fill(RIGHT_TO_LEFT)
    page.get_by_label("Expires after").select_option(label="1 Day")
    page.get_by_role("button", name="Make the token").click()
    token = made(page)
    assert {"custom:gpudev:reserve", "access:services!service=gpudev"} <= scopes_of(stack, token)
    assert not any("servers" in scope for scope in scopes_of(stack, token))
    row = page.get_by_role("row", name=RIGHT_TO_LEFT)
    expect(row).to_be_visible()
    expect(row).to_contain_text("2 scopes")

    page.get_by_label("Permissions").select_option("custom")
    page.get_by_label("Scopes", exact=True).fill("admin:users")
    page.get_by_role("button", name="Make the token").click()
    expect(page.get_by_role("alert")).to_contain_text("admin:users")
    expect(page.get_by_role("alert")).to_contain_text("not held by User alice")

    row.get_by_text("Revoke").first.click()
    row.get_by_role("button", name="Revoke it now").click()
    expect(row).to_have_count(0)
    assert scopes_of(stack, token) == set()


def test_an_operator_makes_an_operators_token(stack: Stack, login: Callable[..., Page]) -> None:
    page = login(stack.user)
    page.goto("/hub/token")
    page.get_by_label("Permissions").select_option(
        label="Operator: also manage nodes and other users' reservations"
    )
    page.get_by_role("button", name="Make the token").click()
    headers = {"Authorization": f"token {made(page)}"}
    url = f"{stack.url}/services/gpudev/api/v1/me"
    assert httpx.get(url, headers=headers, trust_env=False, timeout=30).json()["operator"] is True


def test_a_login_in_capitals_is_the_same_person(stack: Stack, browser: Browser, watcher: Watcher) -> None:
    with browser.new_context(base_url=stack.url) as context:
        watcher.watch(context)
        page = context.new_page()
        page.goto("/")
        page.get_by_label("Name").fill("ALICE")
        page.get_by_label("Password").fill(stack.password("alice"))
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url("**/services/gpudev/")
        expect(page.locator(".g-who")).to_contain_text("alice")
        watcher.expected.add(403)
        page.goto("/hub/login")
        page.goto("/hub/logout")
        page.goto("/hub/login")
        page.get_by_label("Name").fill(RIGHT_TO_LEFT)
        page.get_by_label("Password").fill("wrong")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_contain_text("Invalid username or password")
        expect(page.get_by_label("Name")).to_have_value(RIGHT_TO_LEFT)
