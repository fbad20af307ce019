"""Every refusal to start leaves processes and files as they were, and comes again the next time."""

from __future__ import annotations

import asyncio
import fcntl
import io
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from gpudev_hub import state, supervisor
from gpudev_hub.core.causes import Cause
from gpudev_hub.core.commit import Change, Commit, Slot
from gpudev_hub.core.model import HOUR, Claim, NodeSlots, Owner, Request, Reservation, Shape, State
from gpudev_hub.preconditions import check
from gpudev_hub.server import processes, record
from gpudev_hub.server.record import Record
from gpudev_hub.settings import Ports, Settings
from gpudev_hub.ssh.ca import HostCA
from gpudev_hub.state import choose_ports, hold_port, port_free
from gpudev_hub.stores.sqlite.store import SqliteStore
from gpudev_hub.supervisor import Ended
from hub_users import free_port
from sqlite_items import change, items_of
from ssh_world import now

COMMITS = 20


class World:
    """A state folder with a reservation and its running server, whose supervisor was killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            "HOME": str(folder),
            "PATH": os.environ["PATH"],
            "GPUDEV_STATE": str(folder / "state"),
            "GPUDEV_CONFIG": str(folder / "config.json"),
            "GPUDEV_PORT": str(free_port()),
            "GPUDEV_POOL": "2x8",
        }
        self.settings = Settings.read(self.environment)
        self.state = self.settings.state
        for part in (self.settings.servers, self.settings.hub, self.settings.logs, self.state / "secrets"):
            part.mkdir(parents=True)
        (self.folder / "config.json").write_text("{}")
        for name in ("password", "demo-password", "gate"):
            self.settings.secret(name)
        (self.state / "secrets" / "server-tokens").write_bytes(b"k" * 32)
        (self.state / "ports.json").write_text("{}")
        HostCA(self.state / "ssh")
        (self.settings.hub / "cookie_secret").write_text("ab" * 32)
        sqlite3.connect(self.settings.hub / "jupyterhub.sqlite").execute("CREATE TABLE users (id)")
        asyncio.run(self._fill())
        self.server = subprocess.Popen(
            ["sleep", "600"], env={record.MARKER: record.marker("g1", 1, 0)}, stdin=subprocess.DEVNULL
        )
        begun = processes.start_time(self.server.pid)
        assert begun is not None
        rank = self.settings.servers / "g1-1" / "0"
        rank.mkdir(parents=True)
        place = (rank, Record("g1", 1, 0, self.server.pid, begun, record.boot_id(), "node-2", (7,), 1, 2))
        record.write(*place)
        self.held = ExitStack()

    async def _fill(self) -> None:
        store = SqliteStore(self.settings.database)
        epoch = (await store.open()).epoch
        at, there = now(), NodeSlots("node-2", (7,))
        request = Request(Shape(1), "simulated", HOUR, "default")
        reservation = Reservation(
            id="g1",
            seq=1,
            owner=Owner("local:a", "a", "a"),
            request=request,
            request_id=None,
            created_at=at,
            startup=60_000,
            teardown=30_000,
            cap=16,
            state=State.READY,
            attempt=1,
            hard_end=at + HOUR,
            allocation=(there,),
        )
        claim = Claim("g1", 1, "local:a", "simulated", (there,), at + HOUR)
        changes = (Change(reservation, Cause.REQUESTED, "a"), Change(claim, Cause.ADMITTED, "service"))
        await store.commit(Commit(epoch, 1, "c1", at, changes, take=((Slot("node-2", 7), ("g1", 1)),)))
        for n in range(2, COMMITS + 1):
            await store.commit(Commit(epoch, n, f"c{n}", at, ()))
        await store.close()

    def close(self) -> None:
        self.held.close()
        self.server.kill()
        self.server.wait()

    def files(self) -> dict[str, bytes]:
        """All but what a lock says of its holder, and SQLite's index of a log."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.name != "lock" and not path.name.endswith((".lock", "-shm"))
        }

    def store(self, statement: str) -> None:
        """Change the database behind everybody's back."""
        connection = sqlite3.connect(self.settings.database)
        connection.execute(statement)
        connection.commit()
        connection.close()

    def head(self, name: str, more: int) -> None:
        """Add to a number in the head of the database."""
        before = items_of(self.settings.database, "head")["head"][name]
        change(self.settings.database, "head", "head", **{name: before + more})

    def spoil_a_record(self) -> None:
        """Make a commit in the database unreadable."""
        change(self.settings.database, "history", f"{1:012}", changes=b"{")

    def lock(self, name: str) -> None:
        """As another process that holds this lock."""
        file = self.held.enter_context((self.state / name).open("a"))
        fcntl.flock(file, fcntl.LOCK_EX)

    def listen(self) -> None:
        """As another program at the public port."""
        self.held.enter_context(socket.create_server(("127.0.0.1", self.settings.port)))

    def set(self, **environment: str) -> None:
        """Other settings."""
        self.environment |= environment

    def write(self, name: str, content: str | bytes) -> None:
        """A file of the state folder, or ``../FILE`` beside it."""
        data = content.encode() if isinstance(content, str) else content
        (self.state / name).write_bytes(data)

    def use_one_password(self) -> None:
        """The same for everybody."""
        for name in ("password", "demo-password"):
            self.write(f"secrets/{name}", "x" * 32)

    def start_later(self) -> None:
        """A server that was started after this copy of the state folder was made."""
        folder = self.settings.servers / "g2-1" / "0"
        argv = [
            sys.executable,
            "-c",
            "import time; time.sleep(600)",
            "gpudev_hub.server.launcher",
            str(folder),
        ]
        later = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
        self.held.callback(later.wait)
        self.held.callback(later.kill)

    def empty_all_but_the_log(self) -> None:
        """A database file that was emptied while its log was not."""
        self.write(STORE, "")
        self.write(f"{STORE}-wal", "frames")

    def remove(self, *names: str) -> None:
        """Files of the state folder."""
        for name in names:
            (self.state / name).unlink()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


STORE, COUNT = "service.sqlite", "service.sqlite.commits"
TABLE: list[tuple[str, Callable[[World], object], Ended, str]] = [
    ("a hub that runs", lambda w: w.lock("lock"), Ended.STATE_IN_USE, "Another gpudev-hub"),
    ("a service that runs", lambda w: w.lock(f"{STORE}.lock"), Ended.STATE_IN_USE, "is in use by process"),
    ("port", World.listen, Ended.PORT_IN_USE, "GPUDEV_PORT"),
    ("setting", lambda w: w.set(GPUDEV_PORT="http"), Ended.BAD_SETTING, "port number"),
    ("policy", lambda w: w.set(GPUDEV_POLICY="/nowhere"), Ended.BAD_SETTING, "GPUDEV_POLICY"),
    ("client", lambda w: w.write("../config.json", "["), Ended.CONFIG_UNUSABLE, "config.json"),
    ("no folder", lambda w: w.set(GPUDEV_STATE="/dev/null"), Ended.STATE_UNUSABLE, "GPUDEV_STATE"),
    ("secret", lambda w: w.write("secrets/gate", ""), Ended.STATE_UNUSABLE, "gate is empty"),
    ("binary", lambda w: w.write("secrets/gate", b"\xff"), Ended.STATE_UNUSABLE, "gate is not a text file"),
    ("password", lambda w: w.write("secrets/password", "x"), Ended.STATE_UNUSABLE, "; the minimum is 32"),
    ("passwords", World.use_one_password, Ended.STATE_UNUSABLE, "are the same"),
    ("tokens", lambda w: w.write("secrets/server-tokens", "k"), Ended.STATE_UNUSABLE, "has 1 byte instead"),
    ("CA gone", lambda w: w.remove("ssh/host_ca"), Ended.STATE_UNUSABLE, "host_ca does not exist"),
    ("CA garbage", lambda w: w.write("ssh/host_ca", "key"), Ended.STATE_UNUSABLE, "host_ca cannot be used"),
    ("other CA", lambda w: w.write("ssh/host_ca.pub", "ssh-ed25519 AAAA"), Ended.STATE_UNUSABLE, "belong"),
    ("Hub", lambda w: w.write("hub/jupyterhub.sqlite", "garbage"), Ended.STATE_UNUSABLE, "is not a database"),
    ("cookies", lambda w: w.write("hub/cookie_secret", "xyz"), Ended.STATE_UNUSABLE, "is not hexadecimal"),
    ("clock", lambda w: w.head("at", 2 * HOUR), Ended.REFUSED, "clock is 7"),
    ("emptied", lambda w: w.write(STORE, ""), Ended.REFUSED, f"holds 0 commits, but {COMMITS} were made"),
    ("removed", lambda w: w.remove(STORE), Ended.REFUSED, f"holds 0 commits, but {COMMITS} were made"),
    ("another", lambda w: w.remove(STORE, COUNT), Ended.REFUSED, "still run (1: g1/1)"),
    ("older", lambda w: w.head("n", -5), Ended.REFUSED, f"with {COMMITS - 5} commits"),
    ("copy", World.start_later, Ended.REFUSED, "still run (1: g2/1), but the state folder"),
    ("log alone", World.empty_all_but_the_log, Ended.REFUSED, "its log"),
    ("newer", lambda w: w.store("PRAGMA user_version = 9"), Ended.STATE_UNUSABLE, "has schema 9"),
    ("foreign", lambda w: w.write(STORE, b"x" * 9000), Ended.STATE_UNUSABLE, "not a database"),
    ("record", World.spoil_a_record, Ended.STATE_UNUSABLE, "cannot be read"),
    ("node gone", lambda w: w.set(GPUDEV_POOL="1x8"), Ended.REFUSED, "g1 (node-2, simulated)"),
    ("GPUs gone", lambda w: w.set(GPUDEV_POOL="2x7"), Ended.REFUSED, "7 on node-1 and 7 on node-2"),
]  # fmt: skip


def test_a_world_as_it_should_be_is_not_refused(world: World) -> None:
    before = world.files()
    asyncio.run(check(world.settings))
    assert world.files() == before


@pytest.mark.parametrize(
    ("spoil", "code", "words"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_a_refusal_leaves_everything_as_it_was_and_comes_again(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[World], object],
    code: Ended,
    words: str,
) -> None:
    """Invariants 3 and 8: servers run on, whatever keeps their hub from starting."""
    monkeypatch.setattr(supervisor, "PREDECESSOR_PATIENCE", 0.0)
    spoil(world)
    before, children = world.files(), processes.descendants(os.getpid())
    for _ in range(2):
        assert supervisor.run(world.environment) == code
        assert words in capsys.readouterr().err
        assert world.files() == before
        assert processes.descendants(os.getpid()) == children
    assert world.server.poll() is None


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"hub": 0, "proxy_api": -1, "service": 1, "gate": 99999}']
)
def test_ports_that_cannot_be_used_are_chosen_again(world: World, text: str) -> None:
    world.write("ports.json", text)
    with ExitStack() as held:
        chosen = msgspec.structs.asdict(choose_ports(world.settings, held)).values()
        assert {port_free(port) for port in chosen} == {True}


def test_two_hubs_that_start_together_choose_different_ports(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their parts listen seconds later. Ports of an earlier run are kept."""
    monkeypatch.setattr(state, "INTERNAL", range(11_900, 12_000))
    few: list[int] = []
    for port in state.INTERNAL:
        with ExitStack() as tried:
            if len(few) < 2 * len(Ports.__struct_fields__) and hold_port(port, tried):
                few.append(port)
    monkeypatch.setattr(state, "INTERNAL", few)
    chosen: list[int] = []
    with ExitStack() as held:
        for _ in range(2):
            world.write("ports.json", "{}")
            chosen += msgspec.structs.asdict(choose_ports(world.settings, held)).values()
        assert sorted(chosen) == few
        second = world.settings.ports()
    with ExitStack() as held:
        assert choose_ports(world.settings, held) == second


def test_a_refusal_makes_no_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "PREDECESSOR_PATIENCE", 0.0)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen(1)
        environment = {
            "HOME": str(tmp_path),
            "PATH": os.environ["PATH"],
            "GPUDEV_PORT": str(holder.getsockname()[1]),
        }
        assert supervisor.run(environment) == Ended.PORT_IN_USE
    assert list(tmp_path.iterdir()) == []


def test_the_announcement_ends_nothing_where_stdout_lacks_its_characters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    supervisor._say("16 × GPU\n  state and logs: /caf\udce9\n")
    assert written.getvalue() == b"16 ? GPU\n  state and logs: /caf?\n"
