"""JupyterLab of a server: who is a guest, and how the access of guests and of the owner ends.

JupyterHub's own extension asks the Hub whether a user may enter, caches the answer for a while, and does not
check open websockets again. The server's agent changes a file when a user has lost access. Then this module
empties the cache and closes the websockets of all guests. Pages of guests who still have access connect
again, others are refused. Websockets of the owner are closed if the file names the owner.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from tornado.websocket import WebSocketHandler

PERIOD = 1.0
"""Seconds between two checks of the file."""
LOST = 4403
"""Close code of the websockets."""


def is_owner(user: Any) -> bool:
    """Return whether an authenticated user of Jupyter is the owner of the server."""
    # Outside JupyterHub, everybody who gets in is the owner.
    of_hub = getattr(user, "hub_user", None)
    return of_hub is None or of_hub.get("name") == os.environ.get("JUPYTERHUB_USER")


def name_of(user: Any) -> str | None:
    """Return the Hub's name of an authenticated user of Jupyter; ``None`` outside JupyterHub."""
    of_hub = getattr(user, "hub_user", None)
    return None if of_hub is None else of_hub.get("name")


def follow(identity_provider: Any, file: Path) -> None:
    """Watch the file from now on, in a task of the running loop."""
    hub_auth = getattr(identity_provider, "hub_auth", None)
    if hub_auth is not None:
        hub_auth.gpudev_guests = asyncio.create_task(_follow(hub_auth, file))


async def _follow(hub_auth: Any, file: Path) -> None:
    known, before = _changed(file), _users(file)
    while True:
        await asyncio.sleep(PERIOD)
        now = _changed(file)
        if now != known:
            known, users = now, _users(file)
            end_sessions(hub_auth, {name for name, number in users.items() if number != before.get(name)})
            before = users


def _changed(file: Path) -> int | None:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return None


def _users(file: Path) -> dict[str, int]:
    """Return the users of the Hub who lost access to the server, each with the number of that change."""
    try:
        found: dict[str, int] = json.loads(file.read_text())["users"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found


def end_sessions(hub_auth: Any, users: Collection[str]) -> int:
    """Forget the Hub's answers about all users, and close the websockets of guests and of ``users``.

    Returns the number of closed websockets.
    """
    # A new cache: the old one has no way to forget everything.
    hub_auth.cache = type(hub_auth.cache)(hub_auth.cache_max_age)
    # Kernels, terminals, events and extensions each have websockets, and Jupyter has no list of all of them.
    sockets = [found for found in gc.get_objects() if issubclass(type(found), WebSocketHandler)]
    closed = 0
    for socket in sockets:
        user = getattr(socket, "current_user", None)
        if socket.ws_connection is not None and (not is_owner(user) or name_of(user) in users):
            socket.close(LOST, "You no longer have access to this server.")
            closed += 1
    return closed
