"""Helpers for tests with a real browser."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

from playwright.sync_api import BrowserContext, ConsoleMessage, Page, WebError, expect

from gpudev_hub.settings import CHECKOUT

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SLOW = 90_000
"""Milliseconds that a page may take on a busy machine."""
expect.set_options(timeout=SLOW)  # instead of 5 s, in which a busy machine may not show a page
SHOTS = os.environ.get("GPUDEV_SCREENSHOTS")
"""A folder for pictures of every page, wide and narrow. ``picker.png`` and ``pool.png`` are those in
``docs/images``."""
OURS = re.compile(r"/(services/gpudev|hub)/")
JUPYTERLAB = re.compile(r'Window name candidate ".*" already exists')
"""JupyterLab's message when two tabs open at the same moment, and one of them takes another name."""


def picture(page: Page, name: str) -> None:
    """Keep a picture of the page if pictures are wanted."""
    if SHOTS:
        folder = Path(SHOTS)
        folder.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=folder / f"{name}.png", full_page=True, animations="disabled")


class Watcher:
    """Collects errors on the pages of a test."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.expected: set[int] = set()
        """Statuses that a test provokes."""

    def watch(self, context: BrowserContext) -> None:
        context.on("console", self._console)
        context.on("weberror", self._script)
        context.on("dialog", lambda dialog: self.problems.append(f"dialog: {dialog.message}"))

    def _script(self, error: WebError) -> None:
        if not JUPYTERLAB.search(str(error.error)):
            self.problems.append(f"script: {error.error}")

    def _console(self, message: ConsoleMessage) -> None:
        page = message.page.url if message.page is not None else ""
        if message.type not in ("error", "warning") or not OURS.search(page):
            return
        if any(f"status of {status}" in message.text for status in self.expected):
            return
        self.problems.append(f"{page}: {message.text}")


def choose(page: Page, size: str, hours: str, name: str = "") -> None:
    """Fill in the picker that ``page`` shows, and reserve."""
    page.get_by_role("radio", name=size).check(force=True)
    page.get_by_label("Hours", exact=True).first.fill(hours)
    if name:
        page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Reserve", exact=True).click()


@cache
def _axe() -> str:
    """Return the source of axe-core, which ``make test-browser`` installs."""
    return (CHECKOUT / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


def check_accessibility(page: Page, include: str | None = None) -> None:
    """Assert that axe-core finds no serious or critical problem on ``page`` as it is shown now.

    ``include`` is a CSS selector that limits the check. At least one element must match it.
    """
    if include is not None:
        assert page.locator(include).count(), f"{page.url}: nothing matches {include}"
    # Evaluated by the debugger, so the page's content security policy stays as it is.
    if not page.evaluate("typeof window.axe === 'object'"):
        page.evaluate(f"(() => {{ const define = undefined, module = undefined; {_axe()} }})()")
    violations = page.evaluate(
        """async (include) => {
            // Wait for colour transitions, because contrast is wrong during a transition.
            await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
            // Animations of hidden elements, such as in closed details, never finish: ignore them.
            const passing = document.getAnimations().map((animation) => [animation, animation.effect])
                .filter(([, effect]) => effect.getComputedTiming().endTime !== Infinity)
                .filter(([, effect]) => effect.target.checkVisibility()).map(([animation]) => animation);
            await Promise.allSettled(passing.map((animation) => animation.finished));
            const found = await axe.run(include === null ? document : { include: [[include]] }, {
                resultTypes: ["violations"], preload: false, iframes: false,
            });
            return found.violations;
        }""",
        include,
    )
    found = [
        f"{violation['impact']} {violation['id']}: {node['html']}\n  {node['failureSummary']}"
        for violation in violations
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]
    assert not found, f"{page.url}:\n" + "\n".join(found)
