"""Text from other programs, made safe for a terminal: colours are kept, everything else is removed.

Logs, reasons, names and messages may contain text of other people's programs. An escape sequence could rename
the window or clear the screen; a direction mark could change how a line reads.
"""

from __future__ import annotations

import re
from typing import Any

_END = r"(?:\x07|\x1b\\|\x9c)?"
_SEQUENCE = re.compile(
    rf"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*{_END}"  # strings: titles, links, the clipboard
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # with numbers: cursor, modes, colours
    r"|\x1b[ -/]*[0-~]?"
)
_NUMBER = r"(?:[345]8[;:](?:5[;:][0-9]{1,3}|2(?:[;:][0-9]{0,3}){3,4})|[3-9][0-9]|10[0-7]|2[0-9]|0?[0-79])"
_COLOUR = re.compile(rf"\x1b\[(?:{_NUMBER}(?:;{_NUMBER})*)?m")
"""Colours and styles such as bold, but not hidden text (8)."""
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_RESET = "\x1b[0m"


def plain(text: str) -> str:
    """Return the text as one line without control characters."""
    text = _SEQUENCE.sub("", text)
    return _UNSEEN.sub("", re.sub(r"[\t\n\r\x85]+", " ", text))


def coloured(text: str) -> str:
    """Return the lines with their colours, which are reset at the end."""
    parts: list[str] = []
    rest, tinted = 0, False
    text = re.sub(r"\r\n?", "\n", text)
    for found in _SEQUENCE.finditer(text):
        parts.append(_UNSEEN.sub("", text[rest : found.start()]))
        if _COLOUR.fullmatch(found[0]):
            parts.append(found[0])
            tinted = True
        rest = found.end()
    parts.append(_UNSEEN.sub("", text[rest:]))
    cleaned = "".join(parts)
    return cleaned + _RESET if tinted and not cleaned.endswith(_RESET) else cleaned


def uncoloured(text: str) -> str:
    """Return the lines for a page, without colours."""
    return "\n".join(plain(line) for line in re.split(r"\r\n?|\n", text))


def harmless(document: Any, *, colours: bool = False) -> Any:
    """Return a decoded JSON document with all its texts made `plain` or `coloured`."""
    match document:
        case str():
            return coloured(document) if colours else plain(document)
        case list():
            return [harmless(item, colours=colours) for item in document]
        case dict():
            return {plain(key): harmless(item, colours=colours) for key, item in document.items()}
    return document
