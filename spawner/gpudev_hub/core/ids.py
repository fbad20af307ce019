"""Ids and names: one alphabet, because an id also names a host, a server and a certificate."""

from __future__ import annotations

import re

from .errors import Code, Refused

LONGEST = 30
"""Longest id and longest name."""
PREFIX = "gpu-"
"""What SSH names of reservations start with."""
ENTROPY = 9
"""Random bytes that ``mint`` needs."""

_WORD = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_FIRST = "bcdfghjkmnpqrstvwxz"
"""No vowels, so that ids are not words, and no 0, 1 or l, which are easily confused."""
_REST = _FIRST + "23456789"
_LENGTH = 12


def is_word(text: str) -> bool:
    """Return whether ``text`` may be an id or a name: ``[a-z0-9]`` and single hyphens, a letter first."""
    return len(text) <= LONGEST and _WORD.fullmatch(text) is not None


def is_id(text: str) -> bool:
    """Return whether ``text`` looks like an id that ``mint`` makes."""
    return len(text) == _LENGTH and text[0] in _FIRST and set(text) <= set(_REST)


def check_name(name: str) -> str:
    """Return the name, without ``PREFIX``: people also type the SSH name.

    Raises ``Refused``, with the rules for names, if it is not valid.
    """
    short = name.removeprefix(PREFIX)
    if is_word(short):
        return short
    if is_word(name):
        return name
    if len(name) > LONGEST:
        what = f"The name has {len(name)} characters; the limit is {LONGEST}."
    else:
        what = f"{name!r} is not a valid name."
    raise Refused(
        Code.INVALID_NAME,
        what,
        f"Use up to {LONGEST} lowercase letters (a-z), digits and single hyphens. "
        "Start with a letter, and do not end with a hyphen.",
    )


def mint(entropy: bytes) -> str:
    """Return an id made from random bytes (at least ``ENTROPY``): 12 characters, 57 bits."""
    if len(entropy) < ENTROPY:
        raise ValueError(f"{ENTROPY} random bytes are needed, got {len(entropy)}")
    number = int.from_bytes(entropy, "big")
    number, digit = divmod(number, len(_FIRST))
    letters = [_FIRST[digit]]
    while len(letters) < _LENGTH:
        number, digit = divmod(number, len(_REST))
        letters.append(_REST[digit])
    return "".join(letters)
