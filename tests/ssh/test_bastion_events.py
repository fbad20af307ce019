"""The bastion's audit events, made from sshd's log."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from pathlib import Path

from gpudev_hub.local_bastion import PROGRAM
from gpudev_hub.server import processes

LIMIT = 50
"""Seconds for the script: far more than it needs."""


TICKS = """
unset EPOCHSECONDS
EPOCHSECONDS=1000
read() {
    builtin read "$@" || return
    [ "${line-}" != tick ] || ((++EPOCHSECONDS))
}
"""
"""Settings with which a second passes at each line `tick`, and only then."""


def events(folder: Path, lines: list[str], settings: str = "") -> list[dict[str, object]]:
    """Run the script on these lines of sshd's log; this process passes for the connection of all."""
    for name in ("connections", "opened"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / connection()).touch()
    (folder / "settings").write_text(f"run={folder}\ninstance=test\n{settings}")
    done = subprocess.run(
        ["/bin/bash", str(PROGRAM.parent / "events"), str(folder)],
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def connection() -> str:
    return f"{os.getpid()}-{processes.start_time(os.getpid())}"


def asked(target: str) -> str:
    return (
        f"debug1: serverloop.c:server_request_direct_tcpip():463 (pid={os.getpid()}): "
        f"originator 127.0.0.1 port 5, target {target} port 2222"
    )


def denied(target: str, port: int = 77) -> str:
    return (
        f"Received request from 10.0.0.9 port {port} to connect to host {target} port 2222, "
        "but the request was denied."
    )


def test_whoever_asks_for_thousands_of_targets_fills_no_list(tmp_path: Path) -> None:
    """The list of connections would else become too large to be sent, and no connection would ever be cut."""
    long = "a" * 200
    flood = [line(f"{n}-{long}") for n in range(30) for line in (asked, denied)]
    found = events(tmp_path, [*flood, *(asked(f"10.0.0.{n}") for n in range(20)), asked("10.0.0.1")])
    kept = (tmp_path / "opened" / connection()).read_text().splitlines()
    assert kept == [f"10.0.0.{n}:2222" for n in range(16)]
    assert {event["connection"] for event in found} == {connection(), ""}


def test_what_a_client_names_is_one_harmless_word(tmp_path: Path) -> None:
    names = ["10.0.0.1", "::1", 'a","event":"opened', "x" * 256, "$(id)"]
    targets = ["10.0.0.1:2222", "[::1]:2222", *["unprintable:2222"] * 3]
    found = events(tmp_path, [line(name) for name in names for line in (asked, denied)])
    assert [event["target"] for event in found] == [one for one in targets for _ in range(2)]


def test_a_connection_fills_the_log_with_50_targets_a_second_at_most(tmp_path: Path) -> None:
    """Each by itself: a flood of one does not hide what another asks for."""
    targets = [f"10.0.{n // 250}.{n % 250}" for n in range(120)]
    second = [*map(asked, targets), *map(denied, targets), denied("10.9.9.9", port=78)]
    found = events(tmp_path, [*second, "tick", *second], TICKS)
    counted = Counter((event["at"], event["event"], event.get("port")) for event in found)
    assert counted == {
        (at, *what): count
        for at in (1000, 1001)
        for what, count in {("asked", None): 50, ("denied", 77): 50, ("denied", 78): 1}.items()
    }
