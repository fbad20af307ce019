"""What the extension of JupyterLab knows of its reservation, and what it does where the service is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

import gpudev_jupyter
from gpudev import wire
from gpudev_jupyter.service import Away, Follower, Refused, Service, State
from web_site import TOKENS, Running

API = wire.API


@asynccontextmanager
async def follower(run: Running, **ask: object) -> AsyncIterator[Follower]:
    """Follow a new reservation of alice's, in the server of which JupyterLab runs."""
    async with run.client("alices") as alice:
        answer = await alice.post(f"{API}/reservations", json={"gpus": 2, "hours": 1, **ask})
    made = msgspec.json.decode(answer.content, type=wire.Reservation)
    await run.make_ready(made.id)
    attempt = run.service.view.reservations[made.id].attempt
    found = Follower(Service(run.url, made.id, TOKENS.make(made.id, attempt)))
    found.start()
    try:
        yield found
    finally:
        assert found._task is not None
        found._task.cancel()
        await asyncio.wait([found._task])
        await found.service._http.aclose()


async def until(follower: Follower, seen: Callable[[State], bool]) -> State:
    """Wait until what the follower tells is as wanted."""
    changed = asyncio.Event()
    follower.listeners.add(changed.set)
    deadline = time.monotonic() + 20
    while not seen(follower.state):
        assert time.monotonic() < deadline, follower.state
        try:
            await asyncio.wait_for(changed.wait(), 0.5)
        except TimeoutError:
            continue
        changed.clear()
    follower.listeners.discard(changed.set)
    return follower.state


def hours(state: State) -> float:
    return state.reservation.hours if state.reservation is not None else 0


async def test_it_follows_extends_and_releases_without_the_hub(run: Running) -> None:
    async with follower(run, name="demo") as found:
        run.hub.failure = "500"
        state = await until(found, lambda state: state.reservation is not None)
        assert state.reservation is not None
        assert state.reservation.ssh_command == "ssh gpu-demo", "as its owner sees it"
        assert state.seconds_left == pytest.approx(3600, abs=30)
        assert state.warn_minutes == [30, 15, 5]
        await run.service.extend(found.service.id, "local:alice", 3_600_000)
        await until(found, lambda state: hours(state) == 2.0)
        for _ in range(2):
            longer = await found.service.extend(0.5, "the-same-request")
            assert longer.reservation.hours == 2.5, "granted once"
        with pytest.raises(Refused) as refused:
            await found.service.extend(100, "another-request")
        assert refused.value.error.longest_hours == 45.5
        released = await found.service.release()
        assert (released.reservation.state, released.outcome) == ("stopping", "released")
        found.heard(released)
        assert found.state.outcome == "released"


async def test_time_goes_on_and_is_right_again_after_an_outage(run: Running) -> None:
    async with follower(run) as found:
        await until(found, lambda state: state.reservation is not None)
        url = found.service._url
        found.service._url = "http://127.0.0.1:9/nobody"
        async with run.client("alices") as alice:  # so that the poll under way ends
            await alice.post(f"{API}/reservations/{found.service.id}/extend", json={"hours": 1})
        state = await until(found, lambda state: not state.answers)
        assert state.reservation is not None
        assert not state.over
        with pytest.raises(Away):
            await found.service.extend(1, "not-answered")
        left = found.state.seconds_left
        found._received -= 600  # as if ten minutes had passed
        assert left is not None
        assert found.state.seconds_left == pytest.approx(left - 600, abs=5), "it is counted on"
        found.service._url = url
        state = await until(found, lambda state: state.answers)
        assert state.seconds_left == pytest.approx(7200, abs=30)


async def test_a_token_that_is_refused_says_that_it_is_over(run: Running) -> None:
    async with follower(run) as found:
        await until(found, lambda state: state.reservation is not None)
        async with run.client("alices") as alice:
            await alice.delete(f"{API}/reservations/{found.service.id}")
        await run.gone(found.service.id)
        await until(found, lambda state: state.over)


async def test_an_older_answer_changes_nothing(run: Running) -> None:
    async with follower(run) as found:
        await until(found, lambda state: state.reservation is not None)
        before = await found.service.status()
        await found.service.extend(1, "one-more-hour")
        await until(found, lambda state: hours(state) == 2.0)
        found.heard(before)
        assert hours(found.state) == 2.0


def test_the_page_is_told_and_jupyters_own_questions_are_off() -> None:
    def hubs(handler: object, config: dict[str, Any]) -> dict[str, Any]:
        return config | {
            "hubUser": "alice",
            "disabledExtensions": ["@jupyterlab/git", gpudev_jupyter.REPLACED[0]],
        }

    config = gpudev_jupyter.page_config({"id": "abc", "root": "/services/gpudev/"}, hubs)(None, {})
    assert config == {
        "hubUser": "alice",
        "disabledExtensions": ["@jupyterlab/git", *gpudev_jupyter.REPLACED],
        "gpudev": '{"id": "abc", "root": "/services/gpudev/"}',
    }


async def test_nothing_happens_where_there_is_no_reservation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """For example in JupyterLab on a laptop, beside the client library."""
    for folder in ("", str(tmp_path)):
        monkeypatch.setenv(gpudev_jupyter.FOLDER, folder)
        gpudev_jupyter._load_jupyter_server_extension(None)
        await gpudev_jupyter._start_jupyter_server_extension(None)
