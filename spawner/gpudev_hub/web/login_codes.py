"""Codes of logins that wait to be confirmed or collected. Each code works once, for a short time.

Codes are only in memory: after a restart of the service, users start their logins again.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import ClassVar, Final, Generic, Literal, TypeVar

from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.model import MINUTE, SECOND, Millis, Owner

from .limits import RateLimited, network

GRANT_LIFE: Final[Millis] = 60 * SECOND
"""How long a confirmed login waits to be collected."""
ASK_LIFE: Final[Millis] = 10 * MINUTE
"""How long a code that people type is valid."""
NONCE_LIFE: Final[Millis] = 2 * MINUTE
INTERVAL: Final = 5
"""Seconds between two polls. A poll that is too early lengthens the interval by as much."""
LONGEST_INTERVAL: Final = 60
MOST: Final = 2000
"""Most entries of one kind."""
MOST_OF_ONE: Final = 20
"""Most entries of one kind for one address or user."""
LETTERS: Final = "BCDFGHJKLMNPQRSTVWXZ"
"""Letters of codes that users type: no vowels, so that no words result, and no digits that look alike."""
CODE_LENGTH: Final = 8

AGAIN: Final = "Start again with: gpu-dev login"
T = TypeVar("T")


def code_expired() -> Refused:
    """Return the refusal of a code that is unknown, used or expired, without saying which."""
    return Refused(Code.UNAUTHENTICATED, "This login code is not valid: it was used or has expired.", AGAIN)


@dataclass(frozen=True, slots=True)
class Grant:
    """A login that its user has confirmed."""

    owner: Owner
    challenge: str
    device: str


@dataclass(slots=True)
class Asked:
    """A login that waits until its user types the code on a page."""

    user_code: str
    challenge: str
    device: str
    address: str
    """Network address that requested it."""
    asked_at: Millis
    interval: int = INTERVAL
    polled_at: Millis | None = None
    owner: Owner | None = None
    """Who confirmed it."""
    denied: bool = False


@dataclass(frozen=True, slots=True)
class Poll:
    """The answer to a poll."""

    status: Literal["pending", "slow_down", "granted"]
    interval: int
    grant: Grant | None = None


class _Table(Generic[T]):
    """Entries by their secrets until they expire, limited in number."""

    what: ClassVar[str]
    """What the entries of one user or address are called in a refusal."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[T, str, Millis]] = {}
        """Entry, its user or address, and when it expires."""

    def _add(self, entry: T, of: str, now: Millis, until: Millis) -> str:
        """Return a new secret for an entry. Raises ``RateLimited`` above the limits."""
        self._forget(now)
        count = sum(other == of for _, other, _ in self._entries.values())
        if count >= MOST_OF_ONE or len(self._entries) >= MOST:
            raise RateLimited(f"Too many {self.what} are under way.", 60)
        secret = secrets.token_urlsafe(32)
        self._entries[secret] = entry, of, until
        return secret

    def _get(self, secret: str, now: Millis) -> T | None:
        self._forget(now)
        return self._entries.get(secret, (None, "", 0))[0]

    def take(self, secret: str, now: Millis) -> T | None:
        """Return and delete an entry, ``None`` if the secret is unknown, used or expired."""
        found = self._get(secret, now)
        self._entries.pop(secret, None)
        return found

    def _forget(self, now: Millis) -> None:
        self._entries = {key: entry for key, entry in self._entries.items() if entry[2] > now}


class Grants(_Table[Grant]):
    """Codes of confirmed logins. The browser passes them to the command line, and each works once."""

    what = "logins of this user"

    def add(self, owner: Owner, challenge: str, device: str, now: Millis) -> str:
        """Return a new code. Raises ``RateLimited`` above the limits."""
        return self._add(Grant(owner, challenge, device), owner.subject, now, now + GRANT_LIFE)

    def redeem(self, code: str, verifier: str, now: Millis) -> Grant:
        """Return the login of a code, and delete the code, even if the verifier is wrong.

        Raises ``Refused`` (``unauthenticated``).
        """
        grant = self.take(code, now)
        if grant is None or not verified(verifier, grant.challenge):
            raise code_expired()
        return grant


class Asks(_Table[Asked]):
    """Logins of machines without a browser, each with a code to type and a secret to poll with (RFC 8628)."""

    what = "logins from this address"

    def add(self, challenge: str, device: str, address: str, now: Millis) -> tuple[str, Asked]:
        """Return a secret for polls, and the login with its code. Raises ``RateLimited`` above the limits."""
        code = _new_code()
        while self._with(code):
            code = _new_code()
        asked = Asked(code, challenge, device, address, now)
        return self._add(asked, network(address), now, now + ASK_LIFE), asked

    def _with(self, code: str) -> Asked | None:
        return next((asked for asked, _, _ in self._entries.values() if asked.user_code == code), None)

    def find(self, typed: str, now: Millis) -> Asked | None:
        """Return the login that waits for a typed code, ``None`` if there is none."""
        self._forget(now)
        asked = self._with(clean_code(typed))
        return asked if asked is not None and asked.owner is None and not asked.denied else None

    def poll(self, secret: str, verifier: str, now: Millis) -> Poll:
        """Return whether the login is confirmed, and delete the secret if so.

        Raises ``Refused``: ``unauthenticated`` for an unknown or expired secret, ``forbidden`` if the user
        refused the login.
        """
        asked = self._get(secret, now)
        if asked is None or not verified(verifier, asked.challenge):
            raise code_expired()
        if asked.denied:
            self.take(secret, now)
            raise Refused(Code.FORBIDDEN, "The login was refused on the hub's page.", AGAIN)
        if asked.owner is not None:
            self.take(secret, now)
            return Poll("granted", asked.interval, Grant(asked.owner, asked.challenge, asked.device))
        early = asked.polled_at is not None and now - asked.polled_at < (asked.interval - 1) * SECOND
        asked.polled_at = now
        if early:
            asked.interval = min(asked.interval + INTERVAL, LONGEST_INTERVAL)
        return Poll("slow_down" if early else "pending", asked.interval)


class Nonces(_Table[Millis]):
    """Random numbers for signatures, each accepted once. The entries are the times when they expire."""

    what = "logins from this address"

    def add(self, address: str, now: Millis) -> tuple[str, Millis]:
        """Return a new number, and when it expires. Raises ``RateLimited`` above the limits."""
        until = now + NONCE_LIFE
        return self._add(until, network(address), now, until), until


def verified(verifier: str, challenge: str) -> bool:
    """Return whether a PKCE verifier belongs to a challenge (RFC 7636, method S256)."""
    digest = hashlib.sha256(verifier.encode()).digest()
    made = base64.urlsafe_b64encode(digest).decode().rstrip("=")
    return hmac.compare_digest(made.encode(), challenge.encode())


def clean_code(typed: str) -> str:
    """Return a typed code in capital letters, without spaces and hyphens."""
    return "".join(typed.split()).replace("-", "").upper()


def shown_code(code: str) -> str:
    """Return a code with a hyphen: ``BCDF-GHJK``."""
    return f"{code[: CODE_LENGTH // 2]}-{code[CODE_LENGTH // 2 :]}"


def _new_code() -> str:
    return "".join(secrets.choice(LETTERS) for _ in range(CODE_LENGTH))
