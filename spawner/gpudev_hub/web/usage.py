"""Usage as JSON and CSV, for a range of days, an owner, and a kind of group."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, get_args

import msgspec

from gpudev import wire
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.model import HOUR
from gpudev_hub.core.usage import Sums, calendar_day, day_number
from gpudev_hub.core.views.usage import By, Group
from gpudev_hub.core.words import gpus
from gpudev_hub.service.service import Service
from gpudev_hub.times import rfc3339

from .auth import OPERATE, Identity

DAYS = 30
"""Days of an answer without ``since``."""
YEARS = (1970, 2999)
GROUPS: tuple[wire.UsageBy, ...] = get_args(wire.UsageBy)
COLUMNS = wire.UsageRow.__struct_fields__[2:]
"""Columns without key and label."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Spreadsheets treat cells that begin with one of these as formulas."""
NO_TEAM = "no team"


@dataclass(frozen=True, slots=True)
class Range:
    """The requested days, both included."""

    first: date
    last: date

    @classmethod
    def of(cls, since: date | None, until: date | None, now: date) -> Range:
        """Return the range. Raises ``Refused`` for years outside ``YEARS``, and if it is empty."""
        for day in (since, until):
            if day is not None and not YEARS[0] <= day.year <= YEARS[1]:
                raise Refused(
                    Code.INVALID_REQUEST,
                    f"There is no usage on {day.isoformat()}; the years are {YEARS[0]} to {YEARS[1]}.",
                    "Use a day like 2026-11-01.",
                )
        last = until or max(now, since or now)
        first = since or last - timedelta(days=DAYS - 1)
        if first > last:
            raise Refused(
                Code.INVALID_REQUEST,
                f"The range is empty: since is {first.isoformat()}, and until is {last.isoformat()}.",
                "Use a `since` that is not after `until`.",
            )
        return cls(first, last)


def report(
    service: Service, reader: Identity, by: wire.UsageBy, days: Range, owner: wire.UsageOwner
) -> wire.Usage:
    """Return the usage that the caller may see. Raises ``Refused``."""
    if owner == "all" and not reader.operator:
        raise Refused(
            Code.FORBIDDEN,
            f"Only operators can see the usage of all users; this token of {reader.owner.login} is not an "
            "operator token.",
            "To see your own usage, leave out --all (in the API, owner=all). Operators can make a token with "
            f"the permission Operator (scope {OPERATE}) on the Tokens page (URL/hub/token).",
        )
    subject = None if owner == "all" else reader.owner.subject
    first, last = day_number(days.first), day_number(days.last)
    found = service.usage.sums(By(by), first, last, subject)
    every = Sums()
    for sums in service.usage.sums(By.POOL, first, last, subject).values():
        every.add(sums)
    rows = [_row(service, by, group, sums) for group, sums in found.items()]
    if by == "day":
        rows.sort(key=lambda row: row.key)
    elif by == "size":
        rows.sort(key=lambda row: int(row.key))
    else:
        rows.sort(key=lambda row: (-row.gpu_hours_held, row.label, row.key))
    return wire.Usage(
        by=by,
        since=days.first.isoformat(),
        until=days.last.isoformat(),
        owner=owner,
        now=rfc3339(service.clock.now()),
        complete=service.usage.complete,
        rows=rows,
        total=_figures("total", "total", every),
    )


def _row(service: Service, by: wire.UsageBy, group: Group, sums: Sums) -> wire.UsageRow:
    key = calendar_day(int(group)).isoformat() if by == "day" else str(group)
    label = key
    if by == "size":
        label = gpus(int(group))
    elif by == "person":
        label = service.usage.login_of(key)
    elif by == "team":
        label = key or NO_TEAM
    elif by == "pool":
        label = next((p.label for p in service.policy.pools if p.name == key and p.label), key)
    return _figures(key, label, sums)


def _figures(key: str, label: str, sums: Sums) -> wire.UsageRow:
    return wire.UsageRow(
        key=key,
        label=label,
        requests=sums.requests,
        gpu_hours_reserved=_hours(sums.reserved),
        gpu_hours_held=_hours(sums.held),
        waits=sums.waits,
        wait_hours=_hours(sums.waited),
        longest_wait_hours=_hours(sums.longest_wait),
        starts=sums.starts,
        early_releases=sums.early_releases,
        gpu_hours_given_back=_hours(sums.given_back),
        outcomes=dict(sorted(sums.outcomes.items())),
    )


def _hours(millis: int) -> float:
    return round(millis / HOUR, 6)


def table(found: wire.Usage) -> str:
    """Return the rows as CSV, without cells that spreadsheets treat as formulas."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([found.by, "label", *COLUMNS])
    for row in found.rows:
        values = msgspec.structs.asdict(row)
        writer.writerow([cell(values[name]) for name in ("key", "label", *COLUMNS)])
    return out.getvalue()


def cell(value: Any) -> str:
    """Return one cell. Text that would be a formula gets an apostrophe in front."""
    if isinstance(value, dict):
        return " ".join(f"{name}={count}" for name, count in value.items())
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    text = str(value)
    return f"'{text}" if text.startswith(FORMULA) else text
