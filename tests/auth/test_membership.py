"""Who may enter, as the fake GitHub says it."""

from __future__ import annotations

import msgspec
import pytest

from fake_github import FakeGithub
from github_world import Now
from gpudev_hub.auth.github import GithubClient, GithubRefused, GithubUnavailable
from gpudev_hub.auth.membership import GithubMembership
from gpudev_hub.core.ports import Account, Facts
from gpudev_hub.github_settings import GithubSettings

ADA, BEN, CLEO, DORA, EVE, OLGA, PETE = range(101, 108)


@pytest.fixture
def membership(client: GithubClient) -> GithubMembership:
    return GithubMembership(client)


class TestFacts:
    @pytest.mark.parametrize(
        ("id", "expected"),
        [
            (ADA, (True, True, False, ("pytorch/metamates", "pytorch/compiler"))),
            (BEN, (True, True, False, ("pytorch/metamates",))),
            (CLEO, (True, False, False, ("pytorch/metamates",))),
            (DORA, (False, True, False, ())),
            (EVE, (False, False, False, ())),
            (OLGA, (True, True, True, ("pytorch/metamates", "pytorch/gpudev-operators"))),
            (PETE, (False, True, False, ())),
        ],
    )
    async def test_each_kind_of_person(
        self, membership: GithubMembership, id: int, expected: tuple[bool, bool, bool, tuple[str, ...]]
    ) -> None:
        found = await membership.facts(id)
        assert (found.in_team, found.may_push, found.operator, found.teams) == expected
        assert found.account is not None
        assert found.account.id == id

    async def test_an_id_that_is_gone(self, membership: GithubMembership, github: FakeGithub) -> None:
        gone = Facts(None, in_team=False, may_push=False, operator=False, teams=())
        assert await membership.facts(999) == gone
        github.control.suspend("ada")
        assert await membership.facts(ADA) == gone

    async def test_renamed_and_the_login_taken_by_another(
        self, membership: GithubMembership, github: FakeGithub
    ) -> None:
        github.control.rename("ada", "ada-l")
        other = github.control.account("ada")
        found = await membership.facts(ADA)
        assert (found.account, found.in_team, found.may_push) == (Account(ADA, "ada-l"), True, True)
        stranger = await membership.facts(other.id)
        assert (stranger.account, stranger.in_team, stranger.may_push) == (
            Account(other.id, "ada"),
            False,
            False,
        )

    async def test_a_rename_during_the_check_lends_no_rights(
        self, membership: GithubMembership, github: FakeGithub
    ) -> None:
        """Eve's login is answered with ada's rights once: they are not believed."""
        eve = github.state.accounts[EVE]
        path = "/api/v3/repos/pytorch/pytorch/collaborators/eve/permission"
        body = b'{"permission": "admin", "role_name": "admin", "user": {"id": 101, "login": "eve"}}'
        github.control.fail(path=path, times=1, status=200, body=body.decode())
        found = await membership.facts(EVE)
        assert (found.account, found.may_push) == (Account(EVE, eve.login), False)
        assert len(github.requests("/user/105")) == 3

    async def test_a_login_that_moves_all_the_time_is_unsure(
        self, membership: GithubMembership, github: FakeGithub
    ) -> None:
        path = "/api/v3/repos/pytorch/pytorch/collaborators/eve/permission"
        github.control.fail(path=path, status=404, body='{"message": "Not Found"}')
        with pytest.raises(GithubUnavailable, match="105 changed its login"):
            await membership.facts(EVE)

    async def test_rights_by_a_custom_role_a_child_team_and_ownership(
        self, membership: GithubMembership, github: FakeGithub
    ) -> None:
        github.control.custom_role("pytorch/pytorch", "merger", "write")
        github.control.collaborator("pytorch/pytorch", "cleo", "merger")
        assert (await membership.facts(CLEO)).may_push
        github.control.team("pytorch", "infra", parent="metamates")
        github.control.join("pytorch", "infra", "dora")
        assert (await membership.facts(DORA)).in_team
        github.control.org_member("pytorch", "eve", role="admin")
        assert (await membership.facts(EVE)).may_push

    @pytest.mark.parametrize("status", [404, 403])
    async def test_a_team_that_is_hidden_is_no_answer(
        self, membership: GithubMembership, github: FakeGithub, status: int
    ) -> None:
        await membership.facts(EVE)
        github.control.permissions("pytorch", {"metadata": "read"}, missing_status=status)
        with pytest.raises(GithubRefused):
            await membership.facts(ADA)

    async def test_a_team_that_was_renamed_is_no_answer(
        self, membership: GithubMembership, github: FakeGithub
    ) -> None:
        github.control.rename_team("pytorch", "metamates", "friends")
        with pytest.raises(GithubRefused, match="no team pytorch/metamates"):
            await membership.facts(ADA)
        with pytest.raises(GithubRefused, match="no team pytorch/metamates"):
            await membership.lists()

    async def test_a_repository_that_is_hidden_is_no_answer(
        self, membership: GithubMembership, github: FakeGithub
    ) -> None:
        github.state.repositories.clear()
        for number in (ADA, 999):
            with pytest.raises(GithubRefused, match="no repository pytorch/pytorch"):
                await membership.facts(number)
        with pytest.raises(GithubRefused, match="no repository pytorch/pytorch"):
            await membership.lists()

    async def test_an_unknown_operator_team_gives_nobody_a_role_and_is_said(
        self, settings: GithubSettings, github: FakeGithub, now: Now
    ) -> None:
        client = GithubClient(msgspec.structs.replace(settings, operator_teams=("pytorch/nobody",)), now=now)
        membership = GithubMembership(client)
        found = await membership.facts(OLGA)
        assert (found.in_team, found.may_push, found.operator) == (True, True, False)
        lists = await membership.lists()
        assert lists.operators == set()
        (problem,) = lists.problems
        assert "no team pytorch/nobody" in problem
        github.control.team("pytorch", "nobody")
        assert (await membership.lists()).problems == ()
        await client.close()

    @pytest.mark.parametrize("route", ["/user/101", "/repos/.*/permission", "/orgs/.*/memberships/ada"])
    async def test_an_outage_of_one_route_is_no_answer(
        self, membership: GithubMembership, github: FakeGithub, route: str
    ) -> None:
        github.control.outage(path=f"/api/v3{route}")
        with pytest.raises(GithubUnavailable):
            await membership.facts(ADA)


class TestLists:
    async def test_everybody(self, membership: GithubMembership) -> None:
        found = await membership.lists()
        assert found.team == {ADA: "ada", BEN: "ben", CLEO: "cleo", OLGA: "olga"}
        assert found.push == {ADA: "ada", BEN: "ben", DORA: "dora", OLGA: "olga", PETE: "pete"}
        assert found.operators == {OLGA}
        assert found.teams == {
            "pytorch/metamates": {ADA, BEN, CLEO, OLGA},
            "pytorch/gpudev-operators": {OLGA},
            "pytorch/compiler": {ADA},
        }

    async def test_a_rename_comes_with_the_lists(
        self, membership: GithubMembership, github: FakeGithub
    ) -> None:
        await membership.lists()
        github.control.rename("ada", "ada-l")
        found = await membership.lists()
        assert (found.team[ADA], found.push[ADA]) == ("ada-l", "ada-l")

    async def test_500_people_every_five_minutes_stay_far_below_the_limit(
        self, membership: GithubMembership, client: GithubClient, github: FakeGithub
    ) -> None:
        for number in range(500):
            github.control.account(f"user{number}")
            github.control.join("pytorch", "metamates", f"user{number}")
            github.control.collaborator("pytorch/pytorch", f"user{number}", "write")
        await membership.lists()
        before = client.requests
        found = await membership.lists()
        assert len(found.team) == 504
        # 12 sweeps an hour, and at worst every one of them costs full answers.
        assert (client.requests - before) * 12 < 5000 / 10

    async def test_a_list_without_a_page_is_no_list(
        self, membership: GithubMembership, github: FakeGithub
    ) -> None:
        github.control.outage(path=".*/collaborators")
        with pytest.raises(GithubUnavailable):
            await membership.lists()
