"""The instructions of our Dockerfiles: they make the test cluster's images, without a container builder."""

from __future__ import annotations

import re
from pathlib import Path

from .images import ImageError
from .layout import CHECKOUT

FOLDERS = CHECKOUT / "infra" / "images"


def instructions(image: str, name: str) -> list[str]:
    """The arguments of every instruction of that name (``RUN``, ``ENV`` …), in order."""
    text = path(image).read_text().replace("\\\n", " ")
    return re.findall(rf"^{name} (.*)$", text, re.MULTILINE)


def instruction(image: str, name: str) -> str:
    """The only instruction of that name. ImageError if there are more or none."""
    found = instructions(image, name)
    if len(found) != 1:
        raise ImageError(f"{path(image)} has {len(found)} instructions {name}, where one is expected")
    return found[0]


def commands(image: str, first_words: str) -> str:
    """Those commands of the RUN instructions that begin so, to be run one after the other.

    ImageError if there are none.
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
    """The Dockerfile of ``hub``, ``server`` or ``bastion``."""
    return FOLDERS / image / "Dockerfile"
