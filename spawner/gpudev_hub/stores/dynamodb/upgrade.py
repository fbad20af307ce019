"""Layout 1 of the table, and how it becomes layout 2.

Layout 1 had an item for each live record under ``hot``: ``reservation#ID`` …, and ``node#NAME`` with a node's
record and the owner of its slot 3 as attribute ``s3``. ``history``, ``ended`` and the logs of ended
reservations are the same in both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gpudev_hub.core.commit import Owned, Slot
from gpudev_hub.core.live_state import ClaimKey
from gpudev_hub.stores import records

from . import items
from .checkpoint import Checkpoints, NotWhole
from .folded import Folded, Log, Recent, by_node
from .items import Head, Item, n_of, s_of
from .reads import Reader
from .whole import check_owners


def upgrade(head: Head, read: Reader, checkpoints: Checkpoints) -> Head:
    """Convert the table of the head, whose epoch is ours.

    The head's last update makes it layout 2. Before, it is a table of layout 1 with some more items: after a
    crash any version can go on from there, this one by converting it again. Raises ``NotWhole`` or ``Unmet``.
    """
    folded, owners = Folded(Recent(head.n)), dict[Slot, tuple[str, int]]()
    for item in read.query("pk = :pk", {":pk": s_of("hot")}):
        if "record" in item:
            kind = items.text(item, "sk").partition("#")[0]
            folded.state.set_record(records.decode(kind, items.text(item, "record").encode()))
        owners.update(_slots_in(item))
    _check_last(head, folded, read)
    check_owners(folded.state, owners)
    state = folded.state
    live = (
        state.reservations.keys()
        | state.minted.keys()
        | {claim.reservation for claim in state.claims.values()}
    )
    for item in read.get_all([items.log_key(of) for of in sorted(live)]):
        ended = items.number(item, "ended") if "ended" in item else None
        of = items.text(item, "pk").partition("#")[2]
        folded.logs[of] = Log(tuple(items.commits_in(item)), ended)
    used = [
        {**items.log_item(of, folded.logs[of].commits, None), "n": n_of(head.n)}
        for of in sorted(state.reservations)
    ]
    checkpoints.write_all(head, [{"Put": {"Item": item}} for item in [*_slot_items(owners), *used]])
    name, _ = checkpoints.store(head, folded, folded.logs)
    return checkpoints.publish(head, name)


def remove_layout_1(head: Head, read: Reader, checkpoints: Checkpoints) -> None:
    """Remove the items that a converted table does not need."""
    left = read.query("pk = :pk", {":pk": s_of("hot")}, ProjectionExpression="pk, sk")
    checkpoints.write_all(head, [{"Delete": {"Key": key}} for key in left])


def _check_last(head: Head, folded: Folded, read: Reader) -> None:
    """The records are as the last commit left them."""
    there = {n: entries for n, _, entries in read.commits_from(head.n or 1)}
    if head.n + 1 in there:
        raise NotWhole(f"commit {head.n + 1} is in the history, and the head says that {head.n} was the last")
    if head.n and head.n not in there:
        raise NotWhole(f"the head says that commit {head.n} was the last, and the history lacks it")
    last = {}
    for _, entry in there.get(head.n, ()):
        last[records.kind_of(entry.change.record), records.name_of(entry.change.record)] = entry.change
    for (kind, name), change in last.items():
        if folded.state.known(change.record) != (None if change.gone else change.record):
            raise NotWhole(f"{kind} {name} is not as commit {head.n} left it")


def _slots_in(item: Item) -> Iterable[Owned]:
    node = items.text(item, "sk").partition("#")[2]
    for name in item:
        if name[0] == "s" and name[1:].isdigit():
            yield Slot(node, int(name[1:])), items.owner_in(items.text(item, name))


def _slot_items(owners: Mapping[Slot, ClaimKey]) -> list[Item]:
    """All of them, also those without an owner: an earlier try may have left others there."""
    found = {f"{i:02}": {"pk": s_of("slots"), "sk": s_of(f"{i:02}")} for i in range(items.SLOT_ITEMS)}
    for node, owned in by_node(owners).items():
        key = items.text(items.slots_key(node), "sk")
        found[key][items.node_attribute(node)] = s_of(items.owners_text(owned))
    return list(found.values())
