"""Failures of the Hub's database (a full disk, a lost connection), which JupyterHub does not handle.

It answers 403, as if a token were wrong, when it cannot write that the token was used, and 500 to a start.
A server whose stop it cannot write stays "pending stop" for ever.
"""

from __future__ import annotations

import logging
from typing import Any

from jupyterhub.handlers.base import BaseHandler
from jupyterhub.user import User
from sqlalchemy.exc import SQLAlchemyError
from tornado.web import HTTPError

log = logging.getLogger(__name__)


class DatabaseFails(HTTPError):
    """Nothing is known about the caller, and nothing was changed: the request can be repeated."""

    def __init__(self, error: Exception) -> None:
        super().__init__(503, "%s", error)
        self.jupyterhub_message = "The Hub's database does not work now. Try again in a few seconds."
        self.headers = {"Retry-After": "5"}


def survive_failures() -> None:
    """Make the JupyterHub of this process answer 503, and continue once the database works again."""
    BaseHandler.prepare = _prepare
    BaseHandler._handle_request_exception = _handle_request_exception
    User.stop = _stop


_hubs_prepare = BaseHandler.prepare
_hubs_handle_request_exception = BaseHandler._handle_request_exception
_hubs_stop = User.stop


async def _prepare(self: Any) -> None:
    """Find out who asks. If that fails, JupyterHub would treat the request as anonymous."""
    self.expanded_scopes = set()
    try:
        await self.get_current_user()
    except SQLAlchemyError as error:
        self._jupyterhub_user = None
        self._resolve_roles_and_scopes()
        raise _failed(self, error) from error
    except Exception:
        # JupyterHub asks once more, and handles the error; it must check the user's access again, too.
        del self._jupyterhub_user
        vars(self).pop("_refreshed_users", None)
    await _hubs_prepare(self)


def _handle_request_exception(self: Any, error: BaseException) -> None:
    if isinstance(error, SQLAlchemyError):
        error = _failed(self, error)
    _hubs_handle_request_exception(self, error)


def _failed(handler: Any, error: SQLAlchemyError) -> DatabaseFails:
    handler.db.rollback()
    cause = getattr(error, "orig", None) or error
    log.error("the Hub's database failed: %s", cause)
    return DatabaseFails(cause)


async def _stop(self: Any, server_name: str = "") -> None:
    spawner = self.spawners[server_name]
    try:
        await _hubs_stop(self, server_name)
    except Exception:
        self.db.rollback()
        spawner._stop_pending = False
        raise
