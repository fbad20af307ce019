"""The host CA: clients trust what it signed, so that no server is ever "new" or "changed" to them."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .keygen import keep_pair, public_of, ssh_keygen
from .keys import PublicKey, parse_line

_PRINCIPAL = re.compile(r"[a-z][a-z0-9-]*")


class HostCA:
    """Signs host keys. Its key never leaves ``folder``."""

    def __init__(self, folder: Path) -> None:
        """Load the CA kept in ``folder``, or make one there."""
        self._path = folder / "host_ca"
        keep_pair(self._path, "gpudev-host-ca")
        self.public: PublicKey = parse_line(public_of(self._path).read_text().strip())

    @property
    def known_hosts(self) -> str:
        """The line for a ``known_hosts`` file of ours, which is consulted for our hosts only."""
        return f"@cert-authority * {self.public.line}"

    def sign(self, public: str, principals: Sequence[str]) -> str:
        """A host certificate for exactly the names ``principals``, good at all times.

        A client whose clock is wrong must get in. What binds a certificate to its server is the name: an id
        that is never used again (docs/decisions/0006).
        """
        # A certificate without names would be good for every name.
        if not principals or not all(_PRINCIPAL.fullmatch(name) for name in principals):
            raise ValueError(f"cannot make a host certificate for the names {list(principals)!r}")
        key = parse_line(public)
        with tempfile.TemporaryDirectory(prefix="gpudev-") as folder:
            path = Path(folder) / "host.pub"
            path.write_text(key.line + "\n")
            ssh_keygen(
                "-q",
                *("-s", str(self._path)),
                "-h",
                *("-I", principals[0]),
                *("-n", ",".join(principals)),
                str(path),
            )
            return Path(folder, "host-cert.pub").read_text().strip()
