"""The error of every setting that cannot be used."""

from __future__ import annotations


class SettingsError(Exception):
    """A setting that can't be used; the message names it and says what would do."""
