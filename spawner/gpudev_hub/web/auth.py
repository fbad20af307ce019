"""Who is asking: Hub tokens and browser cookies, checked with the Hub itself.

Both faces end in one question to the Hub, ``GET {api}/user`` with the caller's own token, answered from a
small cache for at most ``CACHE`` (so a revoked token is refused that soon). When the Hub does not answer,
nobody new gets in: ``unavailable``, never a guess.
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
from gpudev_hub.turns import Turns

RESERVE = "custom:gpudev:reserve"
"""Hub scope that a token needs to read and manage its owner's reservations."""
OPERATE = "custom:gpudev:operate"
"""Hub scope that makes a token an operator's."""
METRICS = "read:metrics"
"""JupyterHub's own scope for monitoring."""

CACHE: Millis = 30 * SECOND
CACHED = 4096
"""Tokens remembered at once, good ones and bad ones each."""
STRANGERS = 4
"""Tokens never seen before that the Hub is asked about at once: others' requests wait for few of them."""
TURN_TIMEOUT = 10.0
"""Seconds that such a token waits for its turn."""
HUB_TIMEOUT = 5.0
"""Seconds the Hub has to answer who a token belongs to."""
PENDING_LOGINS = 5
"""Logins that one browser may have under way at once, in tabs of its own."""

log = logging.getLogger(__name__)


class HubUser(msgspec.Struct, frozen=True):
    """What the Hub says about the owner of a token."""

    name: str
    kind: str = "user"
    admin: bool = False
    groups: tuple[str, ...] = ()
    scopes: frozenset[str] = frozenset()
    token_id: str | None = None
    """Id of the token itself."""


@dataclass(frozen=True, slots=True)
class Identity:
    """An authenticated person, and what this token or cookie of his may do."""

    owner: Owner
    operator: bool
    of_server: bool = False
    """Whether it is the token of a server, which everyone on the server can read."""


class HubTokens:
    """Asks the Hub who a token belongs to."""

    def __init__(self, hub_api: str, now: Callable[[], Millis], seen: Callable[[HubUser], None]) -> None:
        """``hub_api``: ``http://127.0.0.1:8081/hub/api``; ``now``: the service's clock.

        ``seen``: is told of every person whom the Hub has vouched for just now.
        """
        self._seen = seen
        self._url = hub_api.rstrip("/") + "/user"
        self._now = now
        self._client = httpx.AsyncClient(timeout=HUB_TIMEOUT, trust_env=False)
        self._good: OrderedDict[bytes, tuple[Millis, HubUser]] = OrderedDict()
        """Kept beyond their time: whoever was known before is asked about at once."""
        self._bad: OrderedDict[bytes, Millis] = OrderedDict()
        self._strangers = Turns(STRANGERS)
        self._asking: dict[bytes, asyncio.Task[HubUser | None]] = {}
        self._hub_away = False

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()

    async def user(self, token: str, peer: str = "") -> HubUser | None:
        """The token's owner, ``None`` if the Hub knows no such token.

        ``peer``: the address that sent it. Of tokens that were never good before, the Hub is asked about a
        few at a time, from each address in turn: guesses delay only others from the same address, and
        nobody is refused for them. Raises ``Refused`` (``unavailable``) when the Hub gives no clear answer.
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
            # Everybody who asked may have gone; an exception that nobody takes is logged as a defect.
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
    """JupyterHub's OAuth dance and XSRF check for browsers, with our look-up of tokens behind it."""

    tokens: HubTokens

    def set_state_cookie(self, handler: Any, next_url: str | None = None, **arguments: Any) -> str:
        """As JupyterHub, and clear the cookies of all but the newest logins that were not finished.

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
        """The owner of the token that a log-in brought, as a model of the Hub's."""
        del use_cache, session_id  # one cache for all, keyed by the token alone
        if sync:
            raise RuntimeError("asking the Hub would block the service")
        return self._model(token)

    async def _model(self, token: str) -> dict[str, object] | None:
        user = await self.tokens.user(token)
        return None if user is None else {"kind": user.kind, "name": user.name}


class Auth:
    """Everything the handlers ask about callers: authentication against one Hub."""

    def __init__(
        self,
        *,
        hub_api: str,
        api_token: str,
        cookie_secret: bytes,
        owner: Callable[[HubUser], Owner],
        seen: Callable[[str], None],
        now: Callable[[], Millis],
        prefix: str,
        host: str = "",
        secure: bool = False,
    ) -> None:
        """``hub_api``: the Hub's REST API as this process reaches it.

        ``api_token``: the service's own token there (it is also the OAuth client's secret);
        ``owner``: who a user of the Hub is to the queue;
        ``seen``: is told of subjects whom the Hub has vouched for just now;
        ``prefix``: path of the service as browsers see it;
        ``host``: scheme and host of Hub and service, where users' servers are at others;
        ``secure``: browsers reach them by https alone.
        """
        self.tokens = HubTokens(hub_api, now, lambda user: seen(owner(user).subject))
        self.browser = BrowserLogin(
            api_url=hub_api,
            api_token=api_token,
            base_url=prefix,
            hub_prefix="/hub/",
            oauth_client_id="service-gpudev",
            oauth_redirect_uri=f"{host}{prefix}oauth_callback",
            cookie_options={"samesite": "Lax"} | ({"secure": True} if secure else {}),
            access_scopes=set(),
        )
        self.browser.tokens = self.tokens
        self.cookie_secret = cookie_secret
        self._owner = owner

    def owner_named(self, hub_user: str) -> Owner:
        """Who a user of the Hub is to the queue."""
        return self._owner(HubUser(hub_user))

    def identify(self, user: HubUser, *, cookie: bool) -> Identity:
        """The identity behind a token; raises ``Refused`` (``forbidden``) if it may not reserve.

        A Hub admin is an operator in his browser. A token of his is one only if it carries that power
        itself: the token of an admin's notebook server does not.
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
        # A person's token may have a single server, too: one that somebody shares with them.
        all_servers = {"access:servers", f"access:servers!user={user.name}"}
        of_server = not all_servers & user.scopes and any(
            scope.startswith("access:servers!server=") for scope in user.scopes
        )
        return Identity(self._owner(user), operator, of_server)
