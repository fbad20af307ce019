"""Processes of a server, read from ``/proc``. Used inside servers and by the hub."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from pathlib import Path

from .record import MARKER


def stat(pid: int) -> list[str] | None:
    """Return the fields of ``/proc/PID/stat`` from field 3 (state) on; ``None`` if the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name is in parentheses and may contain any character, including parentheses.
    return text[text.rindex(")") + 2 :].split()


def start_time(pid: int) -> int | None:
    """Return field 22 of ``/proc/PID/stat``; ``None`` if the process does not exist or is a zombie."""
    fields = stat(pid)
    return None if fields is None or fields[0] in "ZX" else int(fields[19])


def parent(pid: int) -> int | None:
    """Return the parent of a process; ``None`` if the process does not exist or is a zombie."""
    fields = stat(pid)
    return None if fields is None or fields[0] in "ZX" else int(fields[1])


def everyone() -> Iterable[int]:
    """Yield the ids of all processes."""
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def marked(marker: str) -> dict[int, str]:
    """Return processes of a rank, and their markers.

    ``marker`` without a rank stands for all ranks of an attempt, and an id alone for all attempts.
    """
    wanted = f"{MARKER}={marker}/".encode()
    found: dict[int, str] = {}
    for pid in everyone():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue  # the process has ended, or belongs to another account
        for line in environment.split(b"\0"):
            if (line + b"/").startswith(wanted):  # of rank 1, and not of rank 10
                if start_time(pid) is not None:
                    found[pid] = line.split(b"=", 1)[1].decode(errors="replace")
                break
    return found


def command_lines() -> Iterable[tuple[int, list[str]]]:
    """Yield each process that has arguments, with them."""
    for pid in everyone():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
        except OSError:
            continue  # the process has ended
        if words:
            yield pid, words


def descendants(root: int) -> set[int]:
    """Return all running descendants of ``root``."""
    children: dict[int, list[int]] = {}
    for pid in everyone():
        if (above := parent(pid)) is not None:
            children.setdefault(above, []).append(pid)
    found: set[int] = set()
    new = [root]
    while new:
        below = set(children.get(new.pop(), ())) - found
        found |= below
        new += below
    return found


def is_sshd(pid: int) -> bool:
    """Return whether the process is sshd itself (listener or connection), not a process in a session."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith((b"sshd", b"/usr/sbin/sshd"))
    except OSError:
        return False


def caught(pid: int) -> set[signal.Signals]:
    """Return those of SIGHUP and SIGTERM that the process handles."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return set()
    mask = next((int(line[7:], 16) for line in status.splitlines() if line.startswith("SigCgt:")), 0)
    return {number for number in (signal.SIGHUP, signal.SIGTERM) if mask >> (number - 1) & 1}


def farewell(handled: set[signal.Signals]) -> tuple[signal.Signals, ...]:
    """Return the signals that ask a process to end, from the signals that it handles.

    A program that saves its work on one of them must not be killed by the other. A program that handles both
    gets SIGTERM, because its SIGHUP may only reload settings. A program that handles neither gets both.
    """
    if signal.SIGTERM in handled:
        return (signal.SIGTERM,)
    if signal.SIGHUP in handled:
        return (signal.SIGHUP,)
    return (signal.SIGHUP, signal.SIGTERM)


def send(pids: Iterable[int], *signals: signal.Signals) -> set[int]:
    """Send signals to all processes; return those of other accounts, which cannot be signalled."""
    refused = set()
    for pid in pids:
        for number in signals:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                break
            except PermissionError:
                refused.add(pid)
                break
    return refused
