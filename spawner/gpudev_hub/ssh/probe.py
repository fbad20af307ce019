"""Checks sshd of a server by a key exchange at the address that users get."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificate,
    SSHCertificateType,
    load_ssh_public_identity,
)

from .keys import PublicKey

_CERTIFICATE = "ssh-ed25519-cert-v01@openssh.com"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SshdProbe:
    """Checks whether sshd at an address has the host CA's certificate for a name."""

    ca: PublicKey
    timeout: int = 5
    """Seconds."""

    async def __call__(self, host: str, port: int, host_key_alias: str) -> bool:
        """Return whether a complete key exchange showed the right certificate."""
        process = await asyncio.create_subprocess_exec(
            *("ssh-keyscan", "-c", "-t", "ed25519", "-T", str(self.timeout), "-p", str(port), host),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(self.timeout + 2):
                said, complaint = await process.communicate()
        except TimeoutError:
            said = complaint = b""
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if any(
            certifies(line, self.ca, host_key_alias) for line in said.decode(errors="replace").split("\n")
        ):
            return True
        _LOG.info(
            "sshd at %s port %d is not ready: %s", host, port, complaint.decode(errors="replace").strip()
        )
        return False


def certifies(line: str, ca: PublicKey, name: str) -> bool:
    """Return whether a line of ``ssh-keyscan -c`` is a host certificate that ``ca`` signed for ``name``.

    Its period of validity is not checked: clients check it by their own clocks.
    """
    # ssh-keyscan writes a host before plain keys and none before certificates.
    _, kind, rest = line.partition(_CERTIFICATE + " ")
    try:
        certificate = load_ssh_public_identity((kind + rest).encode())
        if not isinstance(certificate, SSHCertificate):
            return False
        # A certificate names its own signer, so a valid signature alone proves nothing.
        signer = certificate.signature_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        if signer.decode() != ca.line:
            return False
        certificate.verify_cert_signature()
    except (InvalidSignature, NotImplementedError, UnsupportedAlgorithm, ValueError):
        return False
    return certificate.type is SSHCertificateType.HOST and name.encode() in certificate.valid_principals
