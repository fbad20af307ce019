"""Sentences as data: a code, and what the names in its template stand for.

Instants stay numbers until a reader's time zone is known. Text of others (a log line, a program's error, an
operator's reason) and sentences that nothing depends on are words, which nobody takes apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

TEMPLATES: Final = {
    "about_to_start": "about to start",
    "about_to_start_without_node": "about to start, but {nodes}",
    "about_to_start_after": "about to start: waiting for {servers} to stop",
    "access_lost": "the owner lost access: the server stops at {at}",
    "because": "{what}: {why}",
    "blocked": "blocked: {why}",
    "ending": "{outcome}: {detail}",
    "free_by": "{node} is free by {at}{owners}",
    "free_by_too": "{node} by {at}{owners}",
    "from_until": "from {since} until {until}",
    "kept_without_server": "the server ended, and the GPUs are kept, but {why}",
    "late_start": "the start of {reservation} was {how} by {length}",
    "limit_used": "{login}'s limit of {gpus} at once is used up {span}{after}",
    "moved": "planned start is now {start}: {why}; still guaranteed by {guaranteed}",
    "moved_past_guarantee": "planned start is now {start}, later than guaranteed: {why}",
    "node_ends": "{node} is available only until {until}",
    "nodes_end": "{nodes}, and less than {length} is free before then",
    "owner_unknown": "JupyterHub does not know its owner: log in to JupyterHub once",
    "replanned": "an earlier request was re-planned ({why})",
    "restarted": "the server was restarted: {why}",
    "server_unknown": "the state of the server is unknown, so it is left alone",
    "starting": "starting on {nodes}",
    "starting_with_trouble": "starting on {nodes}: {why}",
    "stop_overran": "the server of {reservation} should have stopped by {at}",
    "stopped": (
        "the server is stopped, and the GPUs are kept until {until}: "
        "start the server again, or release the reservation"
    ),
    "text": "{text}",
    "until": "until {until}",
    "waiting": "waiting for {size}",
    "waiting_for": "waiting for {size}: {reasons}",
}
"""The words of every sentence. Records keep codes: a code and its names stay as they are."""

_JOINTS: Final = {"all": (", ", " and "), "list": (", ", ", "), "parts": ("; ", "; ")}
"""What stands between the texts of a list, and before its last one, by code."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence that is not written yet."""

    code: str
    values: dict[str, str | int | Sentence]
    """Words, instants (milliseconds) and sentences, by their names in the template."""

    @property
    def template(self) -> str:
        """The words, with names in braces."""
        if self.code not in _JOINTS:
            return TEMPLATES[self.code]
        between, before_last = _JOINTS[self.code]
        *names, last = (f"{{{name}}}" for name in self.values)
        return f"{between.join(names)}{before_last}{last}"


Text = str | Sentence
"""Something to read. Records of earlier versions have words only."""


def say(code: str, **values: Text | int) -> Sentence:
    """Return the sentence with this code; whole numbers are instants."""
    return Sentence(code, values)


def joined(texts: Sequence[Text], code: str) -> Text:
    """Return texts as one: ``a, b and c`` (``all``), ``a, b, c`` (``list``) or ``a; b; c`` (``parts``)."""
    return texts[0] if len(texts) == 1 else Sentence(code, {f"t{n}": text for n, text in enumerate(texts)})


def because(what: Text, why: Text) -> Text:
    """Return what happened and, where it is known, why."""
    return say("because", what=what, why=why) if why else what
