"""Passwords on one machine: one for the local user, and one that the demo users share."""

from __future__ import annotations

from collections.abc import Mapping
from secrets import compare_digest
from typing import Any

from jupyterhub.auth import Authenticator
from traitlets import Unicode


class LocalAuthenticator(Authenticator):
    """Lets the local user and the demo users in, and makes nobody an admin of the Hub.

    JupyterHub's shared-password authenticator has a second password for admins only. Operators must not be
    admins, who may shut down the Hub, and start and open servers of others.
    """

    local_user = Unicode(config=True, help="The account that everything runs as.")
    local_password = Unicode(config=True, help="The password of the local user.")
    demo_password = Unicode(config=True, help="The password of all others in `allowed_users`.")

    async def authenticate(self, handler: Any, data: Mapping[str, str]) -> dict[str, Any] | None:
        """Return the user with the name and password in ``data``; ``None`` if they do not match."""
        del handler
        name = self.normalize_username(data["username"])
        expected = self.local_password if name == self.local_user else self.demo_password
        given = data["password"].encode("utf-8", "surrogatepass")
        if not expected or not compare_digest(given, expected.encode()):
            return None
        return {"name": name, "admin": False}
