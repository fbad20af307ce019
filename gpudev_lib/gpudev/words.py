"""Texts for people about reservations and times, in local time and relative to now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from gpudev import wire

LIKE = {"·": "-", "×": "x", "…": "...", "–": "-", "—": "-", "’": "'", "\u00a0": " ", "\u202f": " "}
"""Replacements for characters that a terminal lacks."""
_LIKE = str.maketrans(LIKE)

Tone = Literal["waiting", "starting", "ready", "over", "failed"]


def parse_time(text: str | None) -> datetime | None:
    """Return an aware datetime (UTC) from a time of the API."""
    return None if text is None else datetime.fromisoformat(text)


def span(length: timedelta) -> str:
    """Return a length of time such as ``2 h 10 min``, ``45 min`` or ``30 s``, in at most two units."""
    total = round(length.total_seconds() / 60) // 60
    if total < 48:
        return hours(length / timedelta(hours=1))
    days, rest = divmod(total, 24)
    return f"{days} d {rest} h" if rest else f"{days} d"


def hours(count: float) -> str:
    """Return a number of hours as ``48 h``, ``1 h 30 min`` or ``30 s``, never in days."""
    seconds = max(0, round(count * 3600))
    if seconds < 90:
        return f"{seconds} s"
    whole, minutes = divmod(round(seconds / 60), 60)
    if not whole:
        return f"{minutes} min"
    return f"{whole} h {minutes} min" if minutes else f"{whole} h"


def clock(time: datetime, now: datetime) -> str:
    """Return the local time of day, with the day if it is not today."""
    local, today = time.astimezone(), now.astimezone()
    if local.date() == today.date():
        return local.strftime("%H:%M")
    if abs(local.date() - today.date()) < timedelta(days=7):
        return local.strftime("%a %H:%M")
    return local.strftime("%Y-%m-%d %H:%M")


def when(time: datetime, now: datetime) -> str:
    """Return ``14:10 (in 2 h 10 min)``, or ``now`` within 5 seconds."""
    away = time - now
    if timedelta(seconds=-5) <= away <= timedelta(seconds=5):
        return "now"
    if away < timedelta():
        return f"{clock(time, now)} ({span(-away)} ago)"
    return f"{clock(time, now)} (in {span(away)})"


def told(text: wire.Sentence | None, now: datetime) -> str:
    """Return a text of the service with its times in the local time zone."""
    return "" if text is None else wire.told(text, lambda at: clock(datetime.fromisoformat(at), now), str)


def size(gpus: int, nodes: int) -> str:
    """Return a size such as ``2 GPUs`` or ``2 nodes × 8 GPUs``."""
    each = "1 GPU" if gpus == 1 else f"{gpus} GPUs"
    return each if nodes == 1 else f"{nodes} nodes × {each}"


def hardware(record: wire.Reservation) -> str:
    """Return the GPUs of a reservation, such as ``2 GPUs h100`` or ``2 simulated GPUs``."""
    kind = record.gpu_type
    if record.simulated and kind == "simulated":
        return size(record.gpus, record.nodes).replace("GPU", "simulated GPU")
    return f"{size(record.gpus, record.nodes)} {marked(kind, record.simulated)}"


def marked(kind: str, simulated: bool) -> str:
    """Return a GPU type or pool label that says if the GPUs are simulated."""
    return f"{kind} (simulated)" if simulated and "simulated" not in kind.lower() else kind


def label(record: wire.Reservation) -> str:
    """Return the name of the reservation, else its id."""
    return record.name or record.id


def standing(record: wire.Reservation) -> str:
    """Return the state of a reservation, or of its server if that is the problem, as part of a sentence."""
    if record.state == "ready" and record.server in ("stopped", "unknown"):
        return f"its server is {record.server}"
    return f"it is {record.state}"


def no_server(record: wire.Reservation, now: datetime) -> str:
    """Return why a reservation has no server to connect to, and what to do next, on separate lines."""
    reason = describe(record, now).reason.rstrip(".")
    waits = record.state in ("queued", "starting")
    todo = (
        f"Wait for it with: gpu-dev wait {label(record)}" if waits else f"Details: gpu-dev show {record.id}"
    )
    return f"Reason: {reason}.\n{todo}" if reason else todo


RANK_VARIABLES = "MASTER_ADDR, MASTER_PORT, NODE_RANK and NNODES are set"
"""Variables for launchers of processes on several nodes."""


@dataclass(frozen=True)
class View:
    """The texts that every display of a reservation shows."""

    title: str
    """``gpu-demo · 2 GPUs h100``."""
    headline: str
    """Its state in a few words, without times."""
    times: tuple[str, ...]
    """When it starts or ends, relative to now."""
    reason: str
    tone: Tone
    url: str | None
    ssh_command: str | None
    node_ssh_commands: tuple[str, ...]
    """SSH commands of the other nodes, node 1 first."""
    vscode_url: str | None
    can_extend: bool
    can_release: bool

    def line(self) -> str:
        """Return the state, times and reason on one line."""
        return " · ".join(part for part in (self.headline, *self.times, self.reason) if part)


def describe(record: wire.Reservation, now: datetime) -> View:
    """Return the texts for `record` at `now`."""
    headline, tone = _headline(record)
    # An older service sends no data.
    reason = told(record.reason_data, now) or record.reason or ""
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
    """Return how it ended, as text for people."""
    return (record.outcome or "ended").replace("_", " ")


def how_it_ended(record: wire.Reservation, now: datetime) -> str:
    """Return the outcome as text, with the reason if there is one, without a full stop."""
    ended, reason = outcome(record), describe(record, now).reason.rstrip(".")
    if reason.startswith(ended):  # an older service repeats the outcome in the reason
        return reason
    return f"{ended}: {reason}" if reason else ended


def _headline(record: wire.Reservation) -> tuple[str, Tone]:
    match record.state:
        case "queued":
            if record.position is None:
                return "waiting", "waiting"
            place = "next" if record.position == 1 else f"place {record.position}"
            return f"{place} in the queue", "waiting"
        case "starting" if record.server != "stopped":
            return "starting", "starting"
        case "starting" | "ready":
            if record.server in ("stopped", "unknown"):
                kept = "yours, but its server" if record.mine else "its server"
                return f"{kept} is {record.server}", "starting"
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
    """Return the text in ASCII. Characters without a similar one are escaped."""
    return text.translate(_LIKE).encode("ascii", "backslashreplace").decode()
