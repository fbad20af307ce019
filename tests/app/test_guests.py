"""JupyterLab of a shared server with the real Hub: who opens it, and how that ends."""

from __future__ import annotations

import asyncio
import html
import json
import re
import time
from collections.abc import Callable

import httpx
import pytest
from tornado.websocket import WebSocketClientConnection

from hub_users import wait_for
from lab_sockets import terminal, xsrf
from sessions import hub_asked, log_in
from stack import Stack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

SOON = 5.0
"""Seconds until a guest who was removed is out. Measured: 0.3."""


def enter(browser: httpx.Client, server: str) -> int:
    """Open the server as a browser does, with the Hub's question to a guest; the status of its API then."""
    page = browser.get(f"{server}/lab")
    if page.url.path.endswith("/oauth2/authorize") and page.status_code == 200:
        fields = re.findall(r'<input[^>]*name="([^"]+)"[^>]*value="([^"]*)"', page.text)
        sent = {name: html.unescape(value) for name, value in fields}
        browser.post(str(page.url), data=sent, headers={"Referer": str(page.url)})
    return status(browser, server)


def status(browser: httpx.Client, server: str) -> int:
    return browser.get(f"{server}/api/status", follow_redirects=False).status_code


async def closed(socket: WebSocketClientConnection) -> None:
    async with asyncio.timeout(SOON):
        while await socket.read_message() is not None:
            pass


def soon(what: str, look: Callable[[], bool]) -> None:
    wait_for(what, look, SOON)


def test_a_guest_opens_jupyterlab_until_the_owner_ends_it(stack: Stack) -> None:
    asked = stack.reserve("alice", name="shared")
    ready = stack.wait_state(asked["id"], "ready", "alice")
    server = ready["url"].removesuffix("/lab")
    with log_in(stack, "alice") as alice, log_in(stack, "bob") as bob:
        assert enter(bob, server) in (302, 403), "nobody but the owner, before it is shared"
        for person in (alice, bob):
            answer = hub_asked(person, "POST", f"/shares/alice/{asked['id']}", {"user": "bob"})
            assert answer.status_code == 403, "only through the service"
        shared = stack.api("PUT", f"reservations/{asked['id']}/guests/bob", None, "alice")
        assert [guest["login"] for guest in shared["guests"]] == ["bob"]
        soon("bob opens it", lambda: enter(bob, server) == 200)
        seen = stack.api("GET", f"reservations/{asked['id']}", None, "bob")
        assert (seen["mine"], seen["shared"], seen["url"]) == (False, True, ready["url"])
        assert seen["ssh_command"] == "ssh gpu-shared"
        extended = bob.post(
            f"{server}/gpudev/extend",
            json={"hours": "1", "request_id": "guests-request"},
            headers=xsrf(bob, server),
        )
        assert extended.status_code == 403, extended.text
        assert extended.json()["error"]["code"] == "forbidden"
        assert enter(alice, server) == 200

        async def watch() -> float:
            async with terminal(bob, server) as guests, terminal(alice, server) as own:
                await guests.write_message(json.dumps(["stdin", "\r"]))
                since = time.monotonic()
                path = f"reservations/{asked['id']}/guests/bob"
                await asyncio.to_thread(stack.api, "DELETE", path, None, "alice")
                await closed(guests)
                took = time.monotonic() - since
                await own.write_message(json.dumps(["stdin", "echo still-$((40 + 2))\r"]))
                async with asyncio.timeout(20):
                    said = ""
                    while "still-42" not in said:
                        message = await own.read_message()
                        assert message is not None, "the owner's terminal must stay"
                        said += str(message)
            return took

        assert asyncio.run(watch()) < SOON
        soon("bob is refused", lambda: status(bob, server) != 200)
        assert enter(bob, server) != 200
        assert status(alice, server) == 200
    stack.api("DELETE", f"reservations/{asked['id']}", None, "alice")
    stack.wait_state(asked["id"], "ended", "alice")


def test_refusals_name_what_is_wrong(stack: Stack) -> None:
    asked = stack.reserve("alice")
    with stack.client("alice") as client:
        stranger = client.put(f"reservations/{asked['id']}/guests/nobody-here")
        own = client.put(f"reservations/{asked['id']}/guests/alice")
    assert (stranger.status_code, stranger.json()["error"]["code"]) == (404, "not_found")
    assert "This hub has no user 'nobody-here'." in stranger.json()["error"]["message"]
    assert (own.status_code, own.json()["error"]["code"]) == (400, "invalid_request")
    stack.api("DELETE", f"reservations/{asked['id']}", None, "alice")
    stack.wait_state(asked["id"], "ended", "alice")
