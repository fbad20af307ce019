"""Observes the servers of this machine through their records and ``/proc``, and ends them.

The service (``local.py``) and the spawner inside the Hub use this module independently. A server is gone only
if its launcher is gone and no process has its marker.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gpudev_hub.core.model import Presence
from gpudev_hub.core.ports import ServerSight
from gpudev_hub.server import gang, places, processes, record
from gpudev_hub.server.record import Record

HOST = "127.0.0.1"
GRACE = 5.0
"""Seconds in which a server must end; after them its remaining processes are killed."""
_LAUNCHER = "gpudev_hub.server.launcher"
_KEPT = 100
"""Number of ended attempts whose folders are kept, for their logs."""


def clear_private(folder: Path) -> None:
    """Remove the private folder of a rank whose processes are gone, as the launcher does when it ends."""
    kept = folder / record.PRIVATE
    with suppress(OSError, ValueError, KeyError, TypeError):  # without spec.json, its home is not known
        gang.cleanup(kept, json.loads((kept / "spec.json").read_text())["env"])
    places.remove(kept)
    shutil.rmtree(kept, ignore_errors=True)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def alive(found: Record) -> bool:
    """Return whether the launcher that wrote this record still runs."""
    return (
        found.exit is None
        and found.boot == record.boot_id()
        and processes.start_time(found.pid) == found.start_time
    )


def open_process(pid: int, start_time: int) -> int | None:
    """Return a pidfd of a process, which is readable once it has ended; ``None`` if it is gone."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if processes.start_time(pid) == start_time:
        return descriptor
    os.close(descriptor)
    return None


async def wait_for_end(pid: int, start_time: int, timeout: float) -> None:
    """Wait, without polling, until the process is gone, at most ``timeout`` seconds."""
    descriptor = open_process(pid, start_time)
    if descriptor is None:
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        with suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), timeout)
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class LocalServers:
    """The servers of one state folder."""

    root: Path
    """The folder ``servers/`` in the state folder."""

    def folder(self, id: str, attempt: int) -> Path:
        """Return the folder of an attempt; its ranks are ``0``, ``1`` … in it."""
        return self.root / f"{id}-{attempt}"

    def attempts(self) -> list[tuple[str, int]]:
        """Return all attempts that have a folder. Raises ``OSError`` if the folder cannot be read."""
        found = []
        with os.scandir(self.root) as entries:
            for entry in entries:
                reservation, _, attempt = entry.name.rpartition("-")
                # Other files and folders are not servers.
                if reservation and _is_number(attempt) and entry.is_dir(follow_symlinks=False):
                    found.append((reservation, int(attempt)))
        return sorted(found)

    def records(self, id: str, attempt: int) -> dict[int, Record | None]:
        """Return the record of every rank that has a folder.

        Raises ``OSError`` if it cannot be read, ``ValueError`` if it is not valid.
        """
        found = {int(rank.name): record.read(rank) for rank in self._ranks(id, attempt)}
        for one in found.values():
            if one is not None and (one.id, one.attempt) != (id, attempt):
                raise ValueError(f"the record of {one.id}-{one.attempt} is in the folder of {id}-{attempt}")
        return found

    def _ranks(self, id: str, attempt: int) -> list[Path]:
        """Return the folders of the ranks, in their order."""
        try:
            found = [entry for entry in self.folder(id, attempt).iterdir() if _is_number(entry.name)]
        except FileNotFoundError:
            return []
        return sorted(found, key=lambda entry: int(entry.name))

    def look(self, id: str, attempt: int) -> ServerSight:
        """Return what records and processes show of an attempt.

        Raises ``OSError`` if its records cannot be read, ``ValueError`` if processes run whose record is not
        valid.
        """
        every_rank = f"{id}/{attempt}"
        try:
            records = self.records(id, attempt)
        except ValueError as error:
            if processes.marked(every_rank):
                raise
            return ServerSight(id, attempt, Presence.ABSENT, complete=False, detail=str(error))
        running = {rank: found for rank, found in records.items() if found is not None and alive(found)}
        gone = records.keys() - running.keys()
        # A launcher is starting, or a killed launcher left these processes behind.
        left = set(processes.marked(every_rank).values()) if gone or not records else set()
        reasons = [f.exit.reason for f in records.values() if f is not None and f.exit is not None]
        head = records.get(0)
        outage = head is not None and (
            head.boot != record.boot_id() if head.exit is None else head.exit.with_hub
        )
        absent = not running and not left
        detail = "; ".join(dict.fromkeys(reasons))
        if absent and records:
            detail = detail or "the server was killed"
        markers = {record.marker(id, attempt, rank) for rank in gone}
        return ServerSight(
            id,
            attempt,
            Presence.ABSENT if absent else Presence.PRESENT,
            complete=not absent and len(records) > 0 and left >= markers,
            detail=detail,
            user_stopped=head is not None and head.exit is not None and head.exit.by_user,
            outage=absent and outage,
            jupyter=(HOST, port) if 0 in running and (port := running[0].jupyter_port) else None,
            sshd={rank: (HOST, found.sshd_port) for rank, found in sorted(running.items())},
        )

    def unrecorded(self) -> dict[tuple[str, int], int]:
        """Return, by attempt, the pids of launchers that run from this folder but have no record in it.

        Such launchers exist if the folder was replaced with an older copy.
        """
        found = {}
        for pid, words in processes.command_lines():
            if _LAUNCHER in words[:-1]:
                rank = Path(words[words.index(_LAUNCHER) + 1])
                reservation, _, attempt = rank.parent.name.rpartition("-")
                ours = rank.parent.parent == self.root and _is_number(attempt)
                if ours and processes.start_time(pid) is not None and not (rank / "record.json").exists():
                    found[reservation, int(attempt)] = pid
        return found

    async def end(self, id: str, attempt: int, *, with_hub: bool = False) -> bool:
        """End all ranks and wait until they are gone. Returns false if a process survives SIGKILL.

        ``with_hub`` says that the hub on this machine is being shut down, too.
        """
        try:
            records = self.records(id, attempt)
        except ValueError:
            records = {}  # the processes can still be found by their markers
        running = [found for found in records.values() if found is not None and alive(found)]
        # A suspended launcher (SIGSTOP) must continue, so that it can end its processes.
        how = signal.SIGUSR1 if with_hub else signal.SIGTERM
        processes.send([found.pid for found in running], how, signal.SIGCONT)
        await asyncio.gather(*(wait_for_end(found.pid, found.start_time, GRACE + 5) for found in running))
        gone = await self._kill_left(f"{id}/{attempt}")
        if gone:
            for rank in self._ranks(id, attempt):
                clear_private(rank)
        return gone

    async def _kill_left(self, marker: str) -> bool:
        for _ in range(100):
            left = processes.marked(marker)
            if not left:
                return True
            processes.send(left, signal.SIGKILL)
            await asyncio.sleep(0.05)
        return False

    async def sweep(self, id: str, attempt: int) -> None:
        """Clean up after launchers that were killed. Ranks that run are not touched."""
        try:
            records = self.records(id, attempt)
        except (OSError, ValueError):
            return  # the launchers of this attempt may still run
        for rank, found in records.items():
            killed = found is not None and found.exit is None and not alive(found)
            if killed and await self._kill_left(record.marker(id, attempt, rank)):
                clear_private(self.folder(id, attempt) / str(rank))

    def prune(self, held: Collection[tuple[str, int]]) -> None:
        """Delete the folders of attempts that hold no slots, except the latest folders.

        Private folders of servers that never started are deleted, too.
        """
        over = [attempt for attempt in self.attempts() if attempt not in held]
        for attempt in over:
            prepared = [rank for rank in self._ranks(*attempt) if (rank / record.PRIVATE).exists()]
            if prepared and not processes.marked(f"{attempt[0]}/{attempt[1]}"):
                for rank in prepared:
                    clear_private(rank)
        ended = [self.folder(*attempt) for attempt in over]
        ended.sort(key=lambda folder: folder.stat().st_mtime, reverse=True)
        for folder in ended[_KEPT:]:
            shutil.rmtree(folder, ignore_errors=True)
