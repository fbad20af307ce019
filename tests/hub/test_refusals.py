"""What the Hub must not do for anybody, whatever his token allows: a real Hub, driven over its REST API."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gpudev import login
from stack import Stack, running_stack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with (
        tempfile.TemporaryDirectory(prefix="gd-", ignore_cleanup_errors=True) as folder,
        running_stack(Path(folder), pool="1x2") as running,
    ):
        yield running


@pytest.fixture
def hub(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """Alice with a token that may start and edit her servers, and nothing else."""
    with monkeypatch.context() as patch:
        patch.setattr(login, "SCOPES", ("start:servers!user", "read:servers!user", "delete:servers!user"))
        token = login.by_password(stack.url, "alice", stack.password("alice"))
    with httpx.Client(
        base_url=f"{stack.url}/hub/api/users/alice",
        headers={"Authorization": f"token {token}"},
        trust_env=False,
        timeout=30,
    ) as client:
        yield client


def nothing_started(stack: Stack) -> bool:
    return not list(stack.settings.servers.iterdir()) and stack.server_processes() == {}


def test_no_server_past_the_queue(stack: Stack, hub: httpx.Client) -> None:
    default = hub.post("/server")
    assert default.status_code == 403
    assert "default server is not for use" in default.json()["message"]
    for body in ({}, {"gpus": 2}, {"user_options": {"gpus": 2, "form": True}}):
        made_up = hub.post("/servers/made-up", json=body)
        assert made_up.status_code == 403, made_up.text
        assert "reservations" in made_up.json()["message"]
    assert nothing_started(stack)
    assert stack.api("GET", "reservations", None, "alice")["reservations"] == []


def test_a_token_that_starts_servers_reserves_nothing(stack: Stack, hub: httpx.Client) -> None:
    headers = {"Authorization": hub.headers["Authorization"]}
    url = f"{stack.url}/services/gpudev/api/v1/reservations"
    answer = httpx.post(url, headers=headers, json={"gpus": 1}, trust_env=False)
    assert answer.status_code in (401, 403)
    assert nothing_started(stack)


def test_queued_and_somebody_elses(stack: Stack, hub: httpx.Client) -> None:
    first = stack.reserve("bob", gpus=2)
    waiting = stack.reserve("alice", gpus=1)
    queued = hub.post(f"/servers/{waiting['id']}")
    assert queued.status_code == 409
    assert stack.api("GET", f"reservations/{waiting['id']}", None, "alice")["state"] == "queued"
    assert hub.post(f"/servers/{first['id']}").status_code == 403
    assert not list(stack.settings.servers.glob(f"{waiting['id']}-*"))
    stack.api("DELETE", f"reservations/{waiting['id']}", None, "alice")
    stack.api("DELETE", f"reservations/{first['id']}", None, "bob")
    stack.wait_state(first["id"], "ended", "bob")


def test_a_server_keeps_its_name(stack: Stack, hub: httpx.Client) -> None:
    assert hub.put("/servers/one").status_code == 201
    renamed = hub.patch("/servers/one", json={"name": "two"})
    assert renamed.status_code == 403
    assert "can't be renamed" in renamed.json()["message"]
    assert hub.get("/servers/two").status_code == 404
    assert hub.request("DELETE", "/servers/one", json={"remove": True}).status_code == 204


def test_a_link_fills_the_form_and_reserves_nothing(stack: Stack) -> None:
    with httpx.Client(base_url=stack.url, trust_env=False, follow_redirects=True, timeout=30) as browser:
        browser.get("/hub/login")
        form = {"username": "carol", "password": stack.password("carol"), "_xsrf": browser.cookies["_xsrf"]}
        browser.post("/hub/login", data=form)
        page = browser.get("/hub/spawn")
        assert page.url.path == "/services/gpudev/new", "the default server's page leads to ours"
        page = browser.get("/services/gpudev/new?gpus=2&hours=3&name=mine")
        xsrf = re.search(r'name="_xsrf" value="([^"]+)"', page.text)
        assert xsrf is not None
        fields = {"_xsrf": xsrf[1], "gpus": "2", "hours": "3", "name": "mine"}
        form_page = browser.post("/services/gpudev/new", data=fields)
        assert form_page.url.path.startswith("/hub/spawn/carol/")
        assert form_page.status_code == 200
        assert 'value="mine"' in form_page.text
    assert stack.api("GET", "reservations", None, "carol")["reservations"] == []
