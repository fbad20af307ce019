"""Tokens in the keyring of the system, if it has a usable one (extra ``keyring``).

A keyring is used only if its program answers at once, and never if it writes plain text.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from gpudev.errors import NotLoggedIn

SERVICE = "gpudev"
ANSWER = 1.0
"""Seconds in which a keyring must answer to be used for a new token."""
UNLOCK = 60.0
"""Seconds to wait for a token that is in a keyring, which may ask its user to unlock it."""
_UNUSABLE = ("keyring.backends.fail", "keyring.backends.null", "keyring.backends.chainer", "keyrings.alt")
"""Modules of keyrings that keep nothing, that only pass on, or that write plain text."""

T = TypeVar("T")


def put(entry: str, token: str) -> bool:
    """Save a token and return True; False if this machine has no usable keyring."""

    def save(backend: Any) -> bool:
        backend.set_password(SERVICE, entry, token)
        return bool(backend.get_password(SERVICE, entry) == token)

    return _within(ANSWER, save) is True


def get(entry: str) -> str:
    """Return the token of `entry`. Raises `NotLoggedIn` if the keyring does not give it."""
    token: str | None = _within(UNLOCK, lambda backend: backend.get_password(SERVICE, entry))
    if not token:
        raise NotLoggedIn(
            "The keyring of this machine does not return the token.",
            hint="Unlock the keyring and try again, or log in again with: gpu-dev login",
        )
    return token


def delete(entry: str) -> None:
    """Delete the token of `entry`, if it is there."""

    def remove(backend: Any) -> None:
        if backend.get_password(SERVICE, entry) is not None:
            backend.delete_password(SERVICE, entry)

    _within(ANSWER, remove)


def _backend() -> Any:
    """Return the first usable keyring, or None."""
    try:
        import keyring
    except ImportError:
        return None
    chosen = keyring.get_keyring()
    candidates = getattr(chosen, "backends", None) or [chosen]
    return next((found for found in candidates if not type(found).__module__.startswith(_UNUSABLE)), None)


def _within(seconds: float, work: Callable[[Any], T]) -> T | None:
    """Return what `work` returns for the keyring; None if it fails, takes longer, or there is no keyring."""
    results: queue.SimpleQueue[T] = queue.SimpleQueue()

    def run() -> None:
        with suppress(Exception):  # each keyring has errors of its own
            if (backend := _backend()) is not None:
                results.put(work(backend))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return None if results.empty() else results.get()
