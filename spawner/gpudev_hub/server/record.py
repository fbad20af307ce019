"""What a server leaves on disk for those who look at it: one record per rank, written by its launcher.

The folder of a rank is ``servers/<id>-<attempt>/<rank>/`` in the state folder:

``record.json``   who runs here (this module); the last version names the exit
``logs/``         ``jupyter.log``, ``sshd.log``, ``agent.log`` and ``launcher.log``, at most 2 MiB each
``private/``      what the server needs and nobody else may read; gone when the server is gone
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MARKER = "GPUDEV_SERVER"
"""Environment variable of every process of a server: ``<id>/<attempt>/<rank>``."""

TOLD = "it was told to end"
"""The reason of one that got SIGTERM."""

PRIVATE = "private"
LOGS = "logs"
_RECORD = "record.json"


@dataclass(frozen=True, slots=True)
class Exit:
    """How a server ended."""

    code: int
    """Jupyter's exit code, negative for a signal; 0 for a server that was told to end."""
    reason: str
    """In words."""
    by_user: bool = False
    """True: its user shut it down from inside (Lab's "Shut Down")."""
    with_hub: bool = False
    """True: it ended because the hub on this machine was shut down."""


@dataclass(frozen=True, slots=True)
class Record:
    """One rank of one attempt."""

    id: str
    attempt: int
    rank: int
    pid: int
    """The launcher's."""
    start_time: int
    """Field 22 of ``/proc/PID/stat``: with the pid it names one process for ever (until a reboot)."""
    boot: str
    """``/proc/sys/kernel/random/boot_id``: the record of an earlier boot names nobody."""
    node: str
    slots: tuple[int, ...]
    jupyter_port: int | None
    """``None`` on every rank but 0."""
    sshd_port: int
    exit: Exit | None = None
    """``None`` while it runs, and for ever after a launcher that was killed."""


def marker(id: str, attempt: int, rank: int) -> str:
    """Value of ``MARKER`` for a rank."""
    return f"{id}/{attempt}/{rank}"


def boot_id() -> str:
    """Names this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def write_private(path: Path, data: str) -> None:
    """Replace ``path`` in one step by a file only its owner can read."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(data)
    temporary.replace(path)


def write(folder: Path, record: Record) -> None:
    """Replace the record of a rank, in one step."""
    write_private(folder / _RECORD, json.dumps(asdict(record), indent=1))


def read(folder: Path) -> Record | None:
    """The record of a rank; ``None`` when it has none.

    Raises ``OSError`` when that can't be told, ``ValueError`` for one that makes no sense.
    """
    path = folder / _RECORD
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    try:
        fields: dict[str, Any] = json.loads(text)
        ended = fields.pop("exit")
        slots = tuple(fields.pop("slots"))
        return Record(**fields, slots=slots, exit=None if ended is None else Exit(**ended))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no record: {error}") from error
