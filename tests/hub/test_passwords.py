"""Who gets in on one machine, and that nobody becomes an admin of the Hub by it."""

from __future__ import annotations

from typing import Any

import pytest
from traitlets.config import Config

from gpudev_hub.hub.passwords import LocalAuthenticator

OWN, SHARED = "o" * 32, "shared-by-the-demo-users"


@pytest.fixture
def authenticator() -> LocalAuthenticator:
    config = Config()
    config.LocalAuthenticator.allowed_users = {"me", "alice"}
    config.LocalAuthenticator.local_user = "me"
    config.LocalAuthenticator.local_password = OWN
    config.LocalAuthenticator.demo_password = SHARED
    return LocalAuthenticator(config=config)


async def log_in(authenticator: LocalAuthenticator, name: str, password: str) -> Any:
    return await authenticator.get_authenticated_user(None, {"username": name, "password": password})


@pytest.mark.parametrize(
    ("name", "password", "user"),
    [("me", OWN, "me"), ("alice", SHARED, "alice"), ("ALICE", SHARED, "alice"), ("Me", OWN, "me")],
)
async def test_each_has_a_password_and_no_admin_rights(
    authenticator: LocalAuthenticator, name: str, password: str, user: str
) -> None:
    """A login in capitals is the same person."""
    found = await log_in(authenticator, name, password)
    assert (found["name"], found["admin"]) == (user, False)


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("me", SHARED),
        ("alice", OWN),
        ("eve", SHARED),
        ("eve", OWN),
        ("alice", ""),
        ("me", "пароль"),
        ("alice", "\N{RIGHT-TO-LEFT OVERRIDE}\ud800"),
        ("\N{ARABIC LETTER ALEF}\N{RIGHT-TO-LEFT OVERRIDE}", SHARED),
    ],
)
async def test_nobody_else_gets_in(authenticator: LocalAuthenticator, name: str, password: str) -> None:
    assert await log_in(authenticator, name, password) is None


async def test_without_passwords_nobody_gets_in() -> None:
    config = Config()
    config.LocalAuthenticator.allowed_users = {"me", "alice"}
    config.LocalAuthenticator.local_user = "me"
    authenticator = LocalAuthenticator(config=config)
    for name in ("me", "alice"):
        assert await log_in(authenticator, name, "") is None
