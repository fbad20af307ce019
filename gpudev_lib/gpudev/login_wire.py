"""The JSON types of logins, and the text that ``gpu-dev login --ssh`` signs.

These routes are part of version 1 of the API; `gpudev.wire` says how its types are to be read.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from gpudev.wire.base import Request

PAGE = "login"
"""The page where logins are confirmed, below the path of the service (``/services/gpudev/``)."""
NAMESPACE = "login@gpudev"
"""Namespace of the signatures, so that no signature for another purpose is accepted."""
SCOPES = (
    "access:services!service=gpudev",
    "custom:gpudev:reserve",
    "access:servers!user",
    "read:servers!user",
    "read:users:name!user",
)
"""Scopes of a token from a login: use the service, and list and open the owner's servers."""
DAYS = 30
"""Days for which such a token is valid."""
METHOD = "S256"
"""The only method of PKCE (RFC 7636) that is accepted."""

Challenge = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{43}$(?!\n)")]
Verifier = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._~-]{43,128}$(?!\n)")]
Secret = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Device = Annotated[str, msgspec.Meta(max_length=64)]
"""Name of the machine that logs in, which its user reads before they confirm."""


class LoginOffer(msgspec.Struct, kw_only=True):
    """``GET login``: how to log in to this hub."""

    hub: str
    """Public address of the hub. Texts to sign contain it."""
    page: str
    """Address of the page where you confirm a login."""


class LoginCodeRequest(Request):
    """``POST login/codes``: log in without a browser on this machine."""

    code_challenge: Challenge
    """PKCE challenge, method S256."""
    device: Device = ""
    """Name of the machine, shown on the page."""


class LoginCode(msgspec.Struct, kw_only=True):
    """A login that waits until its user types the code on the page."""

    user_code: str
    device_code: str
    """Secret to collect the token with."""
    page: str
    expires_in: int
    """Seconds."""
    interval: int
    """Seconds between two polls."""


class LoginCollect(Request):
    """``POST login/token``: collect the token of a confirmed login; give one of the codes."""

    code_verifier: Verifier
    """The text whose SHA-256 digest is the challenge."""
    code: Secret | None = None
    """From the page, which sent your browser to your machine with it."""
    device_code: Secret | None = None
    """From ``POST login/codes``."""


class LoginNonce(msgspec.Struct, kw_only=True):
    """``POST login/nonces``: what a signature must contain."""

    nonce: str
    expires_at: str


class LoginSignature(Request):
    """``POST login/signatures``: log in with an SSH key of the account.

    The signature is over five lines: ``gpu-dev login``, ``hub: HUB``, ``account: ACCOUNT``, ``nonce: NONCE``
    and ``expires: EXPIRES_AT``. Its namespace is ``login@gpudev``.
    """

    account: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    hub: Annotated[str, msgspec.Meta(max_length=1000)]
    """The address that you use for the hub. It must be the hub's public address."""
    nonce: Secret
    expires_at: Annotated[str, msgspec.Meta(max_length=40)]
    signature: Annotated[str, msgspec.Meta(max_length=12_000)]
    """As ``ssh-keygen -Y sign`` writes it."""
    device: Device = ""


class LoginResult(msgspec.Struct, kw_only=True):
    """The token of a login, or that it still waits for its user."""

    status: Literal["granted", "pending", "slow_down"]
    interval: int | None = None
    """While it waits: seconds until the next poll."""
    token: str | None = None
    user: str | None = None
    created_at: str | None = None
    expires_at: str | None = None


class Renewal(msgspec.Struct, kw_only=True):
    """``POST login/renew``: the successor of a token."""

    token: str | None
    """Null while more than half of the token's life is left, or if no later expiry is possible."""
    created_at: str
    expires_at: str
    last: bool = False
    """Whether the token that you have now cannot be renewed again: log in before it expires."""


class TokenInfo(msgspec.Struct, kw_only=True):
    """``GET login/token``: what the token of the request is."""

    account: str
    """Name of the user at the Hub."""
    user: str
    """Name that is shown."""
    scopes: list[str]
    created_at: str
    expires_at: str | None
    note: str


def statement(hub: str, account: str, nonce: str, expires_at: str) -> bytes:
    """Return the text to sign for a login."""
    fields = {"hub": hub, "account": account, "nonce": nonce, "expires": expires_at}
    lines = ["gpu-dev login", *(f"{name}: {value}" for name, value in fields.items())]
    return "".join(f"{line}\n" for line in lines).encode()
