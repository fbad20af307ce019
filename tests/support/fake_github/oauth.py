"""GitHub's pages outside the API: login with OAuth and PKCE, tokens of users, public keys as text."""

from __future__ import annotations

import base64
import hashlib
import html
import secrets
from collections.abc import Mapping
from urllib.parse import urlencode

from .http import Answer, Request
from .state import LoginCode, NotKnown, State

SESSION = "fake_github_session"
_CODE_SECONDS = 600
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:32rem;margin:3rem auto;padding:0 1rem;color:#1f2328;"
    "background:#fff}fieldset{border:1px solid #59636e;border-radius:6px;margin:1rem 0}label{display:block;"
    "padding:.25rem 0}button{font:inherit;padding:.5rem 1rem;margin-right:.5rem;border-radius:6px;"
    "border:1px solid #1f2328;background:#1f883d;color:#fff}button.second{background:#fff;color:#1f2328}"
    "input[type=text]{font:inherit;width:100%;box-sizing:border-box;padding:.35rem}:focus-visible{outline:"
    "3px solid #0969da;outline-offset:2px}"
)


def answer(state: State, request: Request) -> Answer:
    """Return the answer to a request outside the API."""
    match request.method, request.path:
        case "GET", "/login/oauth/authorize":
            return _ask(state, request, request.query)
        case "POST", "/login/oauth/authorize":
            return _authorise(state, request)
        case "POST", "/login/oauth/access_token":
            return _access_token(state, request)
        case "GET", "/logout":
            return Answer(302, None, {"Location": "/", "Set-Cookie": f"{SESSION}=; Path=/; Max-Age=0"})
        case "GET", "/":
            return _page(200, "Fake GitHub", "<p>A small GitHub for tests. It has no passwords.</p>")
        case "GET", path if path.endswith(".keys") and path.count("/") == 1:
            return _keys(state, path[1:].removesuffix(".keys"))
        case _:
            return _page(404, "Not found", "<p>There is no such page here.</p>")


def _page(status: int, title: str, body: str) -> Answer:
    text = (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><main><h1>{html.escape(title)}</h1>{body}</main></body></html>"
    )
    return Answer(status, text.encode(), {"Content-Type": "text/html; charset=utf-8"})


def _keys(state: State, login: str) -> Answer:
    try:
        keys = state.by_login(login).keys
    except NotKnown:
        return _page(404, "Not found", "<p>There is no such page here.</p>")
    text = "".join(f"{key}\n" for _, key in keys)
    return Answer(200, text.encode(), {"Content-Type": "text/plain; charset=utf-8"})


def _refusal(state: State, asked: Mapping[str, str]) -> Answer | None:
    """Return what is wrong with a request for a login."""
    if asked.get("client_id") != state.app.client_id:
        return _page(404, "Not found", "<p>There is no GitHub App with this client id.</p>")
    if _target(state, asked) not in state.app.callback_urls:
        error = {
            "error": "redirect_uri_mismatch",
            "error_description": "The redirect_uri is not associated with this application.",
        }
        if not state.app.callback_urls:
            return _page(400, "No callback URL", "<p>This GitHub App has no callback URL.</p>")
        return _redirect(state.app.callback_urls[0], asked, error)
    if asked.get("code_challenge") and asked.get("code_challenge_method") != "S256":
        error = {"error": "invalid_request", "error_description": "Only S256 is supported."}
        return _redirect(_target(state, asked), asked, error)
    return None


def _target(state: State, asked: Mapping[str, str]) -> str:
    first = state.app.callback_urls[0] if state.app.callback_urls else ""
    return asked.get("redirect_uri") or first


def _redirect(target: str, asked: Mapping[str, str], fields: Mapping[str, str]) -> Answer:
    fields = {**fields, **({"state": asked["state"]} if "state" in asked else {})}
    separator = "&" if "?" in target else "?"
    return Answer(302, None, {"Location": f"{target}{separator}{urlencode(fields)}"})


def _session(state: State, request: Request) -> int | None:
    """Return the account that this browser is signed in as."""
    for cookie in request.headers.get("cookie", "").split(";"):
        name, _, value = cookie.strip().partition("=")
        if name == SESSION and state.sessions.get(value) in state.accounts:
            return state.sessions[value]
    return None


def _ask(state: State, request: Request, asked: Mapping[str, str], message: str = "") -> Answer:
    refusal = _refusal(state, asked)
    if refusal is not None:
        return refusal
    signed_in = _session(state, request)
    if signed_in in state.authorised and asked.get("prompt") != "select_account" and not message:
        assert signed_in is not None
        return _back(state, asked, signed_in)
    hidden = "".join(
        f'<input type="hidden" name="{html.escape(name)}" value="{html.escape(value)}">'
        for name, value in asked.items()
        if name not in ("account", "login", "decision")
    )
    choices = "".join(
        f'<label><input type="radio" name="account" value="{html.escape(account.login)}"'
        f"{' checked' if account.id == signed_in else ''}> {html.escape(account.login)}"
        f"{f' ({html.escape(account.name)})' if account.name else ''}</label>"
        for account in state.accounts.values()
    )
    slug = html.escape(state.app.slug)
    note = f'<p role="alert">{html.escape(message)}</p>' if message else ""
    body = (
        f"<p><b>{slug}</b> asks to know who you are. This GitHub is a fake: nobody has a password.</p>{note}"
        f'<form method="post" action="/login/oauth/authorize">{hidden}'
        f"<fieldset><legend>Choose an account</legend>{choices}</fieldset>"
        '<label for="login">Or type a login</label>'
        '<input type="text" id="login" name="login" autocomplete="username" spellcheck="false">'
        '<p><button name="decision" value="authorize">Sign in and authorize</button>'
        '<button class="second" name="decision" value="cancel">Cancel</button></p></form>'
    )
    return _page(422 if message else 200, "Sign in to the fake GitHub", body)


def _authorise(state: State, request: Request) -> Answer:
    asked = request.fields()
    refusal = _refusal(state, asked)
    if refusal is not None:
        return refusal
    if asked.get("decision") == "cancel":
        error = {
            "error": "access_denied",
            "error_description": "The user denied access.",
        }
        return _redirect(_target(state, asked), asked, error)
    login = asked.get("login", "").strip() or asked.get("account", "")
    try:
        account = state.by_login(login)
    except NotKnown:
        return _ask(
            state, request, asked, "Incorrect login." if login else "Choose an account, or type a login."
        )
    if account.suspended:
        return _ask(state, request, asked, "This account is suspended.")
    state.authorised.add(account.id)
    session = secrets.token_urlsafe(18)
    state.sessions[session] = account.id
    reply = _back(state, asked, account.id)
    reply.headers["Set-Cookie"] = f"{SESSION}={session}; Path=/; HttpOnly; SameSite=Lax"
    return reply


def _back(state: State, asked: Mapping[str, str], account: int) -> Answer:
    """Send the browser back with a code."""
    code = secrets.token_hex(10)
    target = _target(state, asked)
    state.codes[code] = LoginCode(account, target, asked.get("code_challenge"), state.now() + _CODE_SECONDS)
    return _redirect(target, asked, {"code": code})


def _access_token(state: State, request: Request) -> Answer:
    """Exchange a code or a refresh token. Like GitHub, answer errors of OAuth with status 200."""
    asked = request.fields()
    found = _token_fields(state, asked)
    if "json" in request.headers.get("accept", ""):
        return Answer(200, found, {"Content-Type": "application/json; charset=utf-8"})
    return Answer(200, urlencode(found).encode(), {"Content-Type": "application/x-www-form-urlencoded"})


def _token_fields(state: State, asked: Mapping[str, str]) -> dict[str, str | int]:
    good = secrets.compare_digest(asked.get("client_secret", "").encode(), state.app.client_secret.encode())
    if asked.get("client_id") != state.app.client_id or not good:
        return _error("incorrect_client_credentials", "The client_id or client_secret is incorrect.")
    if asked.get("grant_type") == "refresh_token":
        for token, entry in list(state.user_tokens.items()):
            if entry.refresh_token == asked.get("refresh_token"):
                del state.user_tokens[token]
                return _grant(state, entry.account)
        return _error("bad_refresh_token", "The refresh token passed is incorrect or expired.")
    code = state.codes.pop(asked.get("code", ""), None)
    if code is None or code.expires_at <= state.now():
        return _error("bad_verification_code", "The code passed is incorrect or expired.")
    if asked.get("redirect_uri", code.redirect_uri) != code.redirect_uri:
        return _error("redirect_uri_mismatch", "The redirect_uri MUST match the registered callback URL.")
    if code.challenge is not None:
        digest = hashlib.sha256(asked.get("code_verifier", "").encode()).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != code.challenge:
            return _error("bad_verification_code", "The code_verifier does not match the code_challenge.")
    return _grant(state, code.account)


def _error(word: str, description: str) -> dict[str, str | int]:
    return {"error": word, "error_description": description, "error_uri": "https://docs.github.com/apps"}


def _grant(state: State, account: int) -> dict[str, str | int]:
    token, entry = state.new_user_token(account)
    return {
        "access_token": token,
        "expires_in": round(entry.expires_at - state.now()),
        "refresh_token": entry.refresh_token,
        "refresh_token_expires_in": 15897600,
        "scope": "",
        "token_type": "bearer",
    }
