"""Checks signatures made by ``ssh-keygen -Y sign`` with the known keys of a person."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from .keygen import run
from .keys import PublicKey

NAMESPACE: Final = "login@gpudev"
_PRINCIPAL = re.compile(r"[A-Za-z0-9:._@+-]{1,300}")
"""ssh-keygen reads principals as patterns: no character here has a meaning in one."""


def signed_by(principal: str, keys: Iterable[PublicKey], text: bytes, signature: str) -> bool:
    """Return whether one of the keys of ``principal`` signed ``text`` for the login of a command line.

    Raises ``KeygenFailed`` if ssh-keygen cannot be run.
    """
    lines = [f'{principal} namespaces="{NAMESPACE}" {key.line}\n' for key in keys]
    if not lines or _PRINCIPAL.fullmatch(principal) is None:
        return False
    with tempfile.TemporaryDirectory(prefix="gpudev-login-") as folder:
        allowed, signed = Path(folder, "allowed"), Path(folder, "signature")
        allowed.write_text("".join(lines))
        signed.write_text(signature)
        done = run(
            *("-Y", "verify", "-f", str(allowed), "-I", principal, "-n", NAMESPACE, "-s", str(signed)),
            given=text,
        )
    return done.returncode == 0
