"""Times, durations, lists and sentences as text for people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from .model import HOUR, MINUTE, SECOND, Millis, Node, NodeStatus, Shape
from .sentences import Sentence, Text, say

UNPROVEN = "its policy probe is not ready"
"""Why nothing new starts on a node where nothing shows that network policies are enforced."""


def plain(text: Text | Millis, now: Millis) -> str:
    """Return a text on one printable line, with its instants as ``moment`` writes them."""
    match text:
        case str():
            return printable(text)
        case int():
            return moment(text, now)
    return text.template.format_map({name: plain(value, now) for name, value in text.values.items()})


def listing(words: Sequence[str], last: str) -> str:
    """Return a list as text: ``1, 2, 4 or 8``."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def printable(text: str) -> str:
    """Return the text as one line, without control characters for terminals or the direction of writing."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def capital(text: str) -> str:
    """Return the text with a capital letter, unless its first word is a name such as ``node-1``."""
    word = text.partition(" ")[0]
    return text[:1].upper() + text[1:] if word.rstrip(",.:;").isalpha() else text


def sentence(text: str) -> str:
    """Return the text with a capital letter (see ``capital``) and a full stop; empty for no text."""
    return capital(text) + ("" if text[-1] in ".!?" else ".") if text else ""


def duration(length: Millis) -> str:
    """Return a duration as ``1 h 30 min``, rounded down; seconds only below one hour."""
    if length < SECOND:
        return f"{length} ms"
    hours, rest = divmod(length, HOUR)
    minutes, rest = divmod(rest, MINUTE)
    seconds = 0 if hours else rest // SECOND
    parts = [(hours, "h"), (minutes, "min"), (seconds, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number)


def moment(at: Millis, now: Millis) -> str:
    """Return ``14:10 UTC``; with the day if that is not today: ``24 Nov 14:10 UTC``."""
    when, today = (datetime.fromtimestamp(t // SECOND, UTC) for t in (at, now))
    clock = f"{when:%H:%M} UTC"
    if when.date() == today.date():
        return clock
    day = f"{when.day} {when:%b}"
    return f"{day} {clock}" if when.year == today.year else f"{day} {when.year} {clock}"


def counted(count: int, noun: str) -> str:
    """Return ``1 request``, ``2 requests``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def gpus(count: int) -> str:
    """Return ``1 GPU``, ``8 GPUs``."""
    return counted(count, "GPU")


def node_state(name: str, node: Node | None) -> str:
    """Return ``node-1 is down``, ``node-1 is drained (cordoned)``; ``None``: the node was removed."""
    if node is None:
        return f"{name} was removed"
    if node.status is NodeStatus.UNKNOWN:
        return f"the state of {name} is unknown"
    why = f" ({node.drained_for})" if node.drained_for else ""
    return f"{name} is {node.status}{why}"


def node_end(name: str, until: Millis) -> Sentence:
    """Return ``node-1 is available only until 14:10 UTC``."""
    return say("node_ends", node=name, until=until)


def size(shape: Shape) -> str:
    """Return ``4 GPUs``, or ``2 whole nodes``."""
    return gpus(shape.gpus) if shape.nodes == 1 else f"{shape.nodes} whole nodes"
