"""Sentences as data, and the words that they make."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

Words = TypeVar("Words", bound=str)


class Sentence(msgspec.Struct, kw_only=True):
    """A sentence whose times are shown in the reader's time zone. Programs read the code and the values."""

    code: str
    """What it says: ``waiting_for``; ``text`` for any other text, which is its parameter ``text``."""
    template: str
    """The words, with the names of parameters and instants in braces."""
    params: dict[str, str | Sentence]
    """Words, which may quote text of others and are never changed, and other sentences."""
    instants: dict[str, str]


def told(sentence: Sentence, time: Callable[[str], Words], words: Callable[[str], Words]) -> Words:
    """Return the words of a sentence. ``time`` writes an instant, ``words`` everything else."""
    values = {name: time(at) for name, at in sentence.instants.items()}
    for name, value in sentence.params.items():
        values[name] = words(value) if isinstance(value, str) else told(value, time, words)
    return words(words(sentence.template).format_map(values))
