"""Which processes belong to a server, read from ``/proc``; used inside servers and by who watches them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from pathlib import Path

from .record import MARKER


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command's name stands in parentheses and may hold anything, parentheses too.
    return text[text.rindex(")") + 2 :].split()


def start_time(pid: int) -> int | None:
    """Field 22 of ``/proc/PID/stat``; ``None`` if there is no such process, or nothing but its exit code."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in "ZX" else int(fields[19])


def parent(pid: int) -> int | None:
    """The parent of a living process."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in "ZX" else int(fields[1])


def _everyone() -> Iterable[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _living() -> dict[int, int]:
    """Parent of every living process."""
    return {pid: above for pid in _everyone() if (above := parent(pid)) is not None}


def marked(prefix: str) -> dict[int, str]:
    """Processes whose environment names a server starting with ``prefix``, with the whole marker."""
    wanted = f"{MARKER}={prefix}".encode()
    found: dict[int, str] = {}
    for pid in _everyone():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue  # gone, or of another account and so not ours
        for line in environment.split(b"\0"):
            if line.startswith(wanted):
                if start_time(pid) is not None:
                    found[pid] = line.split(b"=", 1)[1].decode(errors="replace")
                break
    return found


def descendants(root: int) -> set[int]:
    """All living processes below ``root``."""
    children: dict[int, list[int]] = {}
    for pid, parent in _living().items():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    new = [root]
    while new:
        below = [pid for parent in new for pid in children.get(parent, ()) if pid not in found]
        found.update(below)
        new = below
    return found


def is_sshd(pid: int) -> bool:
    """Whether this is sshd itself (listener or a connection), not something that runs in a session."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith((b"sshd", b"/usr/sbin/sshd"))
    except OSError:
        return False


def caught(pid: int) -> set[signal.Signals]:
    """Which of SIGHUP and SIGTERM a process has a handler for."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return set()
    mask = next((int(line[7:], 16) for line in status.splitlines() if line.startswith("SigCgt:")), 0)
    return {number for number in (signal.SIGHUP, signal.SIGTERM) if mask >> (number - 1) & 1}


def farewell(handled: set[signal.Signals]) -> tuple[signal.Signals, ...]:
    """What asks a process to end, by the signals it handles.

    A program that saves its work at one of them must not be killed by the other. For one that handles both,
    SIGHUP may mean no more than to read its settings again.
    """
    if signal.SIGTERM in handled:
        return (signal.SIGTERM,)
    if signal.SIGHUP in handled:
        return (signal.SIGHUP,)
    return (signal.SIGHUP, signal.SIGTERM)


def send(pids: Iterable[int], *signals: signal.Signals) -> set[int]:
    """Signal them all; who is gone already is no error. Returns those that are of another account."""
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
