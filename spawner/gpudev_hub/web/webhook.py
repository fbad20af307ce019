"""Deliveries of GitHub's webhook: hints that the access of a person may have changed.

The service does not rely on their content: it asks GitHub about the person, as a sweep does. Without a secret
in the settings, deliveries are refused.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

import msgspec

from gpudev_hub.core.errors import Code, Refused

from .base import BaseHandler
from .limits import network

PATH: Final = "github/webhook"
MOST_BYTES: Final = 512 * 1024
"""Largest delivery that is read. GitHub sends up to 25 MB for other kinds of events."""


class _Account(msgspec.Struct):
    id: int


class _Membership(msgspec.Struct):
    user: _Account | None = None


class _Delivery(msgspec.Struct):
    member: _Account | None = None
    """Of the events ``membership`` and ``member``."""
    membership: _Membership | None = None
    """Of the event ``organization``."""


class Webhook(BaseHandler):
    """``POST github/webhook``."""

    def check_xsrf_cookie(self) -> None:
        """Check nothing: GitHub sends signatures instead of cookies."""

    async def post(self) -> None:
        """Accept a signed delivery with 204, before it is processed. Raises ``Refused`` for others."""
        secret, sweep = self.site.webhook_secret, self.site.service.access.sweep
        if secret is None or sweep is None:
            raise Refused(Code.NOT_FOUND, "This hub takes no deliveries from GitHub.")
        expected = "sha256=" + hmac.new(secret.encode(), self.request.body, hashlib.sha256).hexdigest()
        given = self.request.headers.get("X-Hub-Signature-256", "")
        if not hmac.compare_digest(expected.encode(), given.encode("utf-8", "surrogateescape")):
            self.site.strangers.spend(network(self.peer))
            raise Refused(
                Code.UNAUTHENTICATED,
                "The signature of this delivery is not valid.",
                "Set the same secret in the GitHub App and in webhook_secret_file.",
            )
        try:
            delivery = msgspec.json.decode(self.request.body, type=_Delivery)
        except msgspec.MsgspecError as error:
            raise Refused(
                Code.INVALID_REQUEST,
                f"The delivery cannot be read: {error}.",
                "Choose the content type application/json in the GitHub App.",
            ) from error
        if self.request.headers.get("X-GitHub-Event") != "ping":
            member = delivery.member or (delivery.membership.user if delivery.membership else None)
            sweep.hint(None if member is None else member.id)
        self.set_status(204)
        self.finish()
