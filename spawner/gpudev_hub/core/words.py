"""Times, durations and lists in words, as people read them.

Texts that are stored, or shown in the reader's own zone, carry their instants marked (`instant`), so that
nobody looks for times in prose: `parts` takes such a text apart, `plain` writes it with UTC times. Text of
others (a log line, a program's error) goes through `printable` first, which leaves no marks in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from .model import HOUR, MINUTE, SECOND, Millis, Node, NodeStatus, Shape

#: Around an instant: two characters of Unicode's private use area.
_OPENING, _CLOSING = "\ue000", "\ue001"
_INSTANT = re.compile(
    rf"{_OPENING}([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}T[0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}Z){_CLOSING}"
)


#: Why nothing new starts on a node where nothing shows that network policies are enforced.
UNPROVEN = "its policy probe is not ready"


class Part(NamedTuple):
    """A piece of a text: an instant, or words."""

    text: str
    """The words; of an instant nothing."""
    at: Millis | None = None


def instant(at: Millis) -> str:
    """Return the instant, to the second, marked for `parts` and `plain`."""
    return f"{_OPENING}{datetime.fromtimestamp(at // SECOND, UTC):%Y-%m-%dT%H:%M:%SZ}{_CLOSING}"


def parts(text: str) -> list[Part]:
    """Return the pieces of a text with marked instants, in order; the words are printable."""
    found: list[Part] = []
    for index, piece in enumerate(_INSTANT.split(text)):
        if index % 2:
            try:
                found.append(Part("", round(datetime.fromisoformat(piece).timestamp()) * SECOND))
                continue
            except ValueError:
                pass  # no such day or hour: words
        if piece:
            found.append(Part(printable(piece)))
    return found


def plain(text: str, now: Millis) -> str:
    """Return the text with its marked instants in words, as `moment` writes them."""
    return "".join(part.text if part.at is None else moment(part.at, now) for part in parts(text))


def listing(words: Sequence[str], last: str) -> str:
    """`1, 2, 4 or 8`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def printable(text: str) -> str:
    """One line without anything that a terminal obeys or that turns the direction of writing."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def capital(text: str) -> str:
    """Return the text with a capital letter, unless its first word is a name such as ``node-1``."""
    word = text.partition(" ")[0]
    return text[:1].upper() + text[1:] if word.rstrip(",.:;").isalpha() else text


def sentence(text: str) -> str:
    """Return the text with a capital letter (see `capital`) and a full stop; empty for no text."""
    return capital(text) + ("" if text[-1] in ".!?" else ".") if text else ""


def duration(length: Millis) -> str:
    """`1 h 30 min`; seconds only below one hour. Rounded down."""
    if length < SECOND:
        return f"{length} ms"
    hours, rest = divmod(length, HOUR)
    minutes, rest = divmod(rest, MINUTE)
    seconds = 0 if hours else rest // SECOND
    parts = [(hours, "h"), (minutes, "min"), (seconds, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number)


def moment(at: Millis, now: Millis) -> str:
    """`14:10 UTC`, or with the day when that is not today: `24 Nov 14:10 UTC`."""
    when, today = (datetime.fromtimestamp(t // SECOND, UTC) for t in (at, now))
    clock = f"{when:%H:%M} UTC"
    if when.date() == today.date():
        return clock
    day = f"{when.day} {when:%b}"
    return f"{day} {clock}" if when.year == today.year else f"{day} {when.year} {clock}"


def counted(count: int, noun: str) -> str:
    """`1 request`, `2 requests`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def gpus(count: int) -> str:
    """`1 GPU`, `8 GPUs`."""
    return counted(count, "GPU")


def node_state(name: str, node: Node | None) -> str:
    """`node-1 is down`, `node-1 is drained (cordoned)`; `None`: there is no such node any more."""
    if node is None:
        return f"{name} was removed"
    if node.status is NodeStatus.UNKNOWN:
        return f"the state of {name} is unknown"
    why = f" ({node.drained_for})" if node.drained_for else ""
    return f"{name} is {node.status}{why}"


def node_end(name: str, until: Millis) -> str:
    """`node-1 is available only until 14:10 UTC`, with the instant marked."""
    return f"{name} is available only until {instant(until)}"


def size(shape: Shape) -> str:
    """`4 GPUs`, or `2 whole nodes`."""
    return gpus(shape.gpus) if shape.nodes == 1 else f"{shape.nodes} whole nodes"
