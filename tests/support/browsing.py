"""What tests with a real browser share."""

from __future__ import annotations

import re

from playwright.sync_api import BrowserContext, ConsoleMessage, Page

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
"""Milliseconds that a page may take on a machine that is busy with other things."""
OURS = re.compile(r"/(services/gpudev|hub)/")


class Watcher:
    """What went wrong on the pages of a test."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.expected: set[int] = set()
        """Statuses that a test provokes."""

    def watch(self, context: BrowserContext) -> None:
        context.on("console", self._console)
        context.on("weberror", lambda error: self.problems.append(f"script: {error.error}"))
        context.on("dialog", lambda dialog: self.problems.append(f"dialog: {dialog.message}"))

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
