"""Parts die at random, alone or two within two seconds, while servers start, run and stop.

``GPUDEV_RANDOM_ROUNDS`` says how many rounds (40), ``GPUDEV_RANDOM_SEED`` which (1):

    GPUDEV_RANDOM_ROUNDS=500 GPUDEV_RANDOM_SEED=7 pytest -s tests/faults/test_random_deaths.py
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from gpudev import wire
from gpudev.api import Api
from gpudev_hub.server import processes
from hub_users import LOOK_AGAIN
from ledger import Ledger, read_ledger
from stack import Stack

pytestmark = pytest.mark.integration

ROUNDS: Final = int(os.environ.get("GPUDEV_RANDOM_ROUNDS", "40"))
SEED: Final = int(os.environ.get("GPUDEV_RANDOM_SEED", "1"))
RECOVERED_WITHIN: Final = 15.0
"""Seconds, and five times as long as the hub took to start: as much again where the machine is busy."""
RESTARTS: Final = 3
"""Times that a server may end by itself before its reservation has failed (the policy's default)."""
OF_HUB: Final = ("supervisor", "proxy", "hub", "service")
OF_SERVER: Final = ("launcher", "jupyter", "sshd", "agent")
COMMANDS: Final = {
    "jupyter": "jupyterhub.singleuser",
    "sshd": "[listener]",
    "agent": "gpudev_hub.server.agent",
}


@dataclass
class Subject:
    """A reservation that is played with."""

    nodes: int
    id: str = ""
    deaths: int = 0
    """Of its servers, while it was ready."""


@dataclass
class Game:
    """One hub, the servers that parts of are killed, and others that must not notice."""

    stack: Stack
    chance: random.Random
    patience: float
    """Seconds until everything must be back."""
    acknowledged: dict[str, str] = field(default_factory=dict)
    """What a user was told last of each reservation: ``live`` or ``released``."""
    times: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.api = Api(self.stack.url, self.stack.token_for(), patience=120)
        self.subjects = [Subject(1), Subject(2)]
        self.bystander = self.stack.reserve("bob", gpus=1, hours=8)
        self.bystander = self.stack.wait_state(self.bystander["id"], "ready", "bob")
        # At his limit, bob waits until his first one ends.
        self.queued = self.stack.reserve("bob", gpus=1, hours=1)
        assert self.queued["state"] == "queued"
        self.launcher = self.stack.launcher(self.bystander["id"])

    def play(self, number: int) -> None:
        """One round."""
        subject = self.chance.choice(self.subjects)
        if subject.id and subject.deaths + 2 > RESTARTS:
            self.release(subject)
            self.until(lambda: self.ended(subject), "its end")
            subject.id = ""
        phase = "start" if not subject.id else self.chance.choice(["run", "run", "run", "stop"])
        victims = [self.victim(subject) for _ in range(self.chance.choice([1, 1, 2]))]
        pauses = [self.chance.uniform(0, 3 if phase == "start" else 0.3), self.chance.uniform(0, 2)]
        kind = "pair" if subject.nodes > 1 else "single"
        what = f"round {number}: {kind}, {phase}: {' and '.join(name for name, _ in victims)}"
        print(f"{what} after {pauses[0]:.2f} s", end="", flush=True)
        try:
            if phase == "start":
                self.reserve(subject)
            elif phase == "stop":
                self.release(subject)
            for (name, rank), pause in zip(victims, pauses, strict=False):
                time.sleep(pause)
                killed = self.kill(subject, name, rank)
                if phase == "run" and killed and name in ("launcher", "jupyter"):
                    subject.deaths += 1
            begun = time.monotonic()
            if not self.stack.running:
                self.stack.start()
            if phase == "stop":
                self.until(lambda: self.ended(subject), "its end")
                subject.id = ""
            else:
                self.until(lambda: self.whole(subject), "the whole of it back")
            took = time.monotonic() - begun
            self.check()
        except BaseException:
            print(f"\nfailed in {what}, seed {SEED}; {self.stack.said()}")
            raise
        self.times.append((took, what))
        print(f": {took:.1f} s", flush=True)

    def victim(self, subject: Subject) -> tuple[str, int]:
        """A part, and the rank it is of; the supervisor, which takes longest to start, less often."""
        names = [*OF_HUB[1:], *OF_HUB[1:], "supervisor", *OF_SERVER, *OF_SERVER]
        return self.chance.choice(names), self.chance.randrange(subject.nodes)

    def reserve(self, subject: Subject) -> None:
        request_id = f"request-{self.chance.getrandbits(40):x}"
        name = f"n{self.chance.getrandbits(40):x}"
        request = wire.ReserveRequest(
            gpus=2 if subject.nodes > 1 else 1, nodes=subject.nodes, hours=2, name=name, request_id=request_id
        )
        subject.id, subject.deaths = self.api.reserve(request).id, 0
        assert subject.id not in self.acknowledged, "an id was given twice"
        self.acknowledged[subject.id] = "live"

    def release(self, subject: Subject) -> None:
        self.api.release(subject.id)
        self.acknowledged[subject.id] = "released"

    def kill(self, subject: Subject, name: str, rank: int) -> bool:
        """``kill -9``; false if there is no such process just now."""
        try:
            if name in OF_HUB:
                pid = self.stack.pid if name == "supervisor" else self.stack.find(name)
            else:
                pid = self.stack.launcher(subject.id, rank)
                if processes.start_time(pid) is None:
                    return False
                if name != "launcher":
                    pid = self.below(pid, COMMANDS[name])
            if pid is None:
                return False
            os.kill(pid, signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return False
        if name == "supervisor":
            self.until(lambda: not self.stack.running, "the supervisor's end")
        return True

    @staticmethod
    def below(launcher: int, command: str) -> int | None:
        for pid in processes.descendants(launcher):
            try:
                if command in Path(f"/proc/{pid}/cmdline").read_text():
                    return pid
            except OSError:
                pass
        return None

    def until(self, look: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + self.patience
        while True:
            try:
                if look():
                    return
                last = ""
            except (httpx.HTTPError, OSError, ValueError, AssertionError) as error:
                last = f": {error}"
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {self.patience:.0f} s: {what}{last}")
            time.sleep(LOOK_AGAIN)

    def record(self, id: str, user: str | None = None) -> dict[str, Any]:
        """A Hub that is just coming back cannot say yet whose token this is: 503, to be asked again."""
        deadline = time.monotonic() + self.patience
        while True:
            try:
                found: dict[str, Any] = self.stack.api("GET", f"reservations/{id}", None, user)
                return found
            except AssertionError as error:
                if ": 503 " not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(LOOK_AGAIN)

    def ended(self, subject: Subject) -> bool:
        return bool(self.record(subject.id)["state"] == "ended")

    def whole(self, subject: Subject) -> bool:
        """Ready, with every part of every rank there, and its page and its SSH names lead to it."""
        found = self.record(subject.id)
        assert found["state"] != "ended", found
        if (found["state"], found["server"]) != ("ready", "running"):
            return False
        for rank in range(subject.nodes):
            launcher = self.stack.launcher(subject.id, rank)
            parts = ("sshd", "agent", "jupyter") if rank == 0 else ("sshd", "agent")
            if processes.start_time(launcher) is None or not all(
                self.below(launcher, COMMANDS[part]) for part in parts
            ):
                return False
        return self.stack.jupyter(found) == 200 and self.aliases_lead_there(subject, found["name"])

    def aliases_lead_there(self, subject: Subject, name: str) -> bool:
        self.gpu_dev("ssh-sync")
        config = self.stack.home / ".ssh" / "gpudev" / "config"
        for rank in range(subject.nodes):
            alias = f"gpu-{name}" if rank == 0 else f"gpu-{name}-{rank}"
            done = subprocess.run(
                ["ssh", "-F", str(config), "-o", "BatchMode=yes", alias, "echo $GPUDEV_SERVER"],
                env=self.stack.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=30,
            )
            assert "is not a listed principal" not in done.stderr, "the alias leads to another server"
            if done.returncode != 0:
                return False
            server, _, of_rank = done.stdout.strip().split("/")
            assert (server, int(of_rank)) == (subject.id, rank), "the alias leads to another server"
        return True

    def gpu_dev(self, *arguments: str) -> None:
        program = str(Path(sys.executable).parent / "gpu-dev")
        subprocess.run([program, *arguments], env=self.stack.environment, capture_output=True, timeout=60)

    # What must hold after every round

    def check(self) -> None:
        self.nobody_else_noticed()
        self.nothing_is_lost_or_doubled()
        self.until(self.nothing_is_left_behind, "the removal of what was left behind")

    def nobody_else_noticed(self) -> None:
        running = self.record(self.bystander["id"], "bob")
        assert (running["state"], running["ends_at"]) == ("ready", self.bystander["ends_at"])
        assert self.stack.launcher(self.bystander["id"]) == self.launcher
        assert processes.start_time(self.launcher) is not None
        waiting = self.record(self.queued["id"], "bob")
        assert (waiting["state"], waiting["guaranteed_by"]) == ("queued", self.queued["guaranteed_by"])

    def nothing_is_lost_or_doubled(self) -> None:
        live = {record.id: record for record in self.api.reservations()}
        assert set(live) == self.live(), "acknowledged and lost, or made and told to nobody"
        everybody = [*self.api.reservations(everyone=True)]
        slots = [
            (part.node, slot) for record in everybody for part in record.allocation for slot in part.slots
        ]
        assert len(slots) == len(set(slots)), f"a slot has two owners: {everybody}"

    def nothing_is_left_behind(self) -> bool:
        live = self.live() | {self.bystander["id"]}
        for folder in self.stack.settings.servers.iterdir():
            server, _, attempt = folder.name.rpartition("-")
            latest = server in live and folder == self.latest(server)
            if not latest and any(folder.glob("*/private")):
                return False
            if not latest and processes.marked(f"{server}/{attempt}"):
                return False
        return True

    def live(self) -> set[str]:
        return {server for server, state in self.acknowledged.items() if state == "live"}

    def latest(self, id: str) -> Path:
        return max(
            self.stack.settings.servers.glob(f"{id}-*"), key=lambda path: int(path.name.rpartition("-")[2])
        )


@pytest.fixture
def stack() -> Iterator[Stack]:
    """Four nodes of two GPUs, so that a pair, a single and a bystander have room; bob is at his limit."""
    with tempfile.TemporaryDirectory(prefix="gd-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        policy = folder / "policy.json"
        policy.write_text(json.dumps({"users": {"local:bob": {"running_gpus": 1}}}))
        temporary = folder / "t"
        temporary.mkdir()
        hub = Stack(folder, pool="4x2", environment={"GPUDEV_POLICY": str(policy), "TMPDIR": str(temporary)})
        try:
            yield hub
        finally:
            hub.close()


@pytest.mark.timeout(120 + 60 * ROUNDS)
def test_parts_that_die_at_random(stack: Stack) -> None:
    """Invariants 1, 3, 10 and 13: all is back within seconds, and nothing is lost or left behind."""
    begun = time.monotonic()
    stack.start()
    patience = RECOVERED_WITHIN + 5 * (time.monotonic() - begun)
    print(f"\n{ROUNDS} rounds, seed {SEED}; everything must be back within {patience:.0f} s")
    game = Game(stack, random.Random(SEED), patience)
    for number in range(1, ROUNDS + 1):
        game.play(number)
    for took, what in sorted(game.times, reverse=True)[:5]:
        print(f"slowest: {took:.1f} s in {what}")
    for subject in game.subjects:
        if subject.id:
            game.release(subject)
            game.until(lambda s=subject: game.ended(s), "its end")  # type: ignore[misc]
    # A pass of reconciliation at its start clears away keys of what has ended.
    stack.kill("service")
    launches = stack.settings.state / "ssh" / "launches"
    wanted = {f"{game.bystander['id']}-1.json"}
    game.until(lambda: {path.name for path in launches.iterdir()} == wanted, "the removal of old keys")
    place = (game.latest(game.bystander["id"]) / "0" / "private" / "place").resolve()
    game.until(
        lambda: set((stack.folder / "t").glob("gpudev-*")) <= {place}, "the removal of folders for sockets"
    )
    stack.stop()
    assert stack.server_processes() == {}
    judge(game, asyncio.run(read_ledger(stack.settings.database)))


def judge(game: Game, ledger: Ledger) -> None:
    """The store agrees with what people were told."""
    for reservation, state in game.acknowledged.items():
        record = ledger.record(reservation)
        assert record is not None, f"{reservation} was acknowledged and is lost"
        assert (str(record.outcome) == "released") == (state == "released"), record
