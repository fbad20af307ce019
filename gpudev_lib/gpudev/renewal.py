"""Renewal of the stored token while it is good, also when several programs use it at once."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timedelta

import httpx

from gpudev import clock, config
from gpudev.errors import GpuDevError
from gpudev.login_api import LoginApi

PART = 3
"""A token is renewed when less than this part (a third) of its life is left."""
PAUSE = timedelta(hours=1)
"""Time between two attempts."""


def due(created_at: str | None, expires_at: str | None, now: datetime) -> bool:
    """Return whether a token with these times should be renewed. One without an expiry never is."""
    try:
        created, expires = (datetime.fromisoformat(at or "") for at in (created_at, expires_at))
        return now < expires and (expires - now) * PART < expires - created
    except (ValueError, TypeError):  # no time, or one without a zone
        return False


class StoredToken:
    """The token in the configuration, as one program uses it. Safe to use from several threads."""

    def __init__(self, settings: config.Settings, transport: httpx.BaseTransport | None = None) -> None:
        self._settings = settings
        self._transport = transport
        self._lock = threading.Lock()
        self._not_before: datetime | None = None

    def newer(self, token: str) -> str | None:
        """Return the stored token if another program has replaced `token`, else None."""
        try:
            stored = config.resolve(self._settings.url)
        except GpuDevError:
            return None
        return stored.token if stored.stored and stored.token != token else None

    def renewed(self, token: str) -> str | None:
        """Return a successor of `token` if it is time for one, else None. Errors are left for later."""
        now = clock.now()
        if self._settings.last or not due(self._settings.created_at, self._settings.expires_at, now):
            return None
        if not self._lock.acquire(blocking=False):
            return None
        try:
            if self._not_before is not None and now < self._not_before:
                return None
            self._not_before = now + PAUSE
            with suppress(GpuDevError, OSError), _alone() as alone:
                return self._renew(token) if alone else None
        finally:
            self._lock.release()
        return None

    def _renew(self, token: str) -> str | None:
        stored = config.resolve(self._settings.url)
        if not stored.stored:
            return None
        if stored.token != token:
            self._settings = stored
            return stored.token
        with closing(LoginApi(stored.url, token, patience=0.0, transport=self._transport)) as api:
            successor = api.renew()
            if successor.token is None:
                config.note_token_times(
                    stored.url, successor.created_at, successor.expires_at, last=successor.last
                )
                return None
            config.save_token(
                stored.url,
                successor.token,
                created_at=successor.created_at,
                expires_at=successor.expires_at,
                last=successor.last,
            )
            # The successor is saved, so the old token can go. If this fails, it expires by itself.
            with suppress(GpuDevError):
                api.delete_token()
        self._settings = config.resolve(self._settings.url)
        return successor.token


@contextmanager
def _alone() -> Iterator[bool]:
    """Yield whether this is the only program that renews the token of the configuration file now.

    The lock is on the file itself. A renewal replaces the file, and whoever waited reads the new one.
    """
    file = os.open(config.path(), os.O_RDONLY)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(file)
