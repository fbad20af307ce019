"""The record of a server on disk: one per rank, written by its launcher.

The folder of a rank is ``servers/<id>-<attempt>/<rank>/`` in the state folder:

``record.json``   the process that runs here (this module); the last version has the exit
``logs/``         ``jupyter.log``, ``sshd.log``, ``agent.log`` and ``launcher.log``, at most 2 MiB each
``private/``      private files of the server; removed when the server ends
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import private

MARKER = "GPUDEV_SERVER"
"""Environment variable of every process of a server: ``<id>/<attempt>/<rank>``."""

TOLD = "it was asked to stop"
"""The reason after SIGTERM."""

PRIVATE = "private"
LOGS = "logs"
_RECORD = "record.json"


@dataclass(frozen=True, slots=True)
class Exit:
    """How a server ended."""

    code: int
    """Exit code of Jupyter, negative for a signal; 0 for a server that was asked to stop."""
    reason: str
    """Why the server ended, for people to read."""
    by_user: bool = False
    """Whether the user shut the server down from inside (JupyterLab's "Shut Down")."""
    with_hub: bool = False
    """Whether the server ended because the hub on this machine was shut down."""


@dataclass(frozen=True, slots=True)
class Record:
    """One rank of one attempt."""

    id: str
    attempt: int
    rank: int
    pid: int
    """Process id of the launcher."""
    start_time: int
    """Field 22 of ``/proc/PID/stat``. With the pid, it identifies one process until a reboot."""
    boot: str
    """``/proc/sys/kernel/random/boot_id``. A record of an earlier boot is not valid."""
    node: str
    slots: tuple[int, ...]
    jupyter_port: int | None
    """``None`` on every rank except 0."""
    sshd_port: int
    exit: Exit | None = None
    """``None`` while the rank runs, and if its launcher was killed."""


def marker(id: str, attempt: int, rank: int) -> str:
    """Return the value of ``MARKER`` for a rank."""
    return f"{id}/{attempt}/{rank}"


def boot_id() -> str:
    """Return the id of this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def write(folder: Path, record: Record) -> None:
    """Replace the record of a rank atomically."""
    private.write(folder / _RECORD, json.dumps(asdict(record), indent=1))


def read(folder: Path) -> Record | None:
    """Return the record of a rank; ``None`` if there is none.

    Raises ``OSError`` if it cannot be read, and ``ValueError`` if it is not valid.
    """
    path = folder / _RECORD
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    except IsADirectoryError as error:
        raise ValueError(f"{path} is a folder, not a record") from error
    try:
        fields: dict[str, Any] = json.loads(text)
        ended = fields.pop("exit")
        slots = tuple(fields.pop("slots"))
        return Record(**fields, slots=slots, exit=None if ended is None else Exit(**ended))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a valid record: {error}") from error
