"""A complete installation of gpudev for all tests of this folder."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

import chart
from browsing import ARGUMENTS, CHROMIUM, SLOW
from harness.cluster import Cluster
from people import People, Person
from whole_stack import PARTS, WholeStack, running_whole


@pytest.fixture(scope="session")
def stack(cluster: Cluster, image: str) -> Iterator[WholeStack]:
    """Install gpudev and wait until it is up. Its logs stay in the cluster's state folder."""
    if missing := chart.what_is_missing():
        pytest.skip(missing)
    with (
        tempfile.TemporaryDirectory(prefix="gd-", ignore_cleanup_errors=True) as folder,
        running_whole(Path(folder), cluster, image) as running,
    ):
        try:
            yield running
        finally:
            for part in PARTS:
                (cluster.layout.root / f"whole-{part}.log").write_text(running.log(part))


@pytest.fixture(scope="session")
def person(stack: WholeStack) -> People:
    """Return a user with a laptop and with an SSH key at GitHub."""
    known: dict[str, Person] = {}

    def find(name: str) -> Person:
        if name not in known:
            known[name] = Person(stack, name)
            stack.allow(name, known[name].make_key())
            known[name].login_with_token()
            known[name].run("ssh-config", "enable")
        return known[name]

    return find


@pytest.fixture(scope="session")
def browser(stack: WholeStack) -> Iterator[Browser]:
    """Return a real Chromium, outside the cluster."""
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def visit(stack: WholeStack, browser: Browser) -> Iterator[Callable[[], Page]]:
    """Open a separate browser on the login page."""
    contexts: list[BrowserContext] = []

    def come() -> Page:
        context = browser.new_context(base_url=stack.url)
        contexts.append(context)
        context.set_default_timeout(SLOW)
        page = context.new_page()
        page.goto("/")
        page.wait_for_url("**/hub/login*")
        return page

    yield come
    for context in contexts:
        context.close()
