"""The first notebook of the examples, in JupyterLab."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Page, expect

from browsing import SLOW
from stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.integration, pytest.mark.timeout(400)]

ZONE = "Asia/Kathmandu"
"""A time zone whose hours and minutes differ from the server's."""


def test_the_notebook_shows_the_end_in_the_time_zone_of_the_browser(
    stack: Stack, login: Callable[..., Page]
) -> None:
    held = stack.reserve("dave", gpus=2, hours=1, name="first")
    ready = stack.wait_state(held["id"], "ready", "dave")
    page = login("dave", timezone_id=ZONE)
    page.goto(f"{ready['url']}/tree/gpu-dev-examples/first-steps.ipynb")
    # Without a kernel, JupyterLab would ask for one.
    expect(page.get_by_role("button", name="Python 3 | Idle")).to_be_visible(timeout=SLOW)
    page.locator(".lm-MenuBar-itemLabel", has_text="Run").click()
    page.locator("[data-command='runmenu:run-all']").click()
    output = page.locator(".jp-OutputArea-output")
    expect(output.filter(has_text="Not released.")).to_be_attached(timeout=SLOW)
    panel = output.filter(has_text="2 simulated GPUs")
    expect(panel.get_by_role("button", name="Release")).to_be_visible()
    # The notebook has extended the reservation.
    extended = stack.api("GET", f"reservations/{held['id']}", None, "dave")["ends_at"]
    assert extended > ready["ends_at"]
    end = datetime.fromisoformat(extended).astimezone(ZoneInfo(ZONE))
    field = page.locator("input[type=datetime-local]")
    expect(field).to_have_value(f"{end:%Y-%m-%dT%H:%M}")
