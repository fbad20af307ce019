"""Make a fake GitHub from the description of an organisation, and write the files of its App's owner."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from .server import FakeGithub
from .state import App, State

DEFAULT = Path(__file__).with_name("organisation.json")
_FIRST_ID = 1_000


class AccountFile(msgspec.Struct, forbid_unknown_fields=True):
    """An account, with its teams and its direct role in the repository."""

    login: str
    id: int
    name: str = ""
    teams: list[str] = []
    pending_teams: list[str] = []
    role: str | None = None
    keys: list[str] = []


class OrganisationFile(msgspec.Struct, forbid_unknown_fields=True):
    """One organisation, with the teams and the repository that decide who may use the hub."""

    team: str
    repository: str
    accounts: list[AccountFile]
    operator_teams: list[str] = []
    other_teams: list[str] = []


def make_github(
    description: Path = DEFAULT,
    *,
    port: int = 0,
    address: str = "127.0.0.1",
    folder: Path | None = None,
    callback_urls: Sequence[str] = (),
) -> FakeGithub:
    """Return a fake GitHub, not started yet, with that organisation and the App installed in it.

    ``folder`` keeps the App's secrets, and gets ``github.json`` for ``GPUDEV_GITHUB``.
    """
    said = msgspec.json.decode(description.read_bytes(), type=OrganisationFile)
    key = _private_key(folder)
    app = App(
        id=4242,
        slug="gpudev",
        client_id="Iv23liFakeGithubApp1",
        client_secret=_secret(folder, "client-secret"),
        public_key=key.public_key(),
        callback_urls=list(callback_urls),
        events=["membership", "organization", "team", "member"],
        hook_secret=_secret(folder, "webhook-secret"),
    )
    github = FakeGithub(State(app, _FIRST_ID), port, address)
    _fill(github, said)
    if folder is not None:
        _write_settings(folder, github, said)
    return github


def _fill(github: FakeGithub, said: OrganisationFile) -> None:
    control = github.control
    org = said.repository.partition("/")[0]
    control.organisation(org)
    control.repository(said.repository)
    slugs = {team.partition("/")[2] for team in (said.team, *said.operator_teams, *said.other_teams)}
    for slug in sorted(slugs):
        control.team(org, slug)
    for account in said.accounts:
        control.account(account.login, name=account.name, id=account.id)
        for slug in account.teams:
            control.join(org, slug, account.login)
        for slug in account.pending_teams:
            control.join(org, slug, account.login, state="pending")
        if account.role is not None:
            control.collaborator(said.repository, account.login, account.role)
        for key in account.keys:
            control.add_key(account.login, key)
    control.install(org)


def _private_key(folder: Path | None) -> rsa.RSAPrivateKey:
    path = None if folder is None else folder / "app.pem"
    if path is not None and path.exists():
        found = serialization.load_pem_private_key(path.read_bytes(), None)
        assert isinstance(found, rsa.RSAPrivateKey)
        return found
    key = _new_key()
    if path is not None:
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        _keep(path, pem)
    return key


@cache
def _new_key() -> rsa.RSAPrivateKey:
    """Return the same key in the whole process, because creating one takes a tenth of a second."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _secret(folder: Path | None, name: str) -> str:
    path = None if folder is None else folder / name
    if path is not None and path.exists():
        return path.read_text()
    text = secrets.token_hex(20)
    if path is not None:
        _keep(path, text.encode())
    return text


def _keep(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)


def _write_settings(folder: Path, github: FakeGithub, said: OrganisationFile) -> None:
    settings = {
        "url": github.url,
        "api_url": github.api_url,
        "app_id": github.state.app.id,
        "client_id": github.state.app.client_id,
        "team": said.team,
        "repository": said.repository,
        "operator_teams": said.operator_teams,
        "other_teams": said.other_teams,
        "client_secret_file": str(folder / "client-secret"),
        "private_key_file": str(folder / "app.pem"),
        "webhook_secret_file": str(folder / "webhook-secret"),
    }
    _keep(folder / "github.json", json.dumps(settings, indent=2).encode() + b"\n")
