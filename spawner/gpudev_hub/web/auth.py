"""Authentication of callers by Hub tokens and browser cookies. The Hub itself checks them.

Both are checked with ``GET {api}/user`` and the caller's own token. Answers are cached for at most ``CACHE``,
so a revoked token is refused after that time. While the Hub does not answer, unknown tokens are refused with
``unavailable``.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec
from jupyterhub.services.auth import HubOAuth

from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.model import SECOND, Millis, Owner
from gpudev_hub.origins import origin
from gpudev_hub.turns import Turns

from .settings import WebSettings

RESERVE = "custom:gpudev:reserve"
"""Hub scope that a token needs to read and manage its owner's reservations."""
OPERATE = "custom:gpudev:operate"
"""Hub scope that makes a token an operator's."""
METRICS = "read:metrics"
"""JupyterHub's own scope for monitoring."""

CACHE: Millis = 30 * SECOND
CACHED = 4096
"""Most valid tokens that are remembered, and most invalid ones."""
STRANGERS = 4
"""Most unknown tokens that the Hub checks at the same time, so that they do not delay known users."""
TURN_TIMEOUT = 10.0
"""Seconds that an unknown token waits for its turn."""
HUB_TIMEOUT = 5.0
"""Seconds that the Hub has to answer."""
PENDING_LOGINS = 5
"""Most unfinished logins of one browser, each in its own tab."""

log = logging.getLogger(__name__)


class HubUser(msgspec.Struct, frozen=True):
    """What the Hub says about the owner of a token."""

    name: str
    kind: str = "user"
    admin: bool = False
    scopes: frozenset[str] = frozenset()
    token_id: str | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """An authenticated person, and what their token or cookie permits."""

    owner: Owner
    operator: bool
    of_server: bool = False
    """Whether the token belongs to a server: everyone with access to the server can read it."""


class HubTokens:
    """Asks the Hub for the owners of tokens."""

    def __init__(self, hub_api: str, now: Callable[[], Millis], seen: Callable[[HubUser], None]) -> None:
        """``hub_api``: ``http://127.0.0.1:8081/hub/api``; ``seen``: called with the users of valid tokens."""
        self._seen = seen
        self._url = hub_api.rstrip("/") + "/user"
        self._now = now
        self._client = httpx.AsyncClient(timeout=HUB_TIMEOUT, trust_env=False)
        self._good: OrderedDict[bytes, tuple[Millis, HubUser]] = OrderedDict()
        """Kept after they expire: tokens that were valid once are checked again without a turn."""
        self._bad: OrderedDict[bytes, Millis] = OrderedDict()
        self._strangers = Turns(STRANGERS)
        self._asking: dict[bytes, asyncio.Task[HubUser | None]] = {}
        self._hub_away = False

    async def close(self) -> None:
        await self._client.aclose()

    async def user(self, token: str, peer: str = "") -> HubUser | None:
        """Return the owner of a token, ``None`` if the Hub does not know it.

        ``peer``: the address that sent it. The Hub checks only a few unknown tokens at a time, from each
        address in turn, so that guesses delay only requests from the same address. Raises ``Refused``
        (``unavailable``) if the Hub gives no clear answer.
        """
        key, now = _digest(token), self._now()
        known = self._good.get(key)
        if known is not None and now < known[0]:
            return known[1]
        if now < self._bad.get(key, 0):
            return None
        task = self._asking.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._ask(key, token, peer))
            self._asking[key] = task
            task.add_done_callback(lambda done: self._asked(key, done))
        return await asyncio.shield(task)

    def forget(self, token: str) -> None:
        """Ask the Hub again about a token at its next use."""
        self._good.pop(_digest(token), None)

    def _asked(self, key: bytes, done: asyncio.Task[HubUser | None]) -> None:
        self._asking.pop(key, None)
        if not done.cancelled():
            # Nobody may wait any more, and asyncio logs exceptions that nobody reads.
            done.exception()

    async def _ask(self, key: bytes, token: str, peer: str) -> HubUser | None:
        if key in self._good:
            return await self._look_up(key, token)
        try:
            async with asyncio.timeout(TURN_TIMEOUT) as patience, self._strangers.one(peer):
                patience.reschedule(None)
                return await self._look_up(key, token)
        except TimeoutError as error:
            raise self._away("too many unknown tokens wait to be checked") from error

    async def _look_up(self, key: bytes, token: str) -> HubUser | None:
        until = self._now() + CACHE
        try:
            answer = await self._client.get(self._url, headers={"Authorization": f"token {token}"})
        except httpx.HTTPError as error:
            raise self._away(type(error).__name__) from error
        if answer.status_code in (200, 401, 403) and self._hub_away:
            self._hub_away = False
            log.warning("the Hub checks tokens again")
        if answer.status_code in (401, 403):
            self._good.pop(key, None)
            self._bad[key] = until
            _forget_oldest(self._bad)
            return None
        if answer.status_code != 200:
            raise self._away(f"status {answer.status_code}")
        try:
            user = msgspec.json.decode(answer.content, type=HubUser)
        except msgspec.MsgspecError as error:
            raise self._away("the answer is not a user") from error
        if user.kind == "user":
            self._seen(user)
        self._good[key] = (until, user)
        self._good.move_to_end(key)
        _forget_oldest(self._good)
        return user

    def _away(self, what: str) -> Refused:
        if not self._hub_away:
            log.warning("the Hub did not check a token: %s", what)
        self._hub_away = True
        return Refused(
            Code.UNAVAILABLE,
            "The Hub did not answer, so this token could not be checked.",
            "Nothing was changed. Try again in a few seconds.",
        )


def _forget_oldest(cache: OrderedDict[bytes, Any]) -> None:
    if len(cache) > CACHED:
        cache.popitem(last=False)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


class BrowserLogin(HubOAuth):
    """JupyterHub's OAuth login and XSRF check for browsers, with tokens looked up by ``HubTokens``."""

    tokens: HubTokens

    def set_state_cookie(self, handler: Any, next_url: str | None = None, **arguments: Any) -> str:
        """Set the cookie as JupyterHub does, and clear the cookies of all but the newest unfinished logins.

        While nobody can log in, each reload of a page starts one more login. A browser keeps its cookie for
        ten minutes, and the proxy refuses requests with too many cookies (431).
        """
        # Browsers send the oldest first (RFC 6265, section 5.4).
        pending = [name for name in handler.request.cookies if name.startswith(self.state_cookie_name)]
        for name in pending[: max(0, len(pending) - PENDING_LOGINS + 1)]:
            self._clear_cookie(handler, name, path=self.cookie_path)
        return str(super().set_state_cookie(handler, next_url, **arguments))

    def user_for_token(
        self, token: str, use_cache: bool = True, session_id: str = "", *, sync: bool = True
    ) -> Awaitable[dict[str, object] | None]:
        """Return the owner of a token from a login as the Hub's API describes them."""
        del use_cache, session_id  # ``HubTokens`` has the only cache
        if sync:
            raise RuntimeError("asking the Hub would block the service")
        return self._model(token)

    async def _model(self, token: str) -> dict[str, object] | None:
        user = await self.tokens.user(token)
        return None if user is None else {"kind": user.kind, "name": user.name}


class Auth:
    """Authentication of callers by one Hub."""

    def __init__(
        self,
        *,
        hub_api: str,
        api_token: str,
        cookie_secret: bytes,
        owner: Callable[[HubUser], Owner],
        seen: Callable[[str], None],
        now: Callable[[], Millis],
        settings: WebSettings,
    ) -> None:
        """``hub_api``: the Hub's REST API as this process reaches it.

        ``api_token``: the service's own token for it, which is also the secret of the OAuth client;
        ``owner``: returns the owner of reservations for a user of the Hub;
        ``seen``: is called with each subject whose token the Hub has just confirmed.
        """
        secure = settings.public_url.startswith("https:")
        # With subdomains, users' servers have other hosts, so the address needs the host of the service.
        host = origin(settings.public_url) if settings.subdomains else ""
        self.tokens = HubTokens(hub_api, now, lambda user: seen(owner(user).subject))
        self.browser = BrowserLogin(
            api_url=hub_api,
            api_token=api_token,
            base_url=settings.prefix,
            hub_prefix="/hub/",
            oauth_client_id="service-gpudev",
            oauth_redirect_uri=f"{host}{settings.prefix}oauth_callback",
            cookie_options={"samesite": "Lax"} | ({"secure": True} if secure else {}),
            access_scopes=set(),
        )
        self.browser.tokens = self.tokens
        self.cookie_secret = cookie_secret
        self._owner = owner

    def owner_named(self, hub_user: str) -> Owner:
        """Return the owner of reservations for a user of the Hub."""
        return self._owner(HubUser(hub_user))

    def identify(self, user: HubUser, *, cookie: bool) -> Identity:
        """Return the identity for a token. Raises ``Refused`` (``forbidden``) if the token cannot reserve.

        An admin of the Hub is an operator in their browser. A token of an admin is an operator token only if
        it has the scope itself; the token of an admin's server does not have it.
        """
        if user.kind != "user":
            raise Refused(
                Code.FORBIDDEN,
                f"This token belongs to the {user.kind} {user.name} of the Hub, not to a user.",
                "Use the token of a user.",
            )
        if RESERVE not in user.scopes:
            raise Refused(
                Code.FORBIDDEN,
                f"This token of {user.name} does not have the scope {RESERVE}.",
                "Make a token with this scope: run `gpu-dev login`, or use the Tokens page of the hub.",
            )
        operator = OPERATE in user.scopes or (user.admin and (cookie or "admin:servers" in user.scopes))
        # A user's own token can also have a single server: one that is shared with them.
        all_servers = {"access:servers", f"access:servers!user={user.name}"}
        of_server = not all_servers & user.scopes and any(
            scope.startswith("access:servers!server=") for scope in user.scopes
        )
        return Identity(self._owner(user), operator, of_server)
