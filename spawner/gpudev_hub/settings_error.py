"""The error of settings that cannot be used."""

from __future__ import annotations


class SettingsError(Exception):
    """A setting cannot be used; the message names it and says what to do."""


def cause(error: Exception) -> str:
    """Return the text of an error for a message that names the file: without its number and file name."""
    return str((isinstance(error, OSError) and error.strerror) or error)
