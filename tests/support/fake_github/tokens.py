"""Find out who sent a request: App JWTs, installation tokens and user tokens."""

from __future__ import annotations

import base64
import binascii
import secrets
from dataclasses import dataclass

import jwt

from .http import Failed, Request
from .state import HOUR, Account, Installation, InstallationToken, State, Window

LONGEST = 600
"""The longest time in seconds until an App JWT expires."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request.

    ``kind``: ``app``, ``installation``, ``user``, ``client`` (id and secret), ``address`` (no credentials).
    """

    kind: str
    name: str
    token: str = ""
    installation: Installation | None = None
    permissions: dict[str, str] | None = None
    account: Account | None = None

    def may(self, permission: str) -> bool:
        """Return whether an installation token has a permission; true for other callers."""
        return self.permissions is None or permission in self.permissions


def caller(state: State, request: Request) -> Caller:
    """Return who sent the request. Raises ``Failed`` if credentials are wrong, expired or suspended."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        check_client(state, request)
        return Caller("client", state.app.client_id)
    if scheme.lower() not in ("bearer", "token") or not token:
        return Caller("address", request.address)
    if token in state.installation_tokens:
        return _installation(state, token, state.installation_tokens[token])
    if token in state.user_tokens:
        entry = state.user_tokens[token]
        account = state.accounts.get(entry.account)
        if entry.expires_at <= state.now() or account is None:
            raise Failed(401, "Bad credentials")
        if account.suspended:
            raise Failed(403, "Sorry. Your account was suspended.")
        return Caller("user", str(account.id), token, account=account)
    if token.startswith("gh") or token.count(".") != 2:
        raise Failed(401, "Bad credentials")
    check_jwt(state, token)
    return Caller("app", str(state.app.id), token)


def _installation(state: State, token: str, entry: InstallationToken) -> Caller:
    installation = state.installations.get(entry.installation)
    if installation is None or entry.expires_at <= state.now():
        raise Failed(401, "Bad credentials")
    if installation.suspended:
        raise Failed(403, "This installation has been suspended")
    # When an owner removes a permission, existing tokens lose it, too.
    permissions = {
        name: level for name, level in entry.permissions.items() if name in installation.permissions
    }
    return Caller("installation", str(installation.id), token, installation, permissions)


def check_jwt(state: State, token: str) -> None:
    """Verify an App JWT: RS256, ``iss`` is the App, ``iat`` is past, ``exp`` at most ten minutes ahead."""
    try:
        claims = jwt.decode(
            token,
            state.app.public_key,
            algorithms=["RS256"],
            options={"verify_exp": False, "verify_iat": False, "verify_iss": False},
        )
    except jwt.InvalidTokenError:
        raise Failed(401, "A JSON web token could not be decoded") from None
    now = state.now()
    expires, issued = claims.get("exp"), claims.get("iat")
    if not isinstance(issued, int) or issued > now:
        raise Failed(
            401,
            "'Issued at' claim ('iat') must be an Integer representing the time of the assertion",
        )
    if not isinstance(expires, int) or expires <= now:
        raise Failed(
            401,
            "'Expiration time' claim ('exp') must be a numeric value representing the future time at which "
            "the assertion expires",
        )
    if expires > now + LONGEST:
        raise Failed(401, "'Expiration time' claim ('exp') is too far in the future")
    if str(claims.get("iss")) not in (str(state.app.id), state.app.client_id):
        raise Failed(404, "Integration not found")


def new_installation_token(
    state: State, installation: Installation, permissions: dict[str, str]
) -> tuple[str, float]:
    """Create a token for one hour, in the long form: ``ghs_APPID_`` and text that looks like a JWT."""
    parts = (secrets.token_urlsafe(24), secrets.token_urlsafe(220), secrets.token_urlsafe(64))
    token = f"ghs_{state.app.id}_{'.'.join(parts)}"
    expires_at = state.now() + HOUR
    state.installation_tokens[token] = InstallationToken(installation.id, permissions, expires_at)
    return token, expires_at


def check_client(state: State, request: Request) -> None:
    """Check basic authentication with the App's client id and secret. Raises ``Failed``."""
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    try:
        name, _, secret = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        name, secret = "", ""
    good = secrets.compare_digest(secret.encode(), state.app.client_secret.encode())
    if scheme.lower() != "basic" or name != state.app.client_id or not good:
        raise Failed(401, "Bad credentials")


def window_of(state: State, asker: Caller) -> Window:
    """Return the hourly limit that a caller's requests count against."""
    if asker.kind in ("app", "client"):
        return state.window("installation", asker.kind)
    return state.window(asker.kind, asker.name)
