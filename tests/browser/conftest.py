"""A whole hub and a real Chromium. Every page that a test opens is checked for errors and for its width."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from browsing import ARGUMENTS, CHROMIUM, SLOW, Watcher
from stack import Stack, running_stack


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    with (
        TemporaryDirectory(prefix="gd-", ignore_cleanup_errors=True) as folder,
        running_stack(Path(folder)) as running,
    ):
        yield running


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture(autouse=True)
def _nothing_left(stack: Stack) -> Iterator[None]:
    """End all reservations after each test, so that the pool is empty again."""
    yield
    for record in stack.api("GET", "reservations?owner=all")["reservations"]:
        stack.api("DELETE", f"reservations/{record['id']}", None, record["owner"])
        stack.wait_state(record["id"], "ended")


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    found = Watcher()
    yield found
    assert not found.problems


@pytest.fixture
def login(stack: Stack, browser: Browser, watcher: Watcher) -> Iterator[Callable[..., Page]]:
    """Open a separate browser with a login. ``options`` are those of the browser context."""
    contexts: list[BrowserContext] = []

    def enter(user: str = "alice", **options: object) -> Page:
        context = browser.new_context(**{"base_url": stack.url, **options})  # type: ignore[arg-type]
        contexts.append(context)
        context.set_default_timeout(SLOW)
        watcher.watch(context)
        page = context.new_page()
        page.goto("/")
        page.get_by_label("Name").fill(user)
        page.get_by_label("Password").fill(stack.password(user))
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url("**/services/gpudev/")
        return page

    yield enter
    for context in contexts:
        context.close()
