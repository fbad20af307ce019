"""Logins of command lines that are in progress, and the tokens that they get.

The Hub makes each token for its owner, with the scopes of `SCOPES` and an expiry. Addresses and logs of the
service never have codes, nonces or tokens.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

from gpudev import login_wire as wire
from gpudev_hub.core.errors import TRY_AGAIN, Code, Refused
from gpudev_hub.core.model import SECOND, Millis, Owner
from gpudev_hub.core.ports import HubUnavailable
from gpudev_hub.core.words import printable
from gpudev_hub.service.hubclient import HubClient, HubToken, TokenRefused
from gpudev_hub.ssh.directory import KeyDirectory
from gpudev_hub.times import rfc3339

from .limits import Limiter
from .login_codes import Asks, Grants, Nonces
from .login_lives import note_of
from .settings import WebSettings

log = logging.getLogger("gpudev.login")

LIFE: Final = wire.DAYS * 24 * 3600
"""Seconds for which a token is valid."""
NOTE: Final = "gpu-dev login"
"""Start of the note of tokens from logins. Other tokens are not renewed."""


class Logins:
    """Logins in progress, with what they need: the Hub's tokens and users' SSH keys."""

    def __init__(
        self, hub: HubClient, keys: KeyDirectory, settings: WebSettings, now: Callable[[], Millis]
    ) -> None:
        self.hub = hub
        self.keys = keys
        self.now = now
        self.grants = Grants()
        self.asks = Asks()
        self.nonces = Nonces()
        self.starts = Limiter(settings.logins, now, "logins from this address")
        self.failures = Limiter(settings.login_failures, now, "failed logins from this address")
        self.successors: OrderedDict[str, str] = OrderedDict()
        """Ids of successors, by the id of the renewed token."""

    async def mint(self, owner: Owner, device: str, *, method: str, peer: str) -> wire.LoginResult:
        """Return a new token for an authenticated user. Raises ``Refused``."""
        now = datetime.fromtimestamp(self.now() / SECOND, UTC)
        token, made = await self.make(owner, note_of(NOTE, shown_device(device), method, now), LIFE)
        fields = {
            "event": "login",
            "method": method,
            "subject": owner.subject,
            "hub_user": owner.hub_user,
            "device": shown_device(device),
            "peer": peer,
            "token_id": made.id,
            "expires_at": shown_time(made.expires_at),
        }
        log.info("token made for a command line of %s", owner.hub_user, extra={"fields": fields})
        return wire.LoginResult(
            status="granted",
            token=token,
            user=owner.login,
            created_at=shown_time(made.created_at),
            expires_at=shown_time(made.expires_at),
        )

    async def make(self, owner: Owner, note: str, life: int) -> tuple[str, HubToken]:
        """Have the Hub make a token that is valid for ``life`` seconds. Raises ``Refused``."""
        try:
            with hub_answers():
                return await self.hub.make_token(owner.hub_user, wire.SCOPES, note, life)
        except TokenRefused as error:
            raise Refused(
                Code.FORBIDDEN,
                f"The Hub refused to make a token for {owner.login}: {error}.",
                "Contact an operator.",
            ) from error


@contextmanager
def hub_answers() -> Iterator[None]:
    """Raise ``Refused`` (``unavailable``) if the Hub does not answer."""
    try:
        yield
    except HubUnavailable as error:
        log.warning("the Hub did not do what a login needs: %s", error)
        raise Refused(
            Code.UNAVAILABLE, "The Hub did not answer, so the login could not be completed.", TRY_AGAIN
        ) from error


def shown_device(device: str) -> str:
    """Return the name of a machine without control characters."""
    return printable(device).strip() or "an unnamed machine"


def shown_time(at: datetime | None) -> str | None:
    """Return a time from the Hub for the API."""
    return None if at is None else rfc3339(round(at.timestamp() * SECOND))
