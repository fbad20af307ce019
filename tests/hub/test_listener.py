"""What the Hub's listener refuses and does not believe."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from gpudev_hub.bodies import DISCARDED
from gpudev_hub.hub.listener import LARGEST, BoundedServer

taken: list[int] = []


class Taking(RequestHandler):
    def post(self) -> None:
        taken.append(len(self.request.body))

    def get(self) -> None:
        self.finish(str(self.request.remote_ip))


@pytest.fixture
async def url() -> AsyncIterator[str]:
    taken.clear()
    sockets = bind_sockets(0, "127.0.0.1")
    server = BoundedServer(Application([(".*", Taking)]), xheaders=True)
    server.add_sockets(sockets)
    yield f"http://127.0.0.1:{sockets[0].getsockname()[1]}/"
    server.stop()
    await server.close_all_connections()


async def body(size: int) -> AsyncIterator[bytes]:
    for start in range(0, size, 65536):
        yield b"x" * min(65536, size - start)


@pytest.mark.parametrize("stated", [True, False], ids=["stated", "chunked"])
async def test_a_body_is_taken_up_to_the_limit(url: str, stated: bool) -> None:
    for size, status in ((LARGEST, 200), (LARGEST + 1, 413), (20 * LARGEST, 413), (0, 200)):
        headers = {"Content-Length": str(size)} if stated else {}
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.post(url, content=body(size), headers=headers)
        assert answer.status_code == status
        if status == 413:
            message = answer.json()["message"]
            assert f"The body has {size} bytes; the limit is {LARGEST}." in message
    assert taken == [LARGEST, 0]


async def test_a_body_without_end_is_cut_off(url: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        headers = {"Content-Length": str(DISCARDED + 1)}
        with pytest.raises((httpx.HTTPError, AssertionError)):  # noqa: PT012 (either is a refusal)
            answer = await client.post(url, content=body(DISCARDED + 1), headers=headers)
            assert answer.is_success
    assert taken == []


async def test_a_client_can_not_choose_the_address_in_the_log(url: str) -> None:
    # The proxy appends the last address.
    claimed = {"X-Real-Ip": "10.0.0.1", "X-Forwarded-For": "10.0.0.2, 10.0.0.3"}
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(url, headers=claimed)).text == "10.0.0.3"
