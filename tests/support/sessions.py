"""Requests to a hub like those of a browser: login, the Hub's own calls and the form of the picker."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager

import httpx

from hub_users import HubUsers


@contextmanager
def log_in(hub: HubUsers, user: str) -> Iterator[httpx.Client]:
    """Return a session with the cookies that a browser has after the login."""
    with closing(hub.browse(user)) as client:
        yield client


def hub_api(browser: httpx.Client, method: str, path: str, body: object = None) -> httpx.Response:
    """Call the Hub's API like the Hub's own pages, with cookies."""
    answer = hub_asked(browser, method, path, body)
    assert answer.is_success, answer.text
    return answer


def hub_asked(browser: httpx.Client, method: str, path: str, body: object = None) -> httpx.Response:
    """Call the Hub's API, and accept any answer."""
    xsrf = next(c.value for c in browser.cookies.jar if c.name == "_xsrf" and c.path.startswith("/hub"))
    return browser.request(
        method,
        f"/hub/api{path}",
        json=body,
        headers={"X-XSRFToken": xsrf or "", "Referer": f"{browser.base_url}/hub/home"},
    )


def reserve_in_picker(browser: httpx.Client, name: str, profile: str | None = None) -> str:
    """Reserve an hour with the spawn page's form, by default its first size; return the reservation's id."""
    made, posted = send_picker(browser, name, profile)
    assert posted.status_code == 200, posted.text
    return made


def send_picker(browser: httpx.Client, name: str, profile: str | None = None) -> tuple[str, httpx.Response]:
    """Send the spawn page's form; return the next page. For a waiting request, it may be an error page."""
    page = browser.get("/services/gpudev/")
    found = re.search(r'name="_xsrf" value="([^"]+)"', page.text)
    assert found is not None
    minted = browser.post("/services/gpudev/new", data={"_xsrf": found[1]})
    assert "/hub/spawn/" in str(minted.url), minted.url
    action = re.search(r'<form[^>]*action="([^"]*/hub/spawn/[^"]*)"', minted.text)
    assert action is not None, minted.text
    offered = profiles(minted.text)
    assert profile is None or profile in offered, offered
    form = {"profile": profile or offered[0], "hours": "1", "name": name}
    posted = browser.post(html.unescape(action[1]), data=form)
    return str(minted.url).rpartition("/")[2].split("?")[0], posted


def profiles(page: str) -> list[str]:
    """Return the sizes on a spawn page, by the names that its form sends."""
    fields = [tag for tag in re.findall(r"<input[^>]*>", page) if 'name="profile"' in tag]
    found = [re.search(r'value="([^"]+)"', tag) for tag in fields]
    assert found, page
    return [match[1] for match in found if match]
