"""Webhook deliveries: signed, sent once, and repeated only on request."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import uuid
from typing import Any

import httpx

from .state import Delivery, State

_TIME_LIMIT = 10
"""Seconds in which a receiver must answer."""
ALWAYS = ("github_app_authorization", "installation", "installation_target", "ping")
"""Events that every App receives without subscribing to them."""


def deliver(state: State, event: str, payload: dict[str, Any]) -> None:
    """Record a delivery, and send it from another thread if the App has a webhook and wants this event."""
    if not state.app.hook_url or (event not in ALWAYS and event not in state.app.events):
        return
    delivery = Delivery(
        id=state.new_id(),
        guid=str(uuid.uuid4()),
        event=event,
        action=payload.get("action"),
        body=json.dumps(payload).encode(),
    )
    state.deliveries.append(delivery)
    _start(state, delivery)


def deliver_again(state: State, earlier: Delivery) -> None:
    """Send a delivery again, with the same GUID and body and a new id."""
    again = Delivery(
        state.new_id(), earlier.guid, earlier.event, earlier.action, earlier.body, redelivery=True
    )
    state.deliveries.append(again)
    _start(state, again)


def signature(secret: str, body: bytes) -> str:
    """Return the value of ``X-Hub-Signature-256``."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _start(state: State, delivery: Delivery) -> None:
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "GitHub-Hookshot/fake",
        "X-GitHub-Event": delivery.event,
        "X-GitHub-Delivery": delivery.guid,
        "X-GitHub-Hook-ID": str(state.app.id),
        "X-GitHub-Hook-Installation-Target-Type": "integration",
        "X-GitHub-Hook-Installation-Target-ID": str(state.app.id),
    }
    if state.app.hook_secret:
        headers["X-Hub-Signature-256"] = signature(state.app.hook_secret, delivery.body)
    url = state.app.hook_url

    def send() -> None:
        try:
            answer = httpx.post(
                url, content=delivery.body, headers=headers, timeout=_TIME_LIMIT, trust_env=False
            )
        except httpx.HTTPError:
            return
        delivery.status_code = answer.status_code

    threading.Thread(target=send, daemon=True).start()


def model(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "guid": delivery.guid,
        "event": delivery.event,
        "action": delivery.action,
        "redelivery": delivery.redelivery,
        "status_code": delivery.status_code,
        "status": "OK" if 200 <= delivery.status_code < 300 else "Invalid HTTP Response",
    }
