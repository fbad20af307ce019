"""Routes of the GitHub App: the App, its installations, its webhook and the tokens of its users."""

from __future__ import annotations

from typing import Any

from . import hooks
from .http import Answer, Failed, Request, not_found
from .routing import pages, route, user_model, when
from .state import Installation, NotKnown, State
from .tokens import Caller, new_installation_token, window_of


def _only_app(asker: Caller) -> None:
    if asker.kind != "app":
        raise Failed(401, "A JSON web token could not be decoded")


def _app_model(state: State) -> dict[str, Any]:
    app = state.app
    return {
        "id": app.id,
        "slug": app.slug,
        "client_id": app.client_id,
        "name": app.slug,
        "permissions": app.permissions,
        "events": app.events,
        "installations_count": len(state.installations),
    }


def _installation_model(state: State, installation: Installation) -> dict[str, Any]:
    organisation = state.organisation(installation.org)
    return {
        "id": installation.id,
        "app_id": state.app.id,
        "app_slug": state.app.slug,
        "account": {"login": organisation.login, "id": organisation.id, "type": "Organization"},
        "target_type": "Organization",
        "repository_selection": "all",
        "permissions": installation.permissions,
        "events": state.app.events,
        "suspended_at": when(state.now()) if installation.suspended else None,
    }


@route("GET", "/app")
def _app(state: State, request: Request, asker: Caller) -> Answer:
    _only_app(asker)
    return Answer(body=_app_model(state))


@route("GET", "/app/installations")
def _installations(state: State, request: Request, asker: Caller) -> Answer:
    _only_app(asker)
    return pages(request, [_installation_model(state, found) for found in state.installations.values()])


@route("GET", "/orgs/{org}/installation")
def _org_installation(state: State, request: Request, asker: Caller, org: str) -> Answer:
    _only_app(asker)
    for found in state.installations.values():
        if found.org.lower() == org.lower():
            return Answer(body=_installation_model(state, found))
    raise not_found()


@route("POST", "/app/installations/{id}/access_tokens")
def _access_tokens(state: State, request: Request, asker: Caller, id: str) -> Answer:
    _only_app(asker)
    installation = state.installations.get(int(id))
    if installation is None:
        raise not_found()
    if installation.suspended:
        raise Failed(403, "This installation has been suspended")
    asked = request.fields().get("permissions") or installation.permissions
    if not all(name in installation.permissions for name in asked):
        raise Failed(422, "The permissions requested are not granted to this installation.")
    token, expires_at = new_installation_token(state, installation, dict(asked))
    model = {
        "token": token,
        "expires_at": when(expires_at),
        "permissions": asked,
        "repository_selection": "all",
    }
    return Answer(201, model)


@route("GET", "/app/hook/config")
def _hook_config(state: State, request: Request, asker: Caller) -> Answer:
    _only_app(asker)
    if not state.app.hook_url:
        raise not_found()
    secret = {"secret": "********"} if state.app.hook_secret else {}
    return Answer(body={"content_type": "json", "insecure_ssl": "0", "url": state.app.hook_url, **secret})


@route("GET", "/app/hook/deliveries")
def _deliveries(state: State, request: Request, asker: Caller) -> Answer:
    _only_app(asker)
    return pages(request, [hooks.model(found) for found in reversed(state.deliveries)])


@route("POST", "/app/hook/deliveries/{id}/attempts")
def _redeliver(state: State, request: Request, asker: Caller, id: str) -> Answer:
    _only_app(asker)
    for found in state.deliveries:
        if str(found.id) == id:
            hooks.deliver_again(state, found)
            return Answer(202, {})
    raise not_found()


# Tokens of users.


def _only_client(asker: Caller) -> None:
    if asker.kind != "client":
        raise Failed(401, "Bad credentials")


@route("POST", "/applications/{client_id}/token")
def _check_token(state: State, request: Request, asker: Caller, client_id: str) -> Answer:
    _only_client(asker)
    token = str(request.fields().get("access_token", ""))
    entry = state.user_tokens.get(token)
    if client_id != state.app.client_id or entry is None or entry.expires_at <= state.now():
        raise not_found()
    if entry.account not in state.accounts:
        raise NotKnown(token)
    user = user_model(state.accounts[entry.account])
    app = {"name": state.app.slug, "client_id": state.app.client_id}
    return Answer(body={"user": user, "app": app, "expires_at": when(entry.expires_at), "scopes": []})


@route("DELETE", "/applications/{client_id}/token")
def _delete_token(state: State, request: Request, asker: Caller, client_id: str) -> Answer:
    _only_client(asker)
    token = str(request.fields().get("access_token", ""))
    if client_id != state.app.client_id or state.user_tokens.pop(token, None) is None:
        raise not_found()
    return Answer(204)


# Limits.


@route("GET", "/rate_limit")
def _rate_limit(state: State, request: Request, asker: Caller) -> Answer:
    window = window_of(state, asker)
    core = {
        "limit": window.limit,
        "used": window.used,
        "remaining": window.remaining,
        "reset": round(window.reset_at),
    }
    return Answer(body={"resources": {"core": core}, "rate": core})
