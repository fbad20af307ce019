"""What each answer of the Hub's means, over real HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from gpudev_hub.core.ports import HubPending, HubUnavailable, OwnerUnknownToHub, StartBrokenOff, StartRefused
from gpudev_hub.service.hubclient import PAGINATED, HubClient
from hub_users import free_port


class Answering(RequestHandler):
    """Answers everything alike, and remembers what it was asked."""

    def initialize(self, status: int, body: str, asked: list[tuple[str, ...]]) -> None:
        self.status, self.body, self.asked = status, body, asked

    def post(self) -> None:
        authorization = self.request.headers["Authorization"]
        self.asked.append(
            (str(self.request.method), self.request.uri or "", authorization, self.request.body.decode())
        )
        self.set_status(self.status)
        if self.status != 204:
            self.finish(self.body)

    delete = get = post


@asynccontextmanager
async def serving(application: Application) -> AsyncIterator[HubClient]:
    sockets = bind_sockets(0, "127.0.0.1")
    server = HTTPServer(application)
    server.add_sockets(sockets)
    client = HubClient(f"http://127.0.0.1:{sockets[0].getsockname()[1]}/hub/api", "secret")
    try:
        yield client
    finally:
        await client.close()
        server.stop()
        await server.close_all_connections()


@asynccontextmanager
async def hub(status: int, message: str = "") -> AsyncIterator[tuple[HubClient, list[tuple[str, ...]]]]:
    asked: list[tuple[str, ...]] = []
    body = message if message.startswith("<") else json.dumps({"status": status, "message": message})
    arguments = {"status": status, "body": body, "asked": asked}
    async with serving(Application([(".*", Answering, arguments)], log_function=lambda _: None)) as client:
        yield client, asked


@pytest.mark.parametrize(
    ("status", "message", "runs"), [(201, "", True), (202, "", False), (400, "a:b is already running", True)]
)
async def test_starts_that_go_on(status: int, message: str, runs: bool) -> None:
    async with hub(status, message) as (client, asked):
        assert await client.start("al ice/x", "k7d") is runs
        assert asked == [("POST", "/hub/api/users/al%20ice%2Fx/servers/k7d", "token secret", "{}")]


@pytest.mark.parametrize(
    ("status", "message", "error"),
    [
        (400, "a:b is pending stop", HubPending),
        (409, "has place 3 in the queue", HubPending),
        (404, "no such user", OwnerUnknownToHub),
        (429, "too many", HubUnavailable),
        (502, "<html>", HubUnavailable),
        (503, "starting up", HubUnavailable),
        (403, "forbidden", HubUnavailable),
        (302, "", HubUnavailable),
        (500, "Spawner failed: no such image", StartRefused),
        (400, "Invalid user options", StartRefused),
        (500, "Internal Server Error", StartBrokenOff),
    ],
)
async def test_starts_that_do_not(status: int, message: str, error: type[Exception]) -> None:
    async with hub(status, message) as (client, _):
        with pytest.raises(error) as raised:
            await client.start("alice", "k7d")
        assert type(raised.value) is error
        if not message.startswith("<"):
            assert status == 404 or message in str(raised.value)


@pytest.mark.parametrize("forget", [True, False])
@pytest.mark.parametrize("status", [202, 204, 404])
async def test_stops(status: int, forget: bool) -> None:
    async with hub(status) as (client, asked):
        await client.stop("alice", "k7d", forget=forget)
        assert [(call[0], json.loads(call[3])) for call in asked] == [("DELETE", {"remove": forget})]


@pytest.mark.parametrize(
    ("status", "message", "error"),
    [(400, "is pending spawn", HubPending), (500, "oops", HubUnavailable), (403, "no", HubUnavailable)],
)
async def test_stops_to_be_asked_for_again(status: int, message: str, error: type[Exception]) -> None:
    async with hub(status, message) as (client, _):
        with pytest.raises(error) as raised:
            await client.stop("alice", "k7d", forget=True)
        assert type(raised.value) is error


async def test_nobody_there_is_unavailable_and_no_token_is_told() -> None:
    client = HubClient(f"http://127.0.0.1:{free_port()}/hub/api", "very-secret")
    with pytest.raises(HubUnavailable, match="the Hub does not answer: ConnectError") as raised:
        await client.start("alice", "k7d")
    assert "very-secret" not in str(raised.value)
    await client.close()


async def test_the_servers_that_the_hub_has_page_by_page() -> None:
    pages = {
        "0": {"items": [{"servers": {"a": {}, "b": {}}}, {}], "_pagination": {"next": {"offset": 200}}},
        "200": {"items": [{"servers": {"c": {}}}], "_pagination": {"next": None}},
    }

    class Users(RequestHandler):
        def get(self) -> None:
            assert self.request.headers["Accept"] == PAGINATED
            assert self.get_query_argument("state") == "active"
            self.finish(pages[self.get_query_argument("offset")])

    async with serving(Application([("/hub/api/users", Users)])) as client:
        assert await client.known_servers() == {"a", "b", "c"}


async def test_a_list_that_is_refused_tells_nothing() -> None:
    async with hub(403) as (client, _):
        with pytest.raises(HubUnavailable):
            await client.known_servers()
