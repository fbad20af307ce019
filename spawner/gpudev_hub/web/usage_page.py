"""The usage page: a user's own usage, and for operators the usage of everyone."""

from __future__ import annotations

from datetime import date, timedelta
from urllib.parse import urlencode

from gpudev import wire
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.usage import today

from .page import Page
from .usage import DAYS, GROUPS, Range, report
from .usage_drawing import draw

HEADINGS: dict[wire.UsageBy, str] = {
    "day": "Day (UTC)",
    "person": "Person",
    "team": "Team",
    "pool": "Pool",
    "size": "Size",
}


class UsagePage(Page):
    """``/usage``: a chart by day, and a table by day, person, team, pool or size."""

    here = "usage"

    async def get(self) -> None:
        """``by``, ``since``, ``until`` and ``owner`` as in the API."""
        now = today(self.site.service.clock.now())
        error: Refused | None = None
        owner: wire.UsageOwner
        try:
            by, days = self._by(), Range.of(self._day("since"), self._day("until"), now)
            owner = "all" if self.get_argument("owner", "me") == "all" else "me"
            shown = report(self.site.service, self.person, by, days, owner)
        except Refused as refused:
            error, by, days, owner = refused, "day", Range.of(None, None, now), "me"
            shown = report(self.site.service, self.person, by, days, owner)
        by_day = shown if by == "day" else report(self.site.service, self.person, "day", days, owner)
        query = {"owner": owner, "since": shown.since, "until": shown.until}
        self.show(
            "usage.html",
            200 if error is None else 403 if error.code is Code.FORBIDDEN else 400,
            error=error,
            usage=shown,
            chart=draw(by_day),
            heading=HEADINGS[by],
            headings=HEADINGS,
            most=max((row.gpu_hours_held for row in shown.rows), default=0.0),
            csv=f"{self.root}{wire.API}/usage.csv?{urlencode({'by': by, **query})}",
            ranges=[
                (words, f"?{urlencode({'by': by, 'owner': owner, 'since': first, 'until': last})}")
                for words, first, last in _ranges(now)
            ],
        )

    def _by(self) -> wire.UsageBy:
        given = self.get_argument("by", "day")
        for by in GROUPS:
            if by == given:
                return by
        raise Refused(
            Code.INVALID_REQUEST,
            f"Usage cannot be grouped by {given[:20]!r}.",
            f"Use one of: {', '.join(GROUPS)}.",
        )

    def _day(self, name: str) -> date | None:
        given = self.get_argument(name, "")
        if not given:
            return None
        try:
            return date.fromisoformat(given)
        except ValueError as error:
            raise Refused(
                Code.INVALID_REQUEST, f"{given[:20]!r} is not a day.", "Use a day like 2026-11-01."
            ) from error


def _ranges(now: date) -> list[tuple[str, date, date]]:
    """Return common ranges with their names."""
    month = now.replace(day=1)
    before = month - timedelta(days=1)
    return [
        (f"Last {DAYS} days", now - timedelta(days=DAYS - 1), now),
        ("This month", month, now),
        ("Last month", before.replace(day=1), before),
        ("Last 12 months", now - timedelta(days=364), now),
    ]
