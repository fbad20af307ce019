"""Reservations and times in words, for people: local time, and how long from now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from gpudev import wire

LIKE = {"·": "-", "×": "x", "…": "...", "–": "-", "—": "-", "’": "'", "\u00a0": " ", "\u202f": " "}
"""What looks like a character, for terminals that lack it."""
_LIKE = str.maketrans(LIKE)

Tone = Literal["waiting", "starting", "ready", "over", "failed"]


def parse_time(text: str | None) -> datetime | None:
    """An aware datetime (UTC) from a time on the wire."""
    return None if text is None else datetime.fromisoformat(text)


def span(length: timedelta) -> str:
    """``2 h 10 min``, ``45 min``, ``30 s``; the larger units only."""
    seconds = max(0, round(length.total_seconds()))
    if seconds < 90:
        return f"{seconds} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def hours(count: float) -> str:
    """``4 h``, ``1 h 30 min`` from a number of hours."""
    return span(timedelta(hours=count))


def clock(time: datetime, now: datetime) -> str:
    """Local time of day; with the day where that is not today."""
    local, today = time.astimezone(), now.astimezone()
    if local.date() == today.date():
        return local.strftime("%H:%M")
    if abs(local.date() - today.date()) < timedelta(days=7):
        return local.strftime("%a %H:%M")
    return local.strftime("%Y-%m-%d %H:%M")


def when(time: datetime, now: datetime) -> str:
    """``14:10 (in 2 h 10 min)``; ``now`` for what is due."""
    away = time - now
    if timedelta(seconds=-5) <= away <= timedelta(seconds=5):
        return "now"
    if away < timedelta():
        return f"{clock(time, now)} ({span(-away)} ago)"
    return f"{clock(time, now)} (in {span(away)})"


def told(parts: list[wire.TextPart], now: datetime) -> str:
    """A text of the service's with its instants in the zone of this machine."""
    return "".join(
        part.text if part.at is None else clock(datetime.fromisoformat(part.at), now) for part in parts
    )


def size(gpus: int, nodes: int) -> str:
    """``2 GPUs``, ``2 nodes × 8 GPUs``."""
    each = "1 GPU" if gpus == 1 else f"{gpus} GPUs"
    return each if nodes == 1 else f"{nodes} nodes × {each}"


def hardware(record: wire.Reservation) -> str:
    """``2 GPUs h100``, ``2 pretended GPUs``: how many of which."""
    kind = record.gpu_type
    if record.pretended and kind == "pretended":
        return size(record.gpus, record.nodes).replace("GPU", "pretended GPU")
    return f"{size(record.gpus, record.nodes)} {marked(kind, record.pretended)}"


def marked(kind: str, pretended: bool) -> str:
    """A GPU type or a pool's label that does not hide that there is no such hardware."""
    return f"{kind} (pretended)" if pretended and "pretend" not in kind.lower() else kind


def label(record: wire.Reservation) -> str:
    """What people call it: its name, else its id."""
    return record.name or record.id


RANK_VARIABLES = "MASTER_ADDR, MASTER_PORT, NODE_RANK and NNODES are set"
"""What a launcher of processes on several nodes asks for."""


@dataclass(frozen=True)
class View:
    """What is shown of a reservation, whatever it is shown on."""

    title: str
    """``gpu-demo · 2 GPUs h100``."""
    headline: str
    """Where it stands, in a few words, without times that tick."""
    times: tuple[str, ...]
    """When it starts or ends, as seen from now."""
    reason: str
    tone: Tone
    url: str | None
    ssh_command: str | None
    node_ssh_commands: tuple[str, ...]
    """The other nodes' ways in, node 1 first."""
    vscode_url: str | None
    can_extend: bool
    can_release: bool

    def line(self) -> str:
        """All of it on one line."""
        return " · ".join(part for part in (self.headline, *self.times, self.reason) if part)


def describe(record: wire.Reservation, now: datetime) -> View:
    """The view of `record` at `now`."""
    headline, tone = _headline(record)
    # A service of an earlier version sends no parts.
    reason = told(record.reason_parts, now) or record.reason or ""
    live = record.state != "ended"
    return View(
        title=f"gpu-{label(record)} · {hardware(record)}",
        headline=headline,
        times=tuple(_times(record, now)),
        reason="" if reason == headline else reason,
        tone=tone,
        url=record.url if live else None,
        ssh_command=record.ssh_command if live else None,
        node_ssh_commands=tuple(record.ssh_commands[1:]) if live else (),
        vscode_url=record.vscode_url if live else None,
        can_extend=record.mine and record.state in ("starting", "ready"),
        can_release=record.mine and record.state in ("queued", "starting", "ready"),
    )


def outcome(record: wire.Reservation) -> str:
    """How it ended, in words."""
    return (record.outcome or "ended").replace("_", " ")


def _headline(record: wire.Reservation) -> tuple[str, Tone]:
    match record.state:
        case "queued":
            if record.position is None:
                return "waiting", "waiting"
            return ("next in line" if record.position == 1 else f"place {record.position} in line"), "waiting"
        case "starting" if record.server != "stopped":
            return "starting", "starting"
        case "starting" | "ready":
            if record.server in ("stopped", "unknown"):
                return f"yours, its server is {record.server}", "starting"
            return "ready", "ready"
        case "stopping":
            return "stopping", "over"
        case "ended":
            return outcome(record), "failed" if record.outcome in ("failed", "node_lost") else "over"


def _times(record: wire.Reservation, now: datetime) -> list[str]:
    planned, promised = parse_time(record.planned_start), parse_time(record.guaranteed_by)
    ends, ended = parse_time(record.ends_at), parse_time(record.ended_at)
    if record.state == "queued":
        lines = []
        if planned is not None:
            lines.append(f"starts about {when(max(planned, now), now)}")
        if promised is not None and promised != planned:
            lines.append(f"guaranteed by {clock(promised, now)}")
        return lines
    if record.state in ("starting", "ready") and ends is not None:
        return [f"until {clock(ends, now)} ({span(ends - now)} left)"]
    if record.state == "ended" and ended is not None:
        return [when(ended, now)]
    return []


def in_ascii(text: str) -> str:
    """The text in ASCII; what nothing looks like is escaped."""
    return text.translate(_LIKE).encode("ascii", "backslashreplace").decode()
