"""Standard streams that are closed or full, or whose encoding lacks characters."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import Any

from gpudev.words import LIKE

_REPLACE = "gpudev-like"


def prepare() -> None:
    """Make the standard streams usable for the whole process.

    Closed streams are replaced by ``/dev/null``. Errors of standard error are ignored, because the result is
    not written there. Characters that the encoding lacks are replaced by similar ones.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
    codecs.register_error(_REPLACE, _like)
    # A closed stream is None.
    sys.stdin = getattr(sys, "stdin", None) or os.fdopen(0, closefd=False)
    sys.stdout = getattr(sys, "stdout", None) or os.fdopen(1, "w", closefd=False)
    encoding = getattr(sys.stderr, "encoding", "utf-8")
    sys.stderr = io.TextIOWrapper(_Unfailing(2, "w", closefd=False), encoding, _REPLACE, write_through=True)
    if isinstance(sys.stdin, io.TextIOWrapper) and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8")
        sys.stdout.reconfigure(errors=_REPLACE)


def give_up() -> None:
    """Discard all further output to standard output, which cannot be written."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


class _Unfailing(io.FileIO):
    def write(self, data: Any, /) -> int:
        """Write what can be written, and report everything as written."""
        try:
            return super().write(data) or 0
        except OSError:
            return len(data)


def _like(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(LIKE.get(letter, "?") for letter in lacking), error.end
