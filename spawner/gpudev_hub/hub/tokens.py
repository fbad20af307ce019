"""Limits on the API tokens that people create at the Hub.

Without them, a script could fill the Hub's database, and the page of tokens would block it for seconds.
"""

from __future__ import annotations

from typing import Any, Final

from jupyterhub import orm
from jupyterhub.apihandlers.users import UserTokenListAPIHandler
from tornado.web import HTTPError

MOST: Final = 1000
"""Most API tokens of one user, without those of browsers and servers."""
LONGEST_NOTE: Final = 500
"""Most characters of the note of a token."""
LONGEST_LIFE: Final = 365 * 24 * 3600
"""Seconds until a token expires at the latest; JupyterHub enforces it."""

_hubs_post = UserTokenListAPIHandler.post


def limit_tokens() -> None:
    """Apply the limits in the JupyterHub of this process."""
    UserTokenListAPIHandler.post = _post


async def _post(self: Any, user_name: str) -> None:
    body = self.get_json_body()
    asked = body if isinstance(body, dict) else {}
    note = asked.get("note")
    if note is not None and not isinstance(note, str):
        raise HTTPError(400, "The note of a token must be text.")
    if note is not None and len(note) > LONGEST_NOTE:
        raise HTTPError(400, f"The note has {len(note)} characters; the limit is {LONGEST_NOTE}.")
    user = self.find_user(user_name)
    if user is not None:
        # The Hub removes expired tokens itself.
        count = self.db.query(orm.APIToken).filter_by(user_id=user.id, client_id="jupyterhub").count()
        if count >= MOST:
            raise HTTPError(
                403, f"{user_name} has {count} API tokens; the limit is {MOST}. Revoke tokens at /hub/token."
            )
    await _hubs_post(self, user_name)
