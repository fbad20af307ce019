"""Lengths of time as people write them. ``web/static/hours.js`` accepts the same formats."""

from __future__ import annotations

import re

EXAMPLES = "4, 0.5, 90m, 1:30, 1h30 or 2d"
"""For messages."""

_NUMBER = r"(?:[0-9]{1,9}(?:[.,][0-9]{0,9})?|[.,][0-9]{1,9})"
_GAP = "[ \t\u00a0\u202f]*"
_DAYS = rf"(?:({_NUMBER}){_GAP}(?:days?|d){_GAP})?"
_HOURS = rf"({_NUMBER}){_GAP}(?:hours?|hrs?|h){_GAP}"
_MINUTES = rf"(?:({_NUMBER}){_GAP}(?:minutes?|mins?|m){_GAP})?"
_SECONDS = rf"(?:({_NUMBER}){_GAP}(?:seconds?|secs?|s))?"

_PLAIN = re.compile(rf"-?{_NUMBER}")
_CLOCK = re.compile(r"()([0-9]{1,9}):([0-5][0-9])()")
_BARE_MINUTES = re.compile(rf"{_DAYS}{_HOURS}([0-5]?[0-9])()")
_UNITS = re.compile(rf"{_DAYS}(?:{_HOURS})?{_MINUTES}{_SECONDS}")


def read_hours(text: str) -> float | None:
    """Return hours from ``4``, ``0,5``, ``90m``, ``1:30``, ``1h30``, ``2d`` and similar; None for other text.

    A plain number may be negative, so that the service can name the problem.
    """
    text = text.strip(" \t\u00a0\u202f").lower()
    if _PLAIN.fullmatch(text):
        return _number(text)
    found = _CLOCK.fullmatch(text) or _BARE_MINUTES.fullmatch(text) or _UNITS.fullmatch(text)
    if not text or found is None:
        return None
    days, hours, minutes, seconds = (_number(part) if part else 0.0 for part in found.groups())
    return days * 24 + hours + minutes / 60 + seconds / 3600


def _number(text: str) -> float:
    return float(text.replace(",", "."))
