"""Texts of the pages: words, tones and steps for the types of the API. Templates do only the layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from markupsafe import Markup, escape

from gpudev import wire
from gpudev_hub.core.decisions.unit_of_work import SERVICE
from gpudev_hub.core.words import counted, sentence

from .drawing import parse, runs

STATES = {
    "queued": ("Waiting", "wait"),
    "starting": ("Starting", "info"),
    "ready": ("Ready", "good"),
    "stopping": ("Stopping", "plain"),
    "ended": ("Ended", "plain"),
}
OUTCOMES = {
    "released": ("Released", "plain"),
    "cancelled": ("Cancelled", "plain"),
    "expired": ("Expired", "plain"),
    "idle": ("Idle", "wait"),
    "failed": ("Failed", "bad"),
    "node_lost": ("Node lost", "bad"),
    "access_revoked": ("Access revoked", "bad"),
    "ended_by_operator": ("Ended by an operator", "wait"),
}
MEANINGS = (
    ("Waiting", "wait", "In the queue. The server starts automatically; you can close the page."),
    ("Blocked", "bad", "In the queue without a planned start: a node is down, or you must log in."),
    ("Starting", "info", "You have the GPUs; JupyterLab and SSH are starting."),
    ("Ready", "good", "JupyterLab and SSH answer. Your hold time is running."),
    ("Stopped", "wait", "You stopped the server. The GPUs are kept for a while: restart or release it."),
    ("Stopping", "plain", "The server is shutting down. Files in your home are kept."),
    ("Released", "plain", "You released it early, or did not restart a stopped server."),
    ("Cancelled", "plain", "You cancelled the request before it got GPUs."),
    ("Expired", "plain", "The hold time ended."),
    ("Failed", "bad", "The server did not start, or crashed several times."),
    ("Node lost", "bad", "A node of the reservation was lost."),
    ("Access revoked", "bad", "Its owner may no longer use this hub. Files in their home are kept."),
    ("Ended by an operator", "wait", "An operator ended it. Its page gives the reason if there is one."),
)
"""Explanations on the help page of each state that a reservation can show: (word, tone, meaning)."""
CAUSES = {
    "requested": "Requested",
    "planned": "Planned start moved",
    "admitted": "Start began",
    "ready": "Ready: JupyterLab and SSH answer",
    "released": "Released",
    "cancelled": "Cancelled",
    "expired": "Expired",
    "extended": "Extended",
    "moved_for_extension": "Planned start moved because of an extension; guaranteed start unchanged",
    "yielded": "Planned start moved because of an earlier request; guaranteed start unchanged",
    "warned": "Warning that the end is near",
    "server_gone": "Server ended",
    "server_seen": "Server status",
    "stopped_by_user": "Server stopped by its user; the GPUs are kept for a while",
    "restarted": "Server started again",
    "start_failed": "Start failed",
    "node_changed": "Node changed",
    "node_lost": "Node lost",
    "node_drained": "Node drained",
    "stop_overran": "A server took too long to stop",
    "owner_unknown": "The Hub does not know the owner",
    "owner_known": "The Hub knows the owner again",
    "shared": "Shared",
    "unshared": "Access of a guest ended",
    "access_granted": "The owner may use this hub again",
    "access_revoked": "The owner lost access",
    "person_changed": "The owner's login changed",
    "outage": "Part of the service was unavailable",
    "operator": "Operator action",
    "operator: ended_by_operator": "Ended by an operator",
}

NOTHING = Markup("")


def when(iso: str | None, now: str, seconds: bool = False) -> Markup:
    """Return an instant as ``<time>`` in UTC; scripts change it to the reader's time zone."""
    if iso is None:
        return Markup("–")
    at = parse(iso)
    full = f"{at.day} {at:%b} {at.year}, {at:%H:%M} UTC"
    return Markup('<time datetime="{}" title="{}" data-when="{}">{}</time>').format(
        iso, full, "seconds" if seconds else "", clock(at, parse(now), seconds)
    )


def clock(at: datetime, now: datetime, seconds: bool = False) -> str:
    """Return ``14:10 UTC``, or ``14:10:09 UTC``, with the day if it is not today."""
    day = "" if at.date() == now.date() else f"{at.day} {at:%b} "
    return f"{day}{at:%H:%M:%S} UTC" if seconds else f"{day}{at:%H:%M} UTC"


def left(iso: str, now: str) -> Markup:
    """Return the time from now to ``iso``; scripts count it down."""
    seconds = (parse(iso) - parse(now)).total_seconds()
    return Markup('<time datetime="{}" data-left>{}</time>').format(iso, span(seconds))


def span(seconds: float) -> str:
    """Return ``2 h 14 min``, or seconds below two minutes."""
    seconds = max(0, int(seconds))
    if seconds < 120:
        return f"{seconds} s"
    hours, minutes = divmod(seconds // 60, 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def hours(value: float) -> str:
    """Return ``4 h``, ``1 h 30 min``."""
    return span(value * 3600)


def hours_field(value: float) -> str:
    """Return hours as the form for a new reservation shows them: ``4``, ``1.5``, ``16 min``."""
    return f"{value:g}" if value * 4 % 1 == 0 else hours(value)


def size(gpus: int, nodes: int) -> str:
    """Return ``4 GPUs``, ``2 × 8 GPUs``."""
    each = counted(gpus, "GPU")
    return each if nodes == 1 else f"{nodes} × {each}"


def ordinal(place: int) -> str:
    """Return ``1st``, ``12th``."""
    tail = "th" if place % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"{place}{tail}"


def told(text: wire.Sentence | None, now: str) -> Markup:
    """Return a sentence with a capital letter and a full stop, and its instants as ``<time>``."""
    return NOTHING if text is None else Markup(sentence(wire.told(text, lambda at: when(at, now), escape)))  # noqa: S704


def slots(allocation: list[wire.NodeSlots]) -> list[str]:
    """Return ``node-1, GPUs 0–3`` for each node."""
    return [
        f"{part.node}, GPU{'' if len(part.slots) == 1 else 's'} {_ranges(part.slots)}" for part in allocation
    ]


def _ranges(numbers: list[int]) -> str:
    return ", ".join(
        str(first) if count == 1 else f"{first}–{first + count - 1}" for first, count in runs(sorted(numbers))
    )


@dataclass(frozen=True, slots=True)
class Step:
    """One of the three steps of a reservation, with its state: ``done``, ``now``, ``next`` or ``failed``."""

    name: str
    state: str
    words: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """A reservation as the pages show it."""

    r: wire.Reservation
    now: str
    stopped: bool
    """Whether its server was stopped, and the GPUs are kept for the restart window."""
    warn_minutes: tuple[int, ...] = ()
    """Minutes before the end at which the reader is warned; empty for users who may not act on it."""
    subdomains: bool = False
    """Whether JupyterLab is at another address than this page."""

    @property
    def lab(self) -> str | None:
        """Address of its JupyterLab while that can be opened.

        Without subdomains it is a path, so that the link works at every address of the Hub.
        """
        if self.r.url is None or self.r.state != "ready" or self.stopped:
            return None
        return self.r.url if self.subdomains else urlsplit(self.r.url).path

    @property
    def title(self) -> str:
        return self.r.name or self.r.id

    @property
    def size(self) -> str:
        return size(self.r.gpus, self.r.nodes)

    @property
    def live(self) -> bool:
        return self.r.state != "ended"

    @property
    def extendable(self) -> bool:
        """Whether it can be extended."""
        return self.r.starts_at is not None and self.r.state in ("starting", "ready")

    @property
    def pill(self) -> tuple[str, str]:
        """(word, tone) of the state or outcome."""
        if self.r.outcome is not None and not self.live:
            return OUTCOMES[self.r.outcome]
        if self.stopped:
            return "Stopped", "wait"
        if self.r.state == "queued" and self.r.position is None and self.r.planned_start is None:
            return "Blocked", "bad"
        return STATES[self.r.state]

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the visible end; ``None`` unless it is ready."""
        if self.r.state != "ready" or self.r.ends_at is None:
            return None
        return (parse(self.r.ends_at) - parse(self.now)).total_seconds()

    @property
    def warnings(self) -> list[tuple[int, str]]:
        """(threshold in minutes, words) for the reader, the shortest first."""
        lengths = [(minutes, counted(minutes, "minute")) for minutes in sorted(self.warn_minutes)]
        if self.r.mine:
            return [(m, f"Less than {length} left. Save your work, or extend.") for m, length in lengths]
        return [(m, f"{self.r.owner}'s reservation ends in less than {length}.") for m, length in lengths]

    @property
    def warning(self) -> str | None:
        """The warning for now, if the end is near."""
        seconds = self.seconds_left
        if seconds is None or seconds <= 0:
            return None
        return next((words for minutes, words in self.warnings if seconds <= minutes * 60), None)

    @property
    def statement(self) -> Markup:
        """The state in one line."""
        r = self.r
        if r.state == "queued":
            if r.planned_start is None:
                return Markup("Waiting, no planned start yet")
            if parse(r.planned_start) <= parse(self.now):
                return Markup("About to start")
            return Markup("Starts about {}").format(when(r.planned_start, self.now))
        if r.state == "starting":
            return Markup("Starting your server") if r.mine else Markup("Server is starting")
        if self.stopped:
            return Markup("Server stopped, GPUs kept")
        if r.state == "ready":
            return Markup("{} left").format(left(r.ends_at, self.now)) if r.ends_at else Markup("Ready")
        if r.state == "stopping":
            return Markup("Stopping: the server is shutting down")
        return escape(OUTCOMES[r.outcome][0] if r.outcome else "Ended")

    @property
    def spoken(self) -> str:
        """What screen readers announce when it changes."""
        r = self.r
        if r.state == "queued":
            return f"Waiting, {ordinal(r.position)} in the queue." if r.position else "Waiting."
        return f"{self.pill[0]}."

    @property
    def explanation(self) -> Markup:
        """The reason as a sentence; empty if there is none."""
        return told(self.r.reason_data, self.now)

    @property
    def steps(self) -> tuple[Step, ...]:
        """Queued → starting → ready."""
        r, now = self.r, self.now
        queued = Step("Queued", "done", Markup("requested {}").format(when(r.created_at, now)))
        if r.state == "queued":
            place = f"{ordinal(r.position)} in the queue" if r.position else "no planned start yet"
            starts = Markup("about {}").format(when(r.planned_start, now)) if r.planned_start else ""
            return Step("Queued", "now", place), Step("Starting", "next", starts), Step("Ready", "next")
        if r.state == "starting":
            starting = Step("Starting", "now", "JupyterLab and SSH are starting")
            again = Step("Starting again", "now")
            return queued, starting if r.starts_at is None else again, Step("Ready", "next")
        began = Markup("since {}").format(when(r.starts_at, now)) if r.starts_at else ""
        ready = Step("Ready", "done", began)
        if r.state == "ready":
            return queued, Step("Started", "done"), Step("Stopped", "now") if self.stopped else ready
        if r.starts_at is None:
            ready = Step("Ready", "next", "not reached")
        word, tone = self.pill
        how = "now" if self.live else "failed" if tone == "bad" else "done"
        return queued, ready, Step(word, how, when(r.ended_at, now) if r.ended_at else "")


@dataclass(frozen=True, slots=True)
class Happening:
    """A line of the history."""

    at: str
    what: str
    about: Markup
    by: str
    seconds: bool
    """Whether to show seconds, because others happened in the same minute."""


def happenings(
    items: list[wire.HistoryItem], owner: str, now: str, logins: Mapping[str, str]
) -> list[Happening]:
    """Return a reservation's history in words, latest first, without changes that users need not know.

    ``owner``: the owner's subject; ``logins``: names to show, by subject.
    """
    items = [item for item in items if item.cause_code != "server_seen"]
    to_the_minute = len("2026-11-23T14:00")
    minutes = Counter(item.at[:to_the_minute] for item in items)
    found: list[Happening] = []
    for item in reversed(items):
        by = "" if item.actor in (SERVICE, owner) else logins.get(item.actor, item.actor.rpartition(":")[2])
        words = CAUSES.get(item.cause) or CAUSES.get(item.cause_code, item.cause_code.replace("_", " "))
        more = None if item.cause in CAUSES else item.cause_data
        news = told(more or item.detail_data, now)
        if news.lower().rstrip(".").endswith(words.lower()):
            news = NOTHING
        found.append(Happening(item.at, words, news, by, minutes[item.at[:to_the_minute]] > 1))
    return found


def level(value: float, most: float) -> tuple[float, bool]:
    """Return the level of a meter, from 0 to 1, and whether it is full."""
    share = min(value / most, 1.0) if most > 0 else 0.0
    return round(share, 3), share >= 1
