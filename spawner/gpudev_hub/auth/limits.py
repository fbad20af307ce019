"""GitHub's rate limits: which refusals mean one, and how long to send no request."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from gpudev_hub.core.model import HOUR, MINUTE, SECOND, Millis

_WORDS = ("rate limit", "abuse detection")


def pause_for(
    status: int, headers: Mapping[str, str], message: str, github_now: Millis, earlier: int
) -> tuple[Millis, str] | None:
    """Return how long to send no request, and the reason; ``None`` if an answer does not mean a rate limit.

    ``github_now``: GitHub's time, as its reset times are; ``earlier``: pauses since the last good answer.
    """
    if status not in (403, 429):
        return None
    after = _number(headers.get("retry-after"))
    if after is not None:
        return min(after * SECOND, HOUR), f"a rate limit of GitHub (retry after {after} s)"
    reset = _number(headers.get("x-ratelimit-reset"))
    if headers.get("x-ratelimit-remaining") == "0" and reset is not None:
        limit = headers.get("x-ratelimit-limit", "?")
        left = max(SECOND, reset * SECOND - github_now)
        return min(left, HOUR), f"the hourly rate limit of GitHub ({limit} requests)"
    if status == 429 or any(word in message.lower() for word in _WORDS):
        return min(MINUTE << min(earlier, 6), HOUR), "a secondary rate limit of GitHub"
    return None


def server_time(headers: Mapping[str, str]) -> Millis | None:
    """Return the ``Date`` of an answer; ``None`` if it is missing or not valid."""
    try:
        return round(parsedate_to_datetime(headers["date"]).timestamp() * SECOND)
    except (KeyError, ValueError):
        return None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdecimal() else None
