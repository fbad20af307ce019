"""Passwords on one machine: one of the local user's, one that the demo users share."""

from __future__ import annotations

from collections.abc import Mapping
from secrets import compare_digest
from typing import Any

from jupyterhub.auth import Authenticator
from traitlets import Unicode


class LocalAuthenticator(Authenticator):
    """Let the local user and the demo users in, and make nobody an admin of the Hub.

    JupyterHub's own shared-password authenticator keeps a second password for its admins only, and an admin
    may shut the Hub down, start servers for others and open theirs. An operator needs none of that.
    """

    local_user = Unicode(config=True, help="The account that everything runs as.")
    local_password = Unicode(config=True, help="The password of the local user.")
    demo_password = Unicode(config=True, help="The password of all others in `allowed_users`.")

    async def authenticate(self, handler: Any, data: Mapping[str, str]) -> dict[str, Any] | None:
        """Return the user whose name and password ``data`` holds, ``None`` if they do not fit."""
        del handler
        name = self.normalize_username(data["username"])
        expected = self.local_password if name == self.local_user else self.demo_password
        given = data["password"].encode("utf-8", "surrogatepass")
        if not expected or not compare_digest(given, expected.encode()):
            return None
        return {"name": name, "admin": False}
