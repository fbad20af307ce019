"""Reads gpudev's Dockerfiles, to build the test cluster's images without a container builder."""

from __future__ import annotations

import re
from pathlib import Path

from .images import ImageError
from .layout import CHECKOUT

FOLDERS = CHECKOUT / "infra" / "images"


def instructions(image: str, name: str) -> list[str]:
    """Return the arguments of every instruction of that name (``RUN``, ``ENV`` …), in order."""
    text = path(image).read_text().replace("\\\n", " ")
    return re.findall(rf"^{name} (.*)$", text, re.MULTILINE)


def instruction(image: str, name: str) -> str:
    """Return the only instruction of that name. Raises ``ImageError`` if there is not exactly one."""
    found = instructions(image, name)
    if len(found) != 1:
        raise ImageError(f"{path(image)} has {len(found)} instructions {name}, where one is expected")
    return found[0]


def commands(image: str, first_words: str) -> str:
    """Return a script with those commands of the RUN instructions that begin in this way.

    Raises ``ImageError`` if there are none.
    """
    found = [
        command.strip()
        for instruction in instructions(image, "RUN")
        for command in instruction.split("&&")
        if command.strip().startswith(first_words)
    ]
    if not found:
        raise ImageError(f"{path(image)} runs no command that begins with {first_words!r}")
    return " && ".join(found)


def path(image: str) -> Path:
    """Return the Dockerfile of ``hub``, ``server`` or ``bastion``."""
    return FOLDERS / image / "Dockerfile"
