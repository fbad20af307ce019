"""Routes for logins: with a browser on the same machine, with a code to type, or with an SSH key.

Each login gives a token. Its owner can look it up, renew it and delete it.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

from gpudev import login_wire as wire
from gpudev.wire import API
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.model import SECOND, Owner
from gpudev_hub.origins import origin
from gpudev_hub.service.hubclient import HubToken
from gpudev_hub.ssh.keygen import KeygenFailed
from gpudev_hub.ssh.signatures import signed_by
from gpudev_hub.times import rfc3339

from .auth import HubUser
from .limits import network
from .login import LIFE, NOTE, hub_answers, shown_time
from .login_codes import ASK_LIFE, shown_code
from .login_lives import is_last, successor_of
from .routes import Access, Call, route
from .settings import WebSettings
from .site import Site

log = logging.getLogger("gpudev.login")

REMEMBERED: Final = 4096
"""Most renewed tokens whose successors are remembered."""
ROOT: Final = f"{API}/login"
LIMITED: Final = (Code.RATE_LIMITED, Code.UNAVAILABLE)
PROOF: Final = (*LIMITED, Code.UNAUTHENTICATED, Code.FORBIDDEN)
NO_SIGNATURE: Final = "No SSH key of this account made the signature."


def page_address(settings: WebSettings) -> str:
    """Return the address of the page where logins are confirmed."""
    return f"{origin(settings.public_url)}{settings.prefix}{wire.PAGE}"


@route("GET", ROOT, access=Access.ANYBODY)
async def offer_login(call: Call) -> wire.LoginOffer:
    """Return the public address of this hub, and the page where a login is confirmed."""
    settings = call.site.settings
    return wire.LoginOffer(hub=settings.public_url.rstrip("/"), page=page_address(settings))


@route("POST", f"{ROOT}/codes", *LIMITED, access=Access.ANYBODY)
async def start_login(call: Call, body: wire.LoginCodeRequest) -> wire.LoginCode:
    """Start a login without a browser: return a code to type on the page, and a secret to poll with."""
    logins = call.site.logins
    logins.starts.spend(network(call.peer))
    secret, asked = logins.asks.add(body.code_challenge, body.device, call.peer, logins.now())
    return wire.LoginCode(
        user_code=shown_code(asked.user_code),
        device_code=secret,
        page=page_address(call.site.settings),
        expires_in=ASK_LIFE // SECOND,
        interval=asked.interval,
    )


@route("POST", f"{ROOT}/token", *PROOF, access=Access.ANYBODY)
async def collect_login(call: Call, body: wire.LoginCollect) -> wire.LoginResult:
    """Return the token of a login that its user has confirmed. Each code works once.

    The code from the browser is valid for 60 seconds, the device code for 10 minutes.
    """
    logins = call.site.logins
    if (body.code is None) == (body.device_code is None):
        raise Refused(
            Code.INVALID_REQUEST, "The body must have one of code and device_code.", "Give one of them."
        )
    logins.failures.check(network(call.peer))
    try:
        if body.code is not None:
            grant, method = logins.grants.redeem(body.code, body.code_verifier, logins.now()), "browser"
        else:
            poll = logins.asks.poll(body.device_code or "", body.code_verifier, logins.now())
            if poll.grant is None:
                return wire.LoginResult(status=poll.status, interval=poll.interval)
            grant, method = poll.grant, "code"
    except Refused as refused:
        if refused.code is Code.UNAUTHENTICATED:
            logins.failures.spend(network(call.peer))
        raise
    call.site.check_access(grant.owner)
    return await logins.mint(grant.owner, grant.device, method=method, peer=call.peer)


@route("POST", f"{ROOT}/nonces", *LIMITED, access=Access.ANYBODY)
async def new_nonce(call: Call) -> wire.LoginNonce:
    """Return a random number for the text that an SSH key signs. It works once, for two minutes."""
    logins = call.site.logins
    logins.starts.spend(network(call.peer))
    nonce, until = logins.nonces.add(call.peer, logins.now())
    return wire.LoginNonce(nonce=nonce, expires_at=rfc3339(until))


@route("POST", f"{ROOT}/signatures", *PROOF, access=Access.ANYBODY)
async def login_by_key(call: Call, body: wire.LoginSignature) -> wire.LoginResult:
    """Return a token for the account whose SSH key signed the text."""
    logins = call.site.logins
    logins.failures.check(network(call.peer))
    try:
        owner = await _signer(call.site, body)
    except Refused as refused:
        if refused.code in (Code.UNAUTHENTICATED, Code.FORBIDDEN):
            logins.failures.spend(network(call.peer))
        raise
    call.site.check_access(owner)
    return await logins.mint(owner, body.device, method="ssh", peer=call.peer)


async def _signer(site: Site, body: wire.LoginSignature) -> Owner:
    """Return who signed. Raises ``Refused``."""
    logins = site.logins
    until = logins.nonces.take(body.nonce, logins.now())
    ours = site.settings.public_url.rstrip("/")
    if _normal(body.hub) != _normal(ours):
        raise Refused(
            Code.FORBIDDEN,
            f"The signature is for the hub {body.hub}, and this hub is {ours}.",
            f"Use the public address of the hub: gpu-dev login --ssh --url {ours}",
        )
    if until is None or body.expires_at != rfc3339(until):
        raise Refused(
            Code.UNAUTHENTICATED,
            "The signature is not valid: its number was used, has expired, or is not from this hub.",
            "Start again with: gpu-dev login --ssh",
        )
    unknown = Refused(
        Code.UNAUTHENTICATED,
        NO_SIGNATURE,
        "Check the name of the account, and that the hub knows the SSH key.",
    )
    with hub_answers():
        known = await logins.hub.knows(body.account)
    if not known:
        raise unknown
    owner = site.auth.owner_named(body.account)
    text = wire.statement(body.hub, body.account, body.nonce, body.expires_at)
    keys = await logins.keys.keys(owner)
    try:
        if not await asyncio.to_thread(signed_by, owner.subject, keys, text, body.signature):
            raise unknown
    except KeygenFailed as error:
        log.error("signatures cannot be checked: %s", error)
        raise Refused(
            Code.UNAVAILABLE, "The service cannot check signatures.", "Log in with: gpu-dev login"
        ) from error
    return owner


def _normal(url: str) -> tuple[str, str, int | None, str]:
    """Return the parts of an address that decide whether it is the same hub."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
        return parts.scheme, parts.hostname or "", port, parts.path.rstrip("/")
    except ValueError:
        return "", "", None, ""


@route("GET", f"{ROOT}/token")
async def show_token(call: Call) -> wire.TokenInfo:
    """Return scopes and expiry of the token that the request was sent with."""
    user, found = await _own(call)
    return wire.TokenInfo(
        account=user.name,
        user=call.person.owner.login,
        scopes=sorted(user.scopes),
        created_at=shown_time(found.created_at) or "",
        expires_at=shown_time(found.expires_at),
        note=found.note,
    )


@route("DELETE", f"{ROOT}/token")
async def delete_token(call: Call) -> None:
    """Delete the token that the request was sent with. It stops working at once."""
    user, found = await _own(call)
    if not found.of_user:
        raise Refused(
            Code.FORBIDDEN,
            "This token belongs to a server, which needs it.",
            "Release the reservation to end the server and its token.",
        )
    with hub_answers():
        await call.site.logins.hub.delete_token(user.name, found.id)
    call.site.auth.tokens.forget(call.token or "")
    fields = {"event": "logout", "subject": call.person.owner.subject, "token_id": found.id}
    log.info("token of %s deleted", user.name, extra={"fields": fields})


@route("POST", f"{ROOT}/renew")
async def renew_token(call: Call) -> wire.Renewal:
    """Return a successor of the token that the request was sent with, once half of its life is over.

    Only tokens from `gpu-dev login` are renewed, and none beyond 90 days after the login. The old token stays
    valid until it is deleted or expires. A second renewal of the same token deletes the first successor.
    """
    logins = call.site.logins
    user, found = await _own(call)
    wanted = {scope.replace("!user", f"!user={user.name}") for scope in wire.SCOPES}
    ours = found.of_user and found.note.startswith(NOTE) and wanted <= user.scopes
    if not ours or found.expires_at is None:
        raise Refused(
            Code.FORBIDDEN,
            "This token cannot be renewed: it is not from gpu-dev login, or it does not expire.",
            "Log in again with: gpu-dev login",
        )
    now = datetime.fromtimestamp(logins.now() / SECOND, UTC)
    life = timedelta(seconds=LIFE)
    successor = successor_of(found.note, found.created_at, found.expires_at, now, life)
    if successor is None or found.expires_at - now > life / 2:
        created, expires = shown_time(found.created_at), shown_time(found.expires_at)
        last = is_last(found.note, found.created_at, found.expires_at)
        return wire.Renewal(token=None, created_at=created or "", expires_at=expires or "", last=last)
    owner = call.person.owner
    with hub_answers():
        if (earlier := logins.successors.pop(found.id, None)) is not None:
            await logins.hub.delete_token(user.name, earlier)
    note, left = successor
    token, made = await logins.make(owner, note, int(left.total_seconds()))
    logins.successors[found.id] = made.id
    if len(logins.successors) > REMEMBERED:
        logins.successors.popitem(last=False)
    fields = {"event": "renewal", "subject": owner.subject, "token_id": made.id, "renewed_id": found.id}
    log.info("token of %s renewed", owner.hub_user, extra={"fields": fields})
    return wire.Renewal(
        token=token,
        created_at=shown_time(made.created_at) or "",
        expires_at=shown_time(made.expires_at) or "",
        last=made.expires_at is not None and is_last(note, made.created_at, made.expires_at),
    )


async def _own(call: Call) -> tuple[HubUser, HubToken]:
    """Return the token of the request's header, and its owner. Raises ``Refused``."""
    if call.token is None:
        raise Refused(
            Code.FORBIDDEN,
            "This address needs a token in the Authorization header, not the login of a browser.",
            "See and revoke your tokens on the Tokens page of the hub.",
        )
    user = await call.site.auth.tokens.user(call.token, network(call.peer))
    found = None
    if user is not None and user.token_id is not None:
        with hub_answers():
            found = await call.site.logins.hub.token(user.name, user.token_id)
    if user is None or found is None:
        call.site.auth.tokens.forget(call.token)
        raise Refused(
            Code.UNAUTHENTICATED,
            "The Hub does not know this token: it has expired or was revoked.",
            "Log in again with: gpu-dev login",
        )
    return user, found
