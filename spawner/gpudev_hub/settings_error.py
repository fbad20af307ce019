"""The error of settings that cannot be used."""

from __future__ import annotations


class SettingsError(Exception):
    """A setting cannot be used; the message names it and says what to do."""
