"""Who gets in, and how far: every cell of the table in docs/access.md, with everything real but GitHub."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from access_cells import SOON, Tried, Visitor, soon
from access_table import (
    COLUMNS,
    DOWN_AFTER,
    DOWN_BEFORE,
    EXPIRED,
    LATER,
    LIMITED,
    MEMBER,
    NEITHER,
    OPERATOR,
    PUSH_ONLY,
    REMOVED,
    RENAMED,
    REREGISTERED,
    ROWS,
    SSO,
    TEAM_ONLY,
    Row,
)
from github_hub import GithubStack
from gpudev_hub.settings import Settings
from hub_users import wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

ORG, TEAM = "pytorch", "metamates"
POLICY = {"limits": {"running_gpus": 1}, "teardown_seconds": 10, "contact": "#gpu-help"}
"""One GPU for each person: a second request waits, and costs no server."""
GRACE = 0.75
"""Minutes for which the server of somebody who was removed runs on."""
AT_ONCE = 3


@pytest.fixture(scope="module")
def hub() -> Iterator[GithubStack]:
    with tempfile.TemporaryDirectory(prefix="ga-", ignore_cleanup_errors=True) as folder:
        policy = Path(folder) / "policy.json"
        policy.write_text(json.dumps(POLICY))
        running = GithubStack(Path(folder), revocation_grace_minutes=GRACE)
        running.environment |= {"GPUDEV_POLICY": str(policy), "GPUDEV_BASTION": "1"}
        running.settings = Settings.read(running.environment)
        running.github.control.app(hook_url=f"{running.url}/services/gpudev/github/webhook")
        try:
            running.start()
            yield running
        finally:
            running.close()


class Organisation:
    """The people of the table, by situation."""

    def __init__(self, hub: GithubStack) -> None:
        self.hub = hub
        self.control = hub.github.control
        self.people: dict[str, Visitor] = {}
        self.tried: dict[tuple[str, str], Tried] = {}

    def comes(self, situation: str, login: str, *, member: bool = True) -> Visitor:
        """Somebody of the fake's organisation, or else a new account."""
        if login not in {account.login for account in self.hub.github.state.accounts.values()}:
            self.control.account(login)
            if member:
                self.control.join(ORG, TEAM, login)
                self.control.collaborator("pytorch/pytorch", login, "write")
        account = self.hub.github.state.by_login(login)
        self.people[situation] = Visitor(self.hub, login, account.id)
        return self.people[situation]

    def settle_in(self, *situations: str) -> None:
        self._at_once(lambda situation: self.people[situation].settle_in(), situations)

    def try_rows(self, *situations: str, patience: float = 0) -> None:
        """Try every column of these rows; ``patience``: seconds until what is refused must be refused."""
        self._at_once(lambda situation: self._try_row(situation, patience), situations)

    def _try_row(self, situation: str, patience: float) -> None:
        visitor, row = self.people[situation], row_of(situation)
        other = self.people[OPERATOR if situation == MEMBER else MEMBER]
        for column in COLUMNS:

            def attempt(column: str = column) -> Tried:
                try:
                    return visitor.try_column(column, other)
                except Exception as error:
                    return Tried(f"{type(error).__name__}", str(error))

            self.tried[situation, column] = soon(attempt, row.expected(column), patience)

    def _at_once(self, work: Callable[[str], None], situations: tuple[str, ...]) -> None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(work, situations))

    def person(self, situation: str) -> dict[str, object]:
        """What operators see of somebody."""
        subject = f"github:{self.people[situation].id}"
        answer = self.people[OPERATOR].browser.http.get("/services/gpudev/api/v1/people").raise_for_status()
        found: list[dict[str, object]] = answer.json()["people"]
        return next(person for person in found if person["subject"] == subject)

    def hint(self, situation: str) -> None:
        """Have the service look at somebody: no delivery tells of a rename, but any names the account."""
        visitor = self.people[situation]
        member = {"login": visitor.login, "id": visitor.id}
        self.control.deliver("member", {"action": "edited", "member": member})

    def look_at_in_vain(self, situation: str) -> None:
        """Have the service look at somebody while GitHub does not answer."""
        self.hint(situation)
        said = f"GitHub could not be asked about github:{self.people[situation].id}"
        wait_for("the look", lambda: said in self.hub.log("service"))

    def close(self) -> None:
        for visitor in self.people.values():
            visitor.close()


def row_of(situation: str) -> Row:
    return next(row for row in ROWS if row.situation == situation)


@contextmanager
def github_fails(hub: GithubStack, fail: Callable[[], object]) -> Iterator[None]:
    """GitHub fails meanwhile."""
    fail()
    try:
        yield
    finally:
        hub.github.control.heal()


def test_every_cell_of_the_table(hub: GithubStack) -> None:
    control = hub.github.control
    table = Organisation(hub)
    try:
        walk_through(hub, table)
    finally:
        control.heal()
        table.close()
    wrong = []
    cells = 0
    for row in ROWS:
        for column in COLUMNS:
            cells += 1
            tried = table.tried[row.situation, column]
            if tried.found != row.expected(column):
                wrong.append(
                    f"{row.situation} / {column}: {tried.found}, not {row.expected(column)}: {tried.detail}"
                )
            elif column == COLUMNS[0] and row.says not in tried.detail:
                wrong.append(f"{row.situation} / {column}: does not say {row.says!r}: {tried.detail}")
    assert not wrong, "\n".join(["", *wrong])
    assert cells == len(table.tried) == len(ROWS) * len(COLUMNS) == 13 * 9


def walk_through(hub: GithubStack, table: Organisation) -> None:
    """Try every row, each in its situation."""
    control = hub.github.control
    for situation, login in {MEMBER: "ada", OPERATOR: "olga", REMOVED: "ben"}.items():
        table.comes(situation, login)
    for situation, login in {RENAMED: "fay", DOWN_AFTER: "gil", LIMITED: "hal"}.items():
        table.comes(situation, login)
    for situation, login in {TEAM_ONLY: "cleo", PUSH_ONLY: "dora", NEITHER: "eve"}.items():
        table.comes(situation, login)
    table.settle_in(MEMBER, OPERATOR, REMOVED, RENAMED, DOWN_AFTER, LIMITED)

    removed = table.people[REMOVED]
    removed.stay_connected()

    def remove() -> None:
        control.leave(ORG, TEAM, "ben")
        wait_for("the revocation", lambda: table.person(REMOVED)["access"] == "revoked", SOON)

    removed.sees_the_end(of=remove)
    removed.wait_until_cut()
    table.try_rows(REMOVED, patience=SOON)
    kept = hub.api("GET", f"reservations/{removed.reservation['id']}", None, "ada")
    assert kept["state"] == "ready", "its server runs on for a while"

    control.rename("fay", "fay-l")
    renamed = table.people[RENAMED]
    renamed.login = "fay-l"
    table.hint(RENAMED)
    wait_for("the new login", lambda: table.person(RENAMED)["login"] == "fay-l", 90)
    table.comes(REREGISTERED, "fay", member=False)
    table.try_rows(MEMBER, TEAM_ONLY, PUSH_ONLY, NEITHER, OPERATOR, RENAMED, REREGISTERED)
    assert table.tried[RENAMED, COLUMNS[0]].detail == "fay", "the Hub's name stays"

    control.saml(ORG, enforced=True)
    table.comes(SSO, "ida")
    control.sso("ida", session=False)
    table.settle_in(SSO)
    table.try_rows(SSO)
    control.saml(ORG, enforced=False)

    table.comes(EXPIRED, "joe")
    control.expire_installation_tokens()
    table.settle_in(EXPIRED)
    control.expire_installation_tokens()
    table.try_rows(EXPIRED)

    table.comes(DOWN_BEFORE, "kim")
    with github_fails(hub, lambda: control.outage(path="/api/v3/.*")):
        table.look_at_in_vain(DOWN_AFTER)
        table.try_rows(DOWN_AFTER, DOWN_BEFORE)

    with github_fails(hub, lambda: control.rate_limit(reset_in=600)):
        table.look_at_in_vain(LIMITED)
        table.try_rows(LIMITED)
        newcomer = table.comes("rate limit before the first login", "lou")
        assert newcomer.log_in(newcomer).found == LATER

    ended = hub.wait_state(removed.reservation["id"], "ended", "ada")
    assert ended["outcome"] == "access_revoked"
