"""The plan by example: one fact of the queue's rules at a time."""

from dataclasses import replace

import pytest

from gpudev_hub.core.model import HOUR, Place
from gpudev_hub.core.planning.plan import FOREVER, Demand, Plan, PlanNode
from plans import free_on, longest_extension, placed_in

NOBODY = 10**6


def demand(key: str, gpus: int, hours: float, nodes: int = 1, owner: str = "", cap: int = NOBODY) -> Demand:
    """A demand whose place in the queue is that of its key."""
    return Demand(key, owner or f"owner of {key}", gpus, nodes, int(hours * HOUR), cap, ord(key[0]))


def nodes(count: int, gpus: int = 8, group: str = "rack") -> list[PlanNode]:
    return [PlanNode(f"n{i}", gpus, group) for i in range(1, count + 1)]


def add(plan: Plan, wanted: Demand, now: int = 0) -> Place:
    place = plan.earliest(wanted, now)
    assert place is not None
    plan.put(wanted, place)
    return place


def starts(plan: Plan) -> dict[str, float]:
    return {wanted.key: place.start / HOUR for wanted, place in placed_in(plan)}


def free(plan: Plan, now: int) -> dict[str, int]:
    return {name: free_on(plan, name, now) for name in ("n1", "n2")}


def never() -> bool:
    return False


def settle(plan: Plan, now: int) -> None:
    plan.fill_holes(now)
    assert plan.compress(now, never)[1]


def test_compression_helps_both_where_a_new_plan_would_break_a_promise() -> None:
    plan = Plan(nodes(1, gpus=2))
    plan.occupy("x", "ann", 1, ("n1",), 0, 6 * HOUR)
    plan.occupy("y", "bob", 1, ("n1",), 0, 2 * HOUR)
    add(plan, demand("b", 2, 4))
    add(plan, demand("c", 1, 4))
    assert starts(plan) == {"b": 6, "c": 2}
    plan.vacate("x", HOUR)
    settle(plan, HOUR)
    assert starts(plan) == {"b": 5, "c": 1}


def test_room_freed_later_lets_one_start_before_it() -> None:
    plan = Plan(nodes(2))
    plan.occupy("x", "ann", 8, ("n1",), 0, HOUR)
    plan.occupy("y", "bob", 8, ("n1",), 3 * HOUR, 5 * HOUR)
    plan.occupy("z", "cleo", 8, ("n1",), 5 * HOUR, 20 * HOUR)
    plan.occupy("w", "dan", 8, ("n2",), 0, 5 * HOUR)
    plan.compress(0, never)
    assert add(plan, demand("a", 8, 4)).nodes == ("n2",)
    plan.compress(0, never)
    plan.vacate("y", 0)
    assert plan.fill_holes(0) == {"a": Place(HOUR, 5 * HOUR, ("n1",))}


def test_a_freed_cap_lets_the_owners_requests_forward_on_any_node() -> None:
    plan = Plan(nodes(3))
    plan.occupy("x", "ann", 1, ("n1",), 0, 5 * HOUR)
    plan.occupy("y", "ann", 1, ("n2",), 0, 2 * HOUR)
    plan.occupy("z", "bob", 8, ("n1",), 5 * HOUR, 9 * HOUR)
    add(plan, demand("a", 2, 3, owner="ann", cap=2))
    add(plan, demand("b", 1, 3, owner="ann", cap=2))
    assert starts(plan) == {"a": 5, "b": 2}
    plan.vacate("x", HOUR)
    settle(plan, HOUR)
    assert starts(plan) == {"a": 4, "b": 1}


def test_a_cap_holds_all_through_the_place() -> None:
    plan = Plan(nodes(2))
    first = demand("a", 8, 2, owner="ann", cap=8)
    plan.put(first, Place(3 * HOUR, 5 * HOUR, ("n1",)))
    late = demand("b", 1, 4, owner="ann", cap=8)
    place = plan.earliest(late, 0)
    assert place is not None
    assert place.start == 5 * HOUR
    short = demand("c", 1, 3, owner="ann", cap=8)
    place = add(plan, short)
    assert place.start == 0
    assert plan.earliest(demand("d", 8, 1, nodes=2, owner="cleo", cap=8), 0) is None


def test_a_placed_request_keeps_the_tighter_cap_it_was_asked_with() -> None:
    plan = Plan(nodes(2))
    add(plan, demand("a", 4, 2, owner="ann", cap=4))
    assert add(plan, demand("b", 4, 2, owner="ann", cap=8)).start == 2 * HOUR
    plan.occupy("a", "ann", 4, ("n1",), 0, 2 * HOUR)
    settle(plan, 0)
    assert starts(plan) == {"b": 0}


def test_best_fit_then_the_nearest_end_then_the_name() -> None:
    plan = Plan(nodes(3))
    assert add(plan, demand("a", 1, 1)).nodes == ("n1",)
    assert add(plan, demand("b", 2, 5)).nodes == ("n1",)
    plan.occupy("x", "ann", 3, ("n3",), 0, 2 * HOUR)
    place = plan.earliest(demand("c", 1, 2), 0)
    assert place is not None
    assert place.nodes == ("n3",)
    place = plan.earliest(demand("c", 1, 5), 0)
    assert place is not None
    assert place.nodes == ("n1",)


def test_a_pair_is_all_or_none_in_one_group_at_one_instant() -> None:
    plan = Plan([PlanNode("a1", 8, "a"), PlanNode("b1", 8, "b"), PlanNode("b2", 8, "b")])
    plan.occupy("x", "ann", 1, ("b1",), 0, 2 * HOUR)
    plan.occupy("y", "bob", 8, ("b2",), 3 * HOUR, 5 * HOUR)
    pair = demand("p", 8, 2, nodes=2)
    assert plan.earliest(pair, 0) == Place(5 * HOUR, 7 * HOUR, ("b1", "b2"))
    assert plan.earliest(replace(pair, length=HOUR), 0) == Place(2 * HOUR, 3 * HOUR, ("b1", "b2"))
    assert not plan.fits(pair, Place(5 * HOUR, 7 * HOUR, ("a1", "b1")), 0)
    assert plan.earliest(demand("q", 8, 1, nodes=3), 0) is None


def test_a_pair_takes_the_first_two_nodes_that_are_free_together() -> None:
    plan = Plan(nodes(3))
    plan.occupy("x", "ann", 8, ("n1",), 0, 5 * HOUR)
    plan.occupy("y", "bob", 8, ("n3",), 0, HOUR)
    assert plan.earliest(demand("p", 8, 2, nodes=2), 0) == Place(HOUR, 3 * HOUR, ("n2", "n3"))
    plan.occupy("z", "bob", 8, ("n2",), 2 * HOUR, 3 * HOUR)
    assert plan.earliest(demand("p", 8, 2, nodes=2), 0) == Place(3 * HOUR, 5 * HOUR, ("n2", "n3"))


def test_ends_are_half_open() -> None:
    plan = Plan(nodes(1))
    plan.occupy("x", "ann", 8, ("n1",), 0, HOUR)
    first = add(plan, demand("a", 8, 1))
    assert (first.start, first.end) == (HOUR, 2 * HOUR)
    assert add(plan, demand("b", 8, 1)).start == 2 * HOUR


def test_a_node_that_ends_takes_nothing_past_its_end() -> None:
    plan = Plan([PlanNode("n1", 8, "rack", until=5 * HOUR)])
    plan.occupy("x", "ann", 8, ("n1",), 0, 2 * HOUR)
    assert plan.earliest(demand("a", 1, 4), 0) is None
    assert add(plan, demand("b", 1, 3)).end == 5 * HOUR
    assert plan.set_node(PlanNode("n1", 8, "rack", until=4 * HOUR)) == ["b"]
    assert free_on(plan, "n1", 4 * HOUR) == 0


def test_starts_neither_before_it_may_nor_on_an_excluded_node() -> None:
    plan = Plan(nodes(2))
    wanted = replace(demand("a", 8, 1), excluded=frozenset({"n1"}))
    assert plan.earliest(wanted, HOUR) == Place(HOUR, 2 * HOUR, ("n2",))
    assert plan.earliest(wanted, HOUR, before=HOUR) is None
    assert not plan.fits(wanted, Place(HOUR, 2 * HOUR, ("n1",)), 0)
    assert plan.fits(wanted, Place(HOUR, 2 * HOUR, ("n2",)), 0)


def test_a_node_down_offers_nothing_and_names_who_needed_it() -> None:
    plan = Plan(nodes(2))
    plan.occupy("x", "ann", 4, ("n1",), 0, 9 * HOUR)
    add(plan, demand("p", 8, 1, nodes=2))
    add(plan, demand("q", 1, 1))
    assert plan.remove_node("n1") == ["p", "q"]
    assert plan.earliest(demand("p", 8, 1, nodes=2), 0) is None
    assert free(plan, 0) == {"n1": 0, "n2": 8}
    assert longest_extension(plan, "x", 0, 10 * HOUR) == 9 * HOUR
    assert plan.extend("x", 10 * HOUR, 0, lambda _: FOREVER) is None
    assert plan.set_node(PlanNode("n1", 8, "rack")) == []
    assert free(plan, 0) == {"n1": 4, "n2": 8}


def test_a_stop_that_overruns_displaces_plans_and_lets_the_owner_go() -> None:
    plan = Plan(nodes(1))
    plan.occupy("x", "ann", 8, ("n1",), 0, HOUR)
    add(plan, demand("a", 4, 1))
    add(plan, demand("b", 1, 1, owner="ann", cap=8))
    assert plan.reshape("x", None, counts=False) == ["a", "b"]
    assert plan.earliest(demand("a", 4, 1), HOUR) is None
    plan.set_node(PlanNode("n2", 8, "rack"))
    place = plan.earliest(demand("b", 1, 1, owner="ann", cap=8), HOUR)
    assert place == Place(HOUR, 2 * HOUR, ("n2",))
    plan.vacate("x", 2 * HOUR)
    assert free(plan, 2 * HOUR) == {"n1": 8, "n2": 8}


def test_the_older_keep_their_places_when_not_all_can() -> None:
    plan = Plan(nodes(1))
    plan.put(demand("a", 4, 1), Place(2 * HOUR, 3 * HOUR, ("n1",)))
    plan.put(demand("b", 4, 1), Place(2 * HOUR, 3 * HOUR, ("n1",)))
    assert plan.occupy("x", "ann", 4, ("n1",), 0, 5 * HOUR) == ["b"]
    assert starts(plan) == {"a": 2}


def test_a_place_becomes_a_claim_and_what_it_does_not_use_is_offered() -> None:
    plan = Plan(nodes(1))
    place = add(plan, demand("a", 8, 4))
    add(plan, demand("b", 8, 1))
    assert plan.occupy("a", "owner of a", 8, place.nodes, 0, 4 * HOUR) == []
    assert plan.fill_holes(0) == {}
    plan.reshape("a", 3 * HOUR)
    assert plan.fill_holes(0) == {"b": Place(3 * HOUR, 4 * HOUR, ("n1",))}


def test_an_extension_is_all_or_nothing_within_everybodys_promise() -> None:
    plan = Plan(nodes(1))
    plan.occupy("x", "ann", 8, ("n1",), 0, 2 * HOUR)
    add(plan, demand("a", 8, 1))
    add(plan, demand("b", 4, 1))
    promises = {"a": 4 * HOUR, "b": 5 * HOUR}
    assert longest_extension(plan, "x", 0, 9 * HOUR) == 2 * HOUR
    assert plan.obstacle("x", 4 * HOUR, 0, promises.__getitem__) is None
    assert plan.obstacle("x", 4 * HOUR + 1, 0, promises.__getitem__) == "a"
    assert starts(plan) == {"a": 2, "b": 3}
    assert plan.longest_grantable("x", 0, 9 * HOUR, promises.__getitem__) == 4 * HOUR
    assert plan.extend("x", 4 * HOUR + 1, 0, promises.__getitem__) is None
    assert starts(plan) == {"a": 2, "b": 3}
    moves = plan.extend("x", 4 * HOUR, 0, promises.__getitem__)
    assert moves == {"a": Place(4 * HOUR, 5 * HOUR, ("n1",)), "b": Place(5 * HOUR, 6 * HOUR, ("n1",))}
    assert starts(plan) == {"a": 4, "b": 5}
    assert plan.longest_grantable("x", 0, 9 * HOUR, promises.__getitem__) == 4 * HOUR


def test_an_extension_heeds_the_owners_own_queued_request() -> None:
    plan = Plan(nodes(2))
    plan.occupy("x", "ann", 8, ("n1",), 0, 2 * HOUR)
    own = replace(demand("a", 8, 1, owner="ann", cap=8), excluded=frozenset({"n1"}))
    assert add(plan, own) == Place(2 * HOUR, 3 * HOUR, ("n2",))
    assert longest_extension(plan, "x", 0, 4 * HOUR) == 2 * HOUR
    assert plan.obstacle("x", 3 * HOUR, 0, lambda _: 2 * HOUR) == "a"
    assert plan.extend("x", 3 * HOUR, 0, lambda _: 2 * HOUR) is None
    assert plan.extend("x", 3 * HOUR, 0, lambda _: 3 * HOUR) == {"a": Place(3 * HOUR, 4 * HOUR, ("n2",))}


def test_refusing_an_extension_leaves_nothing_behind_that_hides_room() -> None:
    plan = Plan(nodes(1))
    plan.occupy("x", "ann", 8, ("n1",), 0, 2 * HOUR)
    add(plan, demand("a", 8, 1))
    assert plan.longest_grantable("x", 0, 8 * HOUR, lambda _: 2 * HOUR) == 2 * HOUR
    assert plan.extend("x", 8 * HOUR, 0, lambda _: 2 * HOUR) is None
    assert add(plan, demand("b", 8, 1)).start == 3 * HOUR


def test_the_cascade_goes_on_where_it_was_stopped() -> None:
    plan = Plan(nodes(1))
    plan.occupy("x", "ann", 8, ("n1",), 0, 10 * HOUR)
    for key in "abcdefgh":
        add(plan, demand(key, 8, 1))
    plan.vacate("x", HOUR)
    assert plan.fill_holes(HOUR) == {
        key: Place((1 + i) * HOUR, (2 + i) * HOUR, ("n1",)) for i, key in enumerate("abcdefgh")
    }
    slices = [plan.compress(HOUR, lambda: True) for _ in range(9)]
    assert slices == [({}, False)] * 8 + [({}, True)]


def test_keys_are_unique() -> None:
    plan = Plan(nodes(1))
    plan.occupy("x", "ann", 1, ("n1",), 0, HOUR)
    with pytest.raises(ValueError, match="x occupies the plan already"):
        plan.occupy("x", "ann", 1, ("n1",), 0, HOUR)
    place = add(plan, demand("a", 1, 1))
    with pytest.raises(ValueError, match="a has a place already"):
        plan.put(demand("a", 1, 1), place)
