"""A simple client of the API server: JSON over HTTPS with a token, and watches of lists."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from .credentials import SERVER, token_of
from .layout import Layout

Object = dict[str, Any]
MERGE = {"Content-Type": "application/merge-patch+json"}
STRATEGIC_MERGE = {"Content-Type": "application/strategic-merge-patch+json"}
"""Content type of patches that find entries of a list by a key, such as the type of a condition."""


def client(layout: Layout, kubeconfig: Path) -> httpx.Client:
    """Return a client with the token of one kubeconfig file. Paths begin with ``/api``."""
    return httpx.Client(
        base_url=SERVER,
        verify=ssl.create_default_context(cafile=str(layout.authority)),
        headers={"Authorization": f"Bearer {token_of(kubeconfig)}"},
        timeout=20,
        trust_env=False,
    )


def follow(api: httpx.Client, path: str, act: Callable[[Object], None]) -> None:
    """Call ``act`` with every existing object and with each change, for ever, even after outages."""
    while True:
        try:
            found = api.get(path).raise_for_status().json()
            for item in found["items"]:
                act(item)
            _watch(api, path, found["metadata"]["resourceVersion"], act)
        except httpx.HTTPError as error:
            print(f"{path}: {error!r}; listing again", flush=True)
            time.sleep(0.2)


def _watch(api: httpx.Client, path: str, version: str, act: Callable[[Object], None]) -> None:
    parameters = {"watch": "1", "resourceVersion": version, "timeoutSeconds": "60"}
    with api.stream("GET", path, params=parameters, timeout=90) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            event = json.loads(line)
            if event["type"] == "ERROR":
                return
            if event["type"] != "DELETED":
                act(event["object"])
