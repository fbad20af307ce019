"""The disk of the Hub's database is full for a while: what people are told, and what comes of a start."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from hub_users import wait_for
from stack import Stack

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(300),
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root"),
]


FIRST_USE_ONLY = "c.JupyterHub.activity_resolution = 24 * 3600\n"
"""The Hub writes down the first use of a token, and not each use more than 30 s after the last one."""
WAIT = """
import time
from pathlib import Path

while not Path({path!r}).exists():
    time.sleep(0.05)
"""
"""A user's settings with which JupyterLab listens as soon as a file exists."""


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Its Hub's folder is a disk of 4 MiB, in the mount namespace of its processes."""
    with tempfile.TemporaryDirectory(prefix="gd-", ignore_cleanup_errors=True) as folder:
        stack = Stack(Path(folder), "1x2")
        stack.settings.hub.mkdir(parents=True)
        stack.site = FIRST_USE_ONLY
        mount = 'mount -t tmpfs -o size=4m,mode=700 none "$0" && exec "$@"'
        try:
            stack.start("unshare", "-m", "sh", "-c", mount, str(stack.settings.hub))
            yield stack
        finally:
            stack.close()


@contextmanager
def full(stack: Stack) -> Iterator[None]:
    """Nothing more fits on the Hub's disk."""
    filler = Path(f"/proc/{stack.part('hub')}/root{stack.settings.hub}/filler")
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    try:
        yield
    finally:
        filler.unlink()


def me(stack: Stack, token: str) -> httpx.Response:
    headers = {"Authorization": f"token {token}"}
    return httpx.get(f"{stack.url}/services/gpudev/api/v1/me", headers=headers, trust_env=False, timeout=30)


def test_a_good_token_is_not_taken_for_an_expired_one(stack: Stack) -> None:
    token = stack.token_for("bob")
    with full(stack):
        answer = me(stack, token)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable"), answer.text
    assert me(stack, token).status_code == 200


def test_a_start_that_met_a_full_disk_is_started_again_and_not_counted(stack: Stack) -> None:
    """Before the Hub has noted the start, and when it notes where the server listens."""
    note_use_of_tokens(stack)
    with full(stack):
        early = stack.reserve()
        wait_for("the refusal", lambda: f"{early['id']} (gpudev@" in stack.log("hub"))
    stack.wait_state(early["id"], "ready", timeout=45)
    file, listen = stack.home / ".jupyter" / "jupyter_server_config.py", stack.folder / "listen"
    file.parent.mkdir(exist_ok=True)
    file.write_text(WAIT.format(path=str(listen)))
    late = stack.reserve()
    wait_for("the launcher", lambda: list(stack.settings.servers.glob(f"{late['id']}-1/0/record.json")))
    with full(stack):
        said = len(stack.log("hub"))
        listen.touch()
        wait_for("the failure", lambda: "disk is full" in stack.log("hub")[said:])
    stack.wait_state(late["id"], "ready", timeout=45)
    for record in (early, late):
        entries = stack.api("GET", f"reservations/{record['id']}/history")["items"]
        causes = [entry["cause"] for entry in entries]
        assert not [cause for cause in causes if "failed" in cause], causes
        assert len(list(stack.settings.servers.glob(f"{record['id']}-*"))) == 1, causes


def note_use_of_tokens(stack: Stack) -> None:
    """So that the Hub need not write that they were used when a user reserves and the service starts."""
    for token in (stack.settings.secret("service-token"), stack.token_for()):
        headers = {"Authorization": f"token {token}"}
        assert httpx.get(f"{stack.url}/hub/api/user", headers=headers, trust_env=False).status_code == 200
