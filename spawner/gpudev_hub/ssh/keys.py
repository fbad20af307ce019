"""Public keys: which lines are accepted for ``authorized_keys``, and their fingerprints.

``ssh-keygen -l`` is not a check: it accepts options, comments, certificates and several lines. So the fields
of a key are checked here, which also tells the user what is wrong with it. Only its type and blob are used.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

MIN_RSA_BITS = 2048
MAX_RSA_BITS = 16384
_CURVES = {"nistp256": 65, "nistp384": 97, "nistp521": 133}
"""Bytes of an uncompressed point."""
_ED25519_BYTES = 32
_FIELDS = {
    "ssh-rsa": 3,
    "ssh-ed25519": 2,
    **{f"ecdsa-sha2-{curve}": 3 for curve in _CURVES},
    "sk-ssh-ed25519@openssh.com": 3,
    "sk-ecdsa-sha2-nistp256@openssh.com": 4,
}
"""Fields of a key of each accepted type, with the type itself."""
_ECDSA = re.compile(r"(?:sk-)?ecdsa-sha2-(nistp[0-9]+)")
_SHAPE = re.compile(r"([a-z0-9@.-]+) ([A-Za-z0-9+/]+={0,2})(?: .*)?")
_LONGEST_TYPE = 64
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class BadKey(ValueError):
    """A line that must not get into ``authorized_keys``; the message says why."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that OpenSSH accepts and that is strong enough."""

    type: str
    blob: str
    """Base64, as in the file."""

    @property
    def line(self) -> str:
        """``TYPE BLOB``, without a comment."""
        return f"{self.type} {self.blob}"

    @property
    def fingerprint(self) -> str:
        """``SHA256:…`` as ``ssh-keygen -l`` prints it."""
        return fingerprint(base64.b64decode(self.blob))


def fingerprint(blob: bytes) -> str:
    """Return the ``SHA256:…`` of a key's blob."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _split(data: bytes, count: int) -> tuple[list[bytes], bytes]:
    """Return the first fields of a key, each with its length before it, and the rest. Raises ``BadKey``."""
    fields = []
    for _ in range(count):
        end = 4 + int.from_bytes(data[:4], "big")
        if len(data) < end:
            raise BadKey("the key is incomplete")
        fields.append(data[4:end])
        data = data[end:]
    return fields, data


def parse_line(line: str) -> PublicKey:
    """Return the key in a line ``TYPE BLOB [comment]``. Raises ``BadKey`` for anything else."""
    if _CONTROL.search(line):
        raise BadKey("control characters or several lines")
    match = _SHAPE.fullmatch(line)
    if match is None:
        raise BadKey("not of the form TYPE BLOB (options before a key are refused)")
    kind, text = match.groups()
    try:
        data = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise BadKey("not valid base64") from error
    if base64.b64encode(data).decode() != text:
        raise BadKey("not canonical base64")
    [name], _ = _split(data, 1)
    if name != kind.encode():
        raise BadKey("the type does not match the key")
    if kind not in _FIELDS:
        raise BadKey(f"keys of type {kind[:_LONGEST_TYPE]} are not accepted")
    fields, rest = _split(data, _FIELDS[kind])
    _check_fields(kind, fields[1:])
    if rest:
        raise BadKey("the key has extra data")
    if not kind.startswith("sk-"):
        _check_numbers(kind, text)
    return PublicKey(kind, text)


def _check_numbers(kind: str, text: str) -> None:
    """Raise ``BadKey`` for impossible numbers, such as a point off its curve, which sshd refuses, too.

    Not for security keys: the library does not know their application.
    """
    try:
        load_ssh_public_key(f"{kind} {text}".encode())
    except (NotImplementedError, UnsupportedAlgorithm, ValueError) as error:
        raise BadKey("the key is not valid") from error


def _check_fields(kind: str, fields: list[bytes]) -> None:
    """Check the fields after the type. The last one of a security key is the application."""
    if kind == "ssh-rsa":
        bits = int.from_bytes(fields[1], "big").bit_length()
        if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
            raise BadKey(f"an RSA key of {bits} bits; {MIN_RSA_BITS} to {MAX_RSA_BITS} are accepted")
    elif "ed25519" in kind:
        if len(fields[0]) != _ED25519_BYTES:
            raise BadKey("the Ed25519 key does not have 32 bytes")
    elif match := _ECDSA.match(kind):
        curve, point = match[1], fields[1]
        if fields[0] != curve.encode():
            raise BadKey("the curve does not match the key")
        if len(point) != _CURVES[curve] or point[0] != 4:
            raise BadKey(f"not an uncompressed point of {curve}")


@dataclass(frozen=True, slots=True)
class RefusedKey:
    """A key that opens nothing, and why."""

    summary: str
    """Type and fingerprint if they can be read, else the number of the line."""
    reason: str


def judge(text: str) -> tuple[list[PublicKey], list[RefusedKey]]:
    """Return all good keys, each once and in order, and all other lines except empty lines and comments."""
    found: dict[PublicKey, None] = {}
    refused: dict[RefusedKey, None] = {}
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        line = line.strip(" \t")
        try:
            found[parse_line(line)] = None
        except BadKey as error:
            if line and not line.startswith("#"):
                refused[RefusedKey(_summary(line, number), str(error))] = None
    return list(found), list(refused)


def _summary(line: str, number: int) -> str:
    """Describe a line without anything that may be a secret or control a terminal."""
    match = _SHAPE.fullmatch(line)
    if match is None or len(match[1]) > _LONGEST_TYPE:
        return f"line {number}"
    try:
        data = base64.b64decode(match[2], validate=True)
    except (ValueError, binascii.Error):
        return f"line {number}"
    return f"{match[1]} {fingerprint(data)}"
