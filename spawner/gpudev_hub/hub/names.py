"""Names of servers: the Hub creates servers only for reservations."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

from jupyterhub.handlers.pages import SpawnHandler
from tornado.web import HTTPError

from gpudev_hub.core.gate import NameAsked
from gpudev_hub.core.ids import is_id
from gpudev_hub.settings import SERVICE

from .gated import Gated


def reservation_in(spawn_url: str) -> str:
    """Return the id in the address that a visitor came from, ``/user/NAME/ID/…``; empty if it has no id.

    ``spawn_url``: the link on JupyterHub's page about a server that does not run. JupyterHub treats addresses
    of servers that have ended as addresses of a default server.
    """
    came_from = parse_qs(urlsplit(spawn_url).query).get("next", [""])[0]
    found = urlsplit(came_from).path.partition("/user/")[2].split("/")
    return found[1] if len(found) > 1 and is_id(found[1]) else ""


def asked_by_service(handler: Any) -> bool:
    """Return whether the reservation service sent the request."""
    caller = handler.current_user
    return bool(caller.kind == "service" and caller.name == SERVICE)


async def check_name(handler: Any) -> int:
    """Refuse a name without a reservation, before the Hub creates a row for it in its database.

    This is ``JupyterHub.named_server_limit_per_user``, which the Hub awaits in every handler that may create
    a server. Raises ``HTTPError``; returns 0, which means that the number of servers is not limited.
    """
    user_name, server = (*handler.path_args, "", "")[:2]
    if not server or asked_by_service(handler):
        return 0
    user = handler.find_user(user_name)
    form = isinstance(handler, SpawnHandler)
    known = user.spawners.get(server)
    if known is not None and known.active:
        if known.pending == "stop" and not form:
            # The Hub would answer 400.
            raise HTTPError(409, f"Server {server} is stopping. Try again in a few seconds.")
        return 0
    spawner: type[Gated] = handler.settings["spawner_class"]
    asked = NameAsked(spawner.subject_of(user), server)
    await spawner.gate.check_name(asked, form=form)
    return 0
