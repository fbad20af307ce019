"""Limits on rate and on open long polls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import httpx
import pytest

from gpudev import wire
from gpudev_hub.turns import Turns
from gpudev_hub.web.app import make_public_app, make_server
from gpudev_hub.web.limits import REMEMBERED, Limiter, RateLimited, network
from gpudev_hub.web.settings import Rate
from web_site import TOKENS, listen, running

API = wire.API


async def test_too_many_writes_are_told_when_to_come_back() -> None:
    async with running(writes=Rate(per_second=0.1, burst=2)) as run:
        run.hub.person("alices", "alice")
        run.hub.person("bobs", "bob")
        async with run.client("alices") as alice, run.client("bobs") as bob:
            answers = [await alice.post(f"{API}/reservations", json={"gpus": 1}) for _ in range(3)]
            assert [answer.status_code for answer in answers] == [201, 201, 429]
            assert answers[2].json()["error"]["code"] == "rate_limited"
            assert 1 <= int(answers[2].headers["Retry-After"]) <= 10
            assert len(run.service.view.reservations) == 2
            # Others, and his own reading, are not held up.
            assert (await bob.post(f"{API}/reservations", json={"gpus": 1})).status_code == 201
            assert (await alice.get(f"{API}/me")).status_code == 200


async def test_too_many_reads() -> None:
    async with running(reads=Rate(per_second=0.1, burst=2)) as run:
        run.hub.person("alices", "alice")
        async with run.client("alices") as alice:
            answers = [await alice.get(f"{API}/me") for _ in range(3)]
            assert [answer.status_code for answer in answers] == [200, 200, 429]
            assert (await alice.get("health/live")).status_code == 200


async def test_long_polls_are_bounded_and_end_with_their_connection() -> None:
    async with running(max_polls=2) as run:
        run.hub.person("alices", "alice")
        async with run.client("alices") as alice:
            made = (await alice.post(f"{API}/reservations", json={"gpus": 1})).json()
            await run.make_ready(made["id"])
            version = run.service.view.reservations[made["id"]].version
            path = f"{API}/reservations/{made['id']}"
            query = {"wait": 30, "version": version}
            polls = [asyncio.create_task(alice.get(path, params=query)) for _ in range(2)]
            await _until(lambda: run.site.polls._open["local:alice"] == 2)
            refused = await alice.get(path, params=query)
            assert refused.status_code == 429
            for poll in polls:
                poll.cancel()
            await asyncio.gather(*polls, return_exceptions=True)
            await _until(lambda: not run.site.polls._open)
            await _until(lambda: run.site.metrics.requests["show", "GET", 499] == 2)
            # A server's agent has a bound of its own.
            server = TOKENS.make(made["id"], 1)
            headers = {"Authorization": f"Bearer {server}"}
            notices = await alice.get(f"{API}/servers/{made['id']}/notices", headers=headers)
            assert notices.status_code == 200


async def test_a_long_poll_that_the_services_end_cuts_short_is_no_defect() -> None:
    async with running() as run:
        run.hub.person("alices", "alice")
        async with run.client("alices") as alice:
            made = (await alice.post(f"{API}/reservations", json={"gpus": 1})).json()
            await run.make_ready(made["id"])
            path = f"{API}/reservations/{made['id']}"
            poll = asyncio.create_task(alice.get(path, params={"wait": 30}))
            await _until(lambda: run.site.polls._open["local:alice"] == 1)
            # As the end of the loop does it.
            for task in asyncio.all_tasks():
                if getattr(task.get_coro(), "__name__", "") == "show":
                    task.cancel()
            answer = await poll
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")


async def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("address", "known_as"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:0:7:1:2:3:4", "2001:db8:0:7::/64"),
        ("2001:db8:0:7::", "2001:db8:0:7::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::1", "::/64"),
        ("", ""),
        ("local:alice", "local:alice"),
    ],
)
def test_a_caller_is_an_address_or_a_subnet_of_ipv6(address: str, known_as: str) -> None:
    assert network(address) == known_as


async def test_addresses_of_one_subnet_have_one_limit() -> None:
    slow = Rate(per_second=0.01, burst=2)
    async with running(logins=slow, login_failures=slow, strangers=slow) as run:
        server = make_server(make_public_app(run.site, []), behind_proxy=True)
        url = f"http://127.0.0.1:{listen(server)}/services/gpudev/{API}/"
        start = {"code_challenge": "a" * 43, "device": "laptop"}
        wrong = {"code": "x" * 43, "code_verifier": "v" * 43}

        async def statuses(client: httpx.AsyncClient, subnet: str) -> list[list[int]]:
            found = []
            for path, body in (("login/codes", start), ("login/token", wrong)):
                answers = [
                    await client.post(
                        path, json=body, headers={"X-Forwarded-For": f"2001:db8:0:{subnet}::{n}"}
                    )
                    for n in range(3)
                ]
                found.append([answer.status_code for answer in answers])
            return found

        try:
            async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
                for subnet in ("1", "2"):
                    assert await statuses(client, subnet) == [[200, 200, 429], [401, 401, 429]]
        finally:
            server.stop()
            await server.close_all_connections()


def test_a_bucket_fills_again() -> None:
    now = 0
    limiter = Limiter(Rate(per_second=2, burst=3), lambda: now, "requests")
    for _ in range(3):
        limiter.spend("a")
    with pytest.raises(RateLimited) as refused:
        limiter.spend("a")
    assert refused.value.retry_after == 1
    limiter.spend("b")
    now = 499
    with pytest.raises(RateLimited):
        limiter.spend("a")
    now = 500
    limiter.spend("a")
    now = 1_000_000
    for _ in range(3):
        limiter.spend("a")
    with pytest.raises(RateLimited):
        limiter.check("a")


def test_the_number_of_callers_remembered_is_bounded() -> None:
    limiter = Limiter(Rate(per_second=1, burst=1), lambda: 0, "requests")
    for n in range(REMEMBERED + 5):
        limiter.spend(str(n))
    assert len(limiter._buckets) == REMEMBERED


async def test_turns_go_round_and_outlast_who_gives_up() -> None:
    turns, order = Turns(1), []

    async def work(caller: str) -> None:
        async with turns.one(caller):
            order.append(caller)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for caller in ("a", "a", "a", "a", "b", "c", "b"):
            group.create_task(work(caller))
        await asyncio.sleep(0)
        given_up = group.create_task(work("d"))
        await asyncio.sleep(0)
        given_up.cancel()
    assert order == ["a", "a", "b", "c", "a", "b", "a"]
    assert not turns._waiting
    async with asyncio.timeout(1), turns.one("e"):
        pass
