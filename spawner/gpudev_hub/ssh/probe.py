"""The service's own look at sshd: a key exchange at the address that users get."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging

from .keys import BadKey, Blob, PublicKey

_CERTIFICATE = "ssh-ed25519-cert-v01@openssh.com"
_HOST = 2
_LOG = logging.getLogger(__name__)


class SshdProbe:
    """Asks whether sshd at an address serves a host certificate of ours for a name."""

    def __init__(self, ca: PublicKey, timeout: int = 5) -> None:
        """``timeout`` in seconds."""
        self._ca = ca
        self._timeout = timeout

    async def __call__(self, host: str, port: int, host_key_alias: str) -> bool:
        """True only after a whole key exchange that showed the right certificate."""
        process = await asyncio.create_subprocess_exec(
            *("ssh-keyscan", "-c", "-t", "ed25519", "-T", str(self._timeout), "-p", str(port), host),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(self._timeout + 2):
                said, complaint = await process.communicate()
        except TimeoutError:
            said = complaint = b""
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if any(
            certifies(line, self._ca, host_key_alias) for line in said.decode(errors="replace").split("\n")
        ):
            return True
        _LOG.info(
            "sshd at %s port %d is not ready: %s", host, port, complaint.decode(errors="replace").strip()
        )
        return False


def certifies(line: str, ca: PublicKey, name: str) -> bool:
    """Whether a line of ``ssh-keyscan -c`` is a host certificate that ``ca`` signed for ``name``."""
    # ssh-keyscan writes a host before plain keys and none before certificates.
    _, kind, rest = line.partition(_CERTIFICATE + " ")
    if not kind or not rest.strip():
        return False
    try:
        blob = Blob(base64.b64decode(rest.split()[0], validate=True))
        if blob.field() != _CERTIFICATE.encode():
            return False
        blob.field()  # nonce
        blob.field()  # host key
        blob.number(8)  # serial
        if blob.number(4) != _HOST:
            return False
        blob.field()  # key id
        principals = Blob(blob.field())
        names = []
        while not principals.end():
            names.append(principals.field())
        blob.number(8), blob.number(8)  # valid from, until: sshd's clients judge those
        for _ in range(3):
            blob.field()  # critical options, extensions, reserved
        return name.encode() in names and blob.field() == base64.b64decode(ca.blob)
    except (BadKey, binascii.Error):
        return False
