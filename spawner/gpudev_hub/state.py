"""Locks and tests the state folder before anything starts in it, and chooses the ports of this machine."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import socket
from contextlib import ExitStack
from pathlib import Path

import msgspec

from .locks import Held, take_lock
from .server import private
from .settings import LOOPBACK, Ports, Settings, SettingsError

INTERNAL = range(12_000, 20_000)
"""Ports behind the proxy. They are below the ports of servers (``hub/local.py``) and outgoing connections."""
_PROBE = 1 << 20
"""Bytes that must be free on the disk before a start."""


class StateUnusable(Exception):
    """The state folder cannot be used; the message says why and what to do."""


class StateInUse(StateUnusable):
    """Another hub uses the state folder."""


class StateFolder:
    """The locked state folder. ``close`` removes a folder that was created for a refused start."""

    def __init__(self, settings: Settings) -> None:
        """Create the folder if necessary, and lock it. Raises ``StateInUse`` or ``StateUnusable``."""
        self._settings = settings
        folder, lock = settings.state, settings.state / "lock"
        self._made = [path for path in (lock, folder, *folder.parents) if not path.exists()]
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = take_lock(lock)
        except Held as held:
            raise StateInUse(
                f"another gpudev-hub (process {held.holder or 'unknown'}) uses {folder}: "
                "stop it, or set GPUDEV_STATE to another folder"
            ) from None
        except OSError as error:
            raise StateUnusable(_unusable(folder, error)) from error

    def furnish(self) -> None:
        """Create the folders in the state folder. Raises ``StateUnusable``."""
        settings, folder = self._settings, self._settings.state
        try:
            folder.chmod(0o700)
            _try_disk(folder)
            for part in (settings.servers, settings.logs, settings.hub, folder / "homes", folder / "envs"):
                part.mkdir(mode=0o700, exist_ok=True)
            for path in (*folder.iterdir(), *settings.hub.iterdir(), *settings.logs.iterdir()):
                if path.is_file() and not path.is_symlink():
                    # Earlier versions left some files readable, inside the closed folder.
                    path.chmod(path.stat().st_mode & 0o700)
        except OSError as error:
            raise StateUnusable(_unusable(folder, error)) from error
        self._made = []

    def close(self) -> None:
        """Unlock the folder, and remove everything that was created for a refused start."""
        for path in self._made:
            try:
                path.rmdir() if path.is_dir() else path.unlink()
            except OSError:
                break  # not empty
        os.close(self._lock)


def _try_disk(folder: Path) -> None:
    probe = folder / ".probe"
    try:
        with probe.open("wb") as file:
            file.write(b"\0" * _PROBE)
            file.flush()
            os.fsync(file.fileno())
    finally:
        probe.unlink(missing_ok=True)


def _unusable(folder: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk that holds {folder} is full ({error.strerror}): free some space. Nothing was changed"
        )
    return f"{folder} cannot be written to ({error.strerror}): set GPUDEV_STATE to another folder"


def port_free(port: int) -> bool:
    """Return whether a server could listen on this loopback port now."""
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((LOOPBACK, port))
            candidate.listen(1)
        except OSError:
            return False
    return True


async def listens(host: str, port: int) -> bool:
    """Return whether a connection to an address is accepted."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


def hold_port(port: int, held: ExitStack, *, again: bool = False) -> bool:
    """Keep other hubs from choosing a port until ``held`` is closed; return false if it is not free.

    A part can bind the port meanwhile, because servers set ``SO_REUSEADDR``. ``again``: the port may have
    connections of an earlier run that are still being closed.
    """
    candidate = socket.socket()
    try:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(again))
        candidate.bind((LOOPBACK, port))
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    except OSError:
        candidate.close()
        return False
    held.enter_context(candidate)
    return True


def choose_ports(settings: Settings, held: ExitStack) -> Ports:
    """Return the ports behind the proxy, and hold them. Earlier ports, which servers use, stay if free."""
    try:
        before = msgspec.structs.asdict(settings.ports())
    except SettingsError:  # no earlier ports are known, so choose any
        before = {}
    chosen: dict[str, int] = {}
    for part in Ports.__struct_fields__:
        taken = {settings.port, *chosen.values()}
        earlier = before.get(part)
        if earlier and earlier not in taken and port_free(earlier) and hold_port(earlier, held, again=True):
            chosen[part] = earlier
        else:
            candidates = (port for port in random.sample(INTERNAL, len(INTERNAL)) if port not in taken)
            chosen[part] = next(port for port in candidates if hold_port(port, held))
    ports = Ports(**chosen)
    private.write(settings.state / "ports.json", msgspec.json.encode(ports))
    return ports
