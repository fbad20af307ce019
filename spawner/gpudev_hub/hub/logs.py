"""Masks secrets in the Hub's log.

JupyterHub masks them in its access log only. Its line for a refused login has the address of the callback,
with the code and the state of the login.
"""

from __future__ import annotations

import logging
import re
from typing import Any, Final

from jupyterhub.log import CoroutineLogFormatter

MASK: Final = "[secret]"

_NAME: Final = r"[\w.-]*(?:token|auth|key|code|state|secret|signature|_xsrf)[\w.-]*"
"""The name of a parameter whose value is secret; includes all of JupyterHub's list."""
_PLAIN = re.compile(rf"([?&]{_NAME}=)[^&\s\"'<>()]+", re.IGNORECASE)
_QUOTED = re.compile(rf"((?:%3F|%26){_NAME}%3D)(?:(?!%26)[^&\s\"'<>()])+", re.IGNORECASE)
"""The same in an address that is a parameter of another address."""
_GITHUB = re.compile(r"\b(?:gh[a-z]|github_pat)_[\w.-]+")
"""Tokens of GitHub, short and long ones."""
_HEADER = re.compile(r"\b((?:token|bearer|basic)\s+)[\w.~+/=-]{16,}", re.IGNORECASE)
"""A credential as in an ``Authorization`` header."""
_SESSION = re.compile(r"(\bxsrf cookie for )b?'[^']*'")
"""The session of a browser, in JupyterHub's line about the cookie that protects its forms."""


def masked(text: str) -> str:
    """Return ``text`` with everything masked that looks like a secret."""
    for pattern in (_PLAIN, _QUOTED):
        text = pattern.sub(rf"\1{MASK}", text)
    text = _SESSION.sub(rf"\1{MASK}", _GITHUB.sub(MASK, text))
    return _HEADER.sub(rf"\1{MASK}", text)


class MaskingFormatter(CoroutineLogFormatter):
    """JupyterHub's own format, tracebacks included, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return masked(super().format(record))


def mask_secrets(c: Any) -> None:
    """Make the Hub use ``MaskingFormatter``; ``c`` is JupyterHub's configuration object."""
    c.JupyterHub.logging_config = {
        "formatters": {"console": {"class": f"{MaskingFormatter.__module__}.{MaskingFormatter.__qualname__}"}}
    }
