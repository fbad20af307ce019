"""Lists the SSH connections of a server with the person of each, and ends them.

sshd asks the script ``keys`` about each key that a client offers. The script writes ``sessions/PID``: the
start time of the connection's own sshd process, the fingerprint of the key and, once the service accepts the
key, the subject of the person. Sessions that share a connection (``ControlMaster``) end with the connection.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from . import processes

_SUBJECT = re.compile(r" subject=([^ ]+)")


@dataclass(frozen=True, slots=True)
class Session:
    """One live SSH connection."""

    pid: int
    started: int
    """Start time of the process; a later process with the same pid has another one."""
    fingerprint: str
    subject: str
    """Empty until the service has accepted the key."""

    def of(self, subject: str, fingerprints: Collection[str]) -> bool:
        """Return whether this is a connection of the person who has these keys."""
        return self.subject == subject if self.subject else self.fingerprint in fingerprints


def living(folder: Path) -> Iterator[Session]:
    """Yield live connections, and delete the records of ended ones."""
    for record in (folder / "sessions").iterdir():
        try:
            started, fingerprint, subject = record.read_text().split()
            known = "" if subject == "-" else unquote(subject)
            session = Session(int(record.name), int(started), fingerprint, known)
        except (OSError, ValueError):
            continue  # the record is being written
        if processes.start_time(session.pid) == session.started:
            yield session
        else:
            record.unlink(missing_ok=True)


def lets_in(lines: bytes, session: Session) -> bool:
    """Return whether the service's answer about a key still gives its person access."""
    found = _SUBJECT.findall(lines.decode(errors="replace"))
    return session.subject in map(unquote, found) if session.subject else bool(found)


def end(session: Session) -> bool:
    """End all processes of a connection; return whether it still existed.

    For a moment after a login, the second process would go on without the first one.
    """
    if processes.start_time(session.pid) != session.started:
        return False
    with suppress(ProcessLookupError):
        os.killpg(session.pid, signal.SIGTERM)
    return True
