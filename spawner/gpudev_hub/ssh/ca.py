"""The host CA. Clients trust the keys that it signed, so SSH never reports a new or changed host."""

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
        """Load the CA in ``folder``, or create it there."""
        self._path = folder / "host_ca"
        keep_pair(self._path, "gpudev-host-ca")
        self.public: PublicKey = parse_line(public_of(self._path).read_text().strip())

    @property
    def known_hosts(self) -> str:
        """The line for a ``known_hosts`` file that SSH reads for gpudev's hosts only."""
        return f"@cert-authority * {self.public.line}"

    def sign(self, public: str, principals: Sequence[str]) -> str:
        """Return a host certificate for exactly these names, without an expiry.

        Clients with a wrong clock must get in. The name, an id that is never used again, binds a certificate
        to its server (docs/decisions/0006). Raises ``ValueError`` for names that mean more.
        """
        # A certificate without names is valid for every name.
        if not principals or not all(_PRINCIPAL.fullmatch(name) for name in principals):
            raise ValueError(f"cannot make a host certificate for the names {list(principals)!r}")
        key = parse_line(public)
        with tempfile.TemporaryDirectory(prefix="gpudev-") as folder:
            path = Path(folder) / "host.pub"
            path.write_text(key.line + "\n")
            names = ("-I", principals[0], "-n", ",".join(principals))
            ssh_keygen("-q", "-h", "-s", str(self._path), *names, str(path))
            return Path(folder, "host-cert.pub").read_text().strip()
