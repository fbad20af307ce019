"""The spawner of one machine, beside servers that are half there or half recorded."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from gpudev_hub.hub.environments import ensure_environment
from gpudev_hub.hub.local import LocalGpuSpawner, free_ports, inherited
from gpudev_hub.server import processes, record
from gpudev_hub.server.record import Exit, Record
from gpudev_hub.settings import CHECKOUT
from gpudev_hub.state import hold_port
from hub_users import free_port


class Spawner(LocalGpuSpawner):
    """One that no Hub has made."""

    server: Any = SimpleNamespace(url="http://127.0.0.1:9/user/me/odd/")


async def test_a_pair_runs_for_the_hub_while_any_of_its_ranks_does(tmp_path: Path) -> None:
    """The Hub stops only what runs: it would leave the other rank alone and call the server stopped."""

    class Pair(Spawner):
        name: Any = "pair"
        local: ClassVar[Any] = SimpleNamespace(servers=tmp_path)

    spawner = Pair()
    spawner.attempt = 1
    spawner.api_token = "token"
    folders = [tmp_path / "pair-1" / str(rank) for rank in (0, 1)]
    ranks = [
        await asyncio.create_subprocess_exec(
            "sleep", "600", env={record.MARKER: record.marker("pair", 1, rank)}
        )
        for rank in (0, 1)
    ]
    try:
        records = []
        for rank, (folder, process) in enumerate(zip(folders, ranks, strict=True)):
            folder.mkdir(parents=True)
            begun = processes.start_time(process.pid)
            assert begun is not None
            port = 20_000 if rank == 0 else None
            records.append(
                Record("pair", 1, rank, process.pid, begun, record.boot_id(), "n1", (0,), port, 20_001 + rank)
            )
            record.write(folder, records[rank])
        assert await spawner.poll() is None
        ranks[0].send_signal(signal.SIGKILL)
        await ranks[0].wait()
        record.write(folders[0], replace(records[0], exit=Exit(9, "killed")))
        assert await spawner.poll() is None
        ranks[1].send_signal(signal.SIGKILL)
        await ranks[1].wait()
        assert await spawner.poll() == 9
    finally:
        for process in ranks:
            if process.returncode is None:
                process.kill()
                await process.wait()


@pytest.mark.parametrize("ends", [False, True], ids=["it answers", "it ends"])
async def test_a_hub_that_comes_up_learns_at_once_what_becomes_of_a_start(tmp_path: Path, ends: bool) -> None:
    """It would wait for the address as long as for a start, which takes a minute if the server has ended."""

    class Starting(Spawner):
        name: Any = "starting"
        local: ClassVar[Any] = SimpleNamespace(servers=tmp_path)

    spawner = Starting()
    spawner.attempt, spawner.api_token, spawner._check_pending = 1, "token", True
    marked = {record.MARKER: record.marker("starting", 1, 0)}
    running = await asyncio.create_subprocess_exec("sleep", "600", env=marked)
    try:
        begun = processes.start_time(running.pid)
        assert begun is not None
        port = free_port()
        folder = tmp_path / "starting-1" / "0"
        folder.mkdir(parents=True)
        record.write(
            folder, Record("starting", 1, 0, running.pid, begun, record.boot_id(), "n1", (0,), port, 1)
        )
        polled = asyncio.create_task(spawner.poll())
        done, _ = await asyncio.wait([polled], timeout=0.3)
        assert not done
        if ends:
            running.kill()
            await running.wait()
            assert await asyncio.wait_for(polled, 10) == 1
        else:
            with socket.create_server(("127.0.0.1", port)):
                assert await asyncio.wait_for(polled, 10) is None
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()


async def test_a_new_start_waits_for_the_clean_up_after_the_ended_server() -> None:
    """JupyterHub's clean-up takes the spawner's Hub token, so it must not overlap with the next start."""

    class Ended(Spawner):
        name: Any = "ended"

        async def look(self) -> int | None:
            return 1

    spawner = Ended()
    cleaning, cleaned = asyncio.Event(), asyncio.Event()

    async def clean_up() -> None:
        cleaning.set()
        await cleaned.wait()
        spawner.clear_state()

    async def start() -> None:
        assert await spawner.poll_and_notify() == 1
        spawner.api_token = "new"

    spawner.add_poll_callback(clean_up)
    found = asyncio.create_task(spawner.poll_and_notify())
    await cleaning.wait()
    started = asyncio.create_task(start())
    done, _ = await asyncio.wait([started], timeout=0.1)
    assert not done
    cleaned.set()
    await asyncio.gather(found, started)
    assert spawner.api_token == "new"


async def test_a_server_that_was_started_without_a_token_is_not_adopted(tmp_path: Path) -> None:
    class Tokenless(Spawner):
        name: Any = "tokenless"
        local: ClassVar[Any] = SimpleNamespace(servers=tmp_path)

    spawner = Tokenless()
    spawner.attempt = 1
    marked = {record.MARKER: record.marker("tokenless", 1, 0)}
    running = await asyncio.create_subprocess_exec("sleep", "600", env=marked)
    try:
        begun = processes.start_time(running.pid)
        assert begun is not None
        folder = tmp_path / "tokenless-1" / "0"
        (folder / record.PRIVATE).mkdir(parents=True)
        (folder / record.PRIVATE / "spec.json").write_text('{"env": {}}')
        boot = record.boot_id()
        record.write(folder, Record("tokenless", 1, 0, running.pid, begun, boot, "n1", (0,), 20_000, 1))
        assert await spawner.poll() is None
        assert not spawner.api_token
    finally:
        running.kill()
        await running.wait()


async def test_a_record_that_makes_no_sense_keeps_the_hub_from_nothing(tmp_path: Path) -> None:
    """It asks both of every server when it starts, and would end with what they raise."""
    folder = tmp_path / "odd-1" / "0"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text("{")

    class Odd(Spawner):
        name: Any = "odd"
        local: ClassVar[Any] = SimpleNamespace(servers=tmp_path)

    spawner = Odd()
    spawner.attempt = 1
    marked = {record.MARKER: record.marker("odd", 1, 0)}
    running = await asyncio.create_subprocess_exec("sleep", "600", env=marked)
    try:
        assert await spawner.poll() is None
        assert await spawner.get_url() == Spawner.server.url
    finally:
        running.kill()
        await running.wait()


def test_pip_installs_whatever_the_users_pip_configuration_says_of_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = CHECKOUT / ".venv-server" / "bin" / "python"
    if not python.exists():
        pytest.skip("`make setup` makes the servers' environment")

    class Own(Spawner):
        local: ClassVar[Any] = SimpleNamespace(
            server_python=python, url="http://127.0.0.1:9", account_shell=lambda: ("me", "/bin/sh")
        )

        def get_env(self) -> dict[str, str]:
            return {}

    monkeypatch.setenv("PIP_USER", "1")
    home, environment = tmp_path / "home", tmp_path / "environment"
    (home / ".config/pip").mkdir(parents=True)
    (home / ".config/pip/pip.conf").write_text("[install]\nuser = true\n")
    ensure_environment(environment, python)
    launch: Any = SimpleNamespace(id="own", allocation=[None])
    env = Own()._environment(launch, home, environment)
    assert env["JUPYTERHUB_PUBLIC_HUB_URL"] == f"{env['GPUDEV_URL']}/hub/"
    done = subprocess.run(
        [environment / "bin" / "pip", "install", "--no-index", "gpudev-absent"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "No matching distribution found for gpudev-absent" in done.stderr


def test_two_starts_at_once_get_different_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of a server bind their ports seconds after these were chosen."""
    ports = [free_port() for _ in range(4)]
    monkeypatch.setattr("gpudev_hub.hub.local.PORTS", range(11_800, 11_900))
    with ExitStack() as first, ExitStack() as second:
        assert not set(free_ports(40, first)) & set(free_ports(40, second))
        assert not any(hold_port(port, first) for port in ports), "held by others"


@pytest.mark.parametrize(
    ("given", "locale"),
    [
        ({}, {"LANG": "C.UTF-8"}),
        ({"LANG": "", "LC_TIME": "de_DE.UTF-8"}, {"LANG": "C.UTF-8", "LC_TIME": "de_DE.UTF-8"}),
        ({"LANG": "de_DE.UTF-8"}, {"LANG": "de_DE.UTF-8"}),
        ({"LC_CTYPE": "en_US.UTF-8"}, {"LC_CTYPE": "en_US.UTF-8"}),
        ({"LC_ALL": "C"}, {"LC_ALL": "C"}),
    ],
)
def test_servers_have_a_locale(given: dict[str, str], locale: dict[str, str]) -> None:
    assert inherited(given) == locale
