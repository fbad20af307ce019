"""Starts that are stopped while somebody waits for them, which JupyterHub answers with 500."""

from __future__ import annotations

import asyncio
from typing import Any

from jupyterhub.handlers.base import BaseHandler
from tornado.web import HTTPError

from .names import asked_by_service

_hubs_spawn_single_user = BaseHandler.spawn_single_user


def answer_interrupted_starts() -> None:
    """Make the JupyterHub of this process answer 409 with a message.

    The reservation service still gets JupyterHub's answer: after a 409 it would try again at once.
    """
    BaseHandler.spawn_single_user = _spawn_single_user


async def _spawn_single_user(self: Any, user: Any, server_name: str = "", *more: Any, **named: Any) -> Any:
    try:
        return await _hubs_spawn_single_user(self, user, server_name, *more, **named)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if (task is not None and task.cancelling()) or asked_by_service(self):
            raise
        # The Hub cancels the start, and so the requests that wait for it.
        raise HTTPError(409, f"Server {server_name} was stopped while it started.") from None
