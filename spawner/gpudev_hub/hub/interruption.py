"""A start that is stopped or removed while somebody waits for it, which JupyterHub answers with 500."""

from __future__ import annotations

import asyncio
from typing import Any

from jupyterhub.handlers.base import BaseHandler
from tornado.web import HTTPError

from .names import asked_by_service

_hubs_spawn_single_user = BaseHandler.spawn_single_user


def answer_interrupted_starts() -> None:
    """Have this process's JupyterHub answer 409 then, in words.

    Except to the reservation service, which knows a start that was broken off by JupyterHub's own answer and
    would try again at once after a 409.
    """
    BaseHandler.spawn_single_user = _spawn_single_user


async def _spawn_single_user(self: Any, user: Any, server_name: str = "", *more: Any, **named: Any) -> Any:
    try:
        return await _hubs_spawn_single_user(self, user, server_name, *more, **named)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if (task is not None and task.cancelling()) or asked_by_service(self):
            raise
        # The Hub cancels the start, and with it whoever waits for it.
        raise HTTPError(409, f"Server {server_name} was stopped while it started.") from None
