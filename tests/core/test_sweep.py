"""What GitHub's lists and single answers mean for the people who are known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpudev_hub.core.access_model import Access, Person
from gpudev_hub.core.decisions.access_sweep import (
    BLOCKED,
    CONFIRM_AGAIN,
    PACE_OVER,
    Pace,
    Review,
    Rules,
    confirmed_again,
    id_of,
    is_confirmed,
    judge,
    newly_blocked,
    review,
    subject_of,
)
from gpudev_hub.core.events import AccessLost, PersonSeen
from gpudev_hub.core.model import HOUR, MINUTE
from gpudev_hub.core.ports import Account, Facts, Lists

RULES = Rules("o/team", "o/repo", 12 * HOUR, most_people=2, most_percent=20)
NOW = 100 * HOUR


def person(id: int, access: Access = Access.ALLOWED, **fields: object) -> Person:
    values = {"hub_user": f"p{id}", "login": f"p{id}", "teams": (), "operator": False, "reason": ""}
    values |= {"since": 0, "confirmed_at": NOW - MINUTE, **fields}
    return Person(subject_of(id), access=access, **values)  # type: ignore[arg-type]


def people(*found: Person) -> dict[str, Person]:
    return {one.subject: one for one in found}


def lists(team: dict[int, str], push: dict[int, str] | None = None, **more: object) -> Lists:
    values = {"operators": frozenset(), "teams": {}, **more}
    return Lists(team, team if push is None else push, **values)  # type: ignore[arg-type]


def logins(*ids: int) -> dict[int, str]:
    return {number: f"p{number}" for number in ids}


@pytest.mark.parametrize(
    ("team", "push", "suspects"),
    [
        (logins(1, 2, 3), logins(1, 2, 3), ()),
        (logins(1, 2), logins(1, 2, 3), ("github:3",)),  # left the team, or a pending member
        (logins(1, 2, 3), logins(1, 2), ("github:3",)),  # lost push
        (logins(1), logins(1), ("github:2", "github:3")),
    ],
)
def test_whoever_is_not_in_both_lists_is_a_suspect(
    team: dict[int, str], push: dict[int, str], suspects: tuple[str, ...]
) -> None:
    found = review(people(person(1), person(2), person(3)), lists(team, push), NOW, RULES)
    assert (found.seen, found.suspects, found.brake) == ((), suspects, "")


@pytest.mark.parametrize(
    ("count", "listed", "brake"),
    [
        (3, 0, "3 people would lose access at once: GitHub lists no member of o/team"),
        (3, 1, ""),
        (4, 1, "3 people would lose access at once; at most 2 are revoked without an operator"),
        (50, 40, ""),  # 20 percent
        (50, 39, "11 people would lose access at once; at most 10 are revoked without an operator"),
    ],
)
def test_more_than_the_brake_allows_are_not_revoked(count: int, listed: int, brake: str) -> None:
    known = people(*map(person, range(count)))
    everybody = logins(*range(count))
    assert review(known, lists(logins(*range(listed)), everybody), NOW, RULES).brake == brake


def test_an_empty_list_of_pushers_holds_the_brake_even_for_one() -> None:
    found = review(people(person(1)), lists(logins(1), {}), NOW, RULES)
    assert (
        found.brake
        == "1 person would lose access at once: GitHub lists nobody with push permission on o/repo"
    )


def test_people_released_by_an_operator_do_not_hold_the_brake() -> None:
    known, listed = people(*map(person, range(10))), lists(logins(0))
    held = review(known, listed, NOW, RULES)
    assert held.brake
    assert not review(known, listed, NOW, RULES, held.suspects).brake
    assert review(known, listed, NOW, RULES, held.suspects[:3]).brake, "others would be lost, too"


def test_a_rename_and_other_changes_are_followed_by_id() -> None:
    known = people(person(1), person(2), person(3))
    listed = lists({1: "new", 2: "p2", 3: "p3"}, operators={2}, teams={"o/x": {3}, "o/a": {3, 9}})
    assert review(known, listed, NOW, RULES).seen == (
        PersonSeen("github:1", "new", "new", (), False, NOW),
        PersonSeen("github:2", "p2", "p2", (), True, NOW),
        PersonSeen("github:3", "p3", "p3", ("o/a", "o/x"), False, NOW),
    )


def test_a_login_taken_over_by_another_account_keeps_nobody_in() -> None:
    found = review(people(person(1), person(5)), lists({2: "p1", 5: "p5"}), NOW, RULES)
    assert (found.seen, found.suspects) == ((), ("github:1",))


def test_people_who_are_back_get_access_again_and_strangers_none() -> None:
    known = people(person(1, Access.REVOKED), person(2, Access.REVOKED))
    found = review(known, lists(logins(1, 7)), NOW, RULES)
    assert found.seen == (PersonSeen("github:1", "p1", "p1", (), False, NOW),)
    assert found.suspects == (), "revoked already"


def test_who_is_blocked_is_out_whatever_github_says_and_no_brake_holds_it() -> None:
    rules = replace(RULES, most_people=0, blocked=frozenset({1, 2, 9}))
    known = people(person(1), person(2, Access.REVOKED), person(3))
    assert newly_blocked(known, rules) == [AccessLost("github:1", BLOCKED, "service")]
    out = people(person(1, Access.REVOKED), person(2, Access.REVOKED), person(3))
    assert review(out, lists(logins(1, 2, 3)), NOW, rules) == Review((), (), "")
    assert confirmed_again(out, lists(logins(1, 2)), NOW, 0, rules) == []
    facts = Facts(Account(9, "p9"), in_team=True, may_push=True, operator=False, teams=())
    assert judge("github:9", facts, NOW, rules) == AccessLost("github:9", BLOCKED, "service", NOW)
    unblocked = review(out, lists(logins(1, 3)), NOW, RULES)
    assert [seen.subject for seen in unblocked.seen] == ["github:1"]


def test_people_from_elsewhere_are_left_alone() -> None:
    local = replace(person(1), subject="local:ann")
    assert review(people(local), lists(logins(2)), NOW, RULES).suspects == ()
    assert [id_of(s) for s in ("github:7", "local:7", "github:x", "github:")] == [7, None, None, None]


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (
            Facts(None, in_team=False, may_push=False, operator=False, teams=()),
            "GitHub no longer has this account",
        ),
        (
            Facts(Account(1, "a"), in_team=False, may_push=False, operator=False, teams=()),
            "not a member of o/team, and no push permission on o/repo",
        ),
        (
            Facts(Account(1, "a"), in_team=False, may_push=True, operator=True, teams=()),
            "not a member of o/team",
        ),
        (
            Facts(Account(1, "a"), in_team=True, may_push=False, operator=False, teams=()),
            "no push permission on o/repo",
        ),
    ],
)
def test_one_person_is_judged_by_both_conditions(facts: Facts, reason: str) -> None:
    assert judge("github:1", facts, NOW, RULES) == AccessLost("github:1", reason, "service", NOW)


def test_both_conditions_give_access_under_the_present_login() -> None:
    facts = Facts(Account(1, "new"), in_team=True, may_push=True, operator=True, teams=("o/x",))
    assert judge("github:1", facts, NOW, RULES) == PersonSeen("github:1", "new", "new", ("o/x",), True, NOW)


def test_the_outage_grace_counts_from_the_last_confirmation_of_any_kind() -> None:
    one = person(1, confirmed_at=NOW)
    assert is_confirmed(one, None, RULES, NOW + 12 * HOUR)
    assert not is_confirmed(one, None, RULES, NOW + 12 * HOUR + 1)
    assert is_confirmed(one, NOW + HOUR, RULES, NOW + 13 * HOUR)
    assert not is_confirmed(None, NOW, RULES, NOW)


def test_the_brake_confirms_listed_people_and_no_suspects() -> None:
    """Else everybody would be shut out in the end."""
    old = NOW - CONFIRM_AGAIN
    known = people(person(1, confirmed_at=old), person(2, confirmed_at=old), person(3, confirmed_at=old + 1))
    again = confirmed_again(known, lists(logins(1, 3)), NOW, 0, RULES)
    assert [seen.subject for seen in again] == ["github:1"]
    assert confirmed_again(known, lists(logins(1, 3)), NOW, NOW - MINUTE, RULES) == []


def test_logins_and_hints_revoke_no_faster_than_the_brake() -> None:
    known, pace = people(*map(person, range(5))), Pace(RULES)
    for _ in range(2):
        assert pace.allows(known, NOW)
        pace.count(NOW)
    assert not pace.allows(known, NOW + PACE_OVER - 1)
    assert pace.allows(known, NOW + PACE_OVER)
