"""Layout 1 of the table, and how it becomes layout 2.

Layout 1 had an item for each live record under ``hot``: ``reservation#ID`` …, and ``node#NAME`` with a node's
record and the owner of its slot 3 as attribute ``s3``. ``history``, ``ended`` and the logs of ended
reservations are the same in both.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from gpudev_hub.core.commit import Owned, Slot
from gpudev_hub.core.live_state import ClaimKey, key_of
from gpudev_hub.stores import checkpoint, items, records, writes
from gpudev_hub.stores.backend import Action, Backend, Item, Write, reading
from gpudev_hub.stores.checkpoint import Folded, Log, NotWhole, check_owners
from gpudev_hub.stores.items import Head
from gpudev_hub.stores.reads import commits_from


def upgrade(backend: Backend, head: Head) -> Head:
    """Convert the table of the head, whose epoch is ours.

    The head's last update makes it layout 2. Before, it is a table of layout 1 with some more items: after a
    crash any version can continue from there, this one by converting it again. Raises ``NotWhole`` or
    ``Unmet``.
    """
    folded, owners = Folded(head.n), dict[Slot, ClaimKey]()
    for item in backend.query("hot"):
        with reading(items.key_in(item)):
            if "record" in item:
                kind, data = item["sk"].partition("#")[0], msgspec.convert(item["record"], str)
                folded.state.set_record(records.decode(kind, data.encode()))
            owners.update(_slots_in(item))
    _check_last(head, folded, backend)
    check_owners(folded.state, owners)
    state = folded.state
    live = (
        state.reservations.keys()
        | state.minted.keys()
        | {claim.reservation for claim in state.claims.values()}
    )
    for item in backend.get_all([items.log_key(of) for of in sorted(live)]):
        of = item["pk"].partition("#")[2]
        log = items.log_in(item)
        folded.logs[of] = Log(tuple(log.commits), log.ended)
    used = [
        Write(Action.PUT, items.log_key(of), {"commits": [*folded.logs[of].commits], "n": head.n})
        for of in sorted(state.reservations)
    ]
    checkpoint.write_all(backend, head, [*writes.put_owners(owners), *used])
    encoded = [(records.kind_of(record), records.encode(record)) for record in state.live_records()]
    return checkpoint.publish(backend, head, checkpoint.encode(encoded, folded.logs))


def remove_layout_1(backend: Backend, head: Head) -> None:
    """Remove the items that a converted table does not need."""
    left = backend.query("hot")
    checkpoint.write_all(backend, head, (Write(Action.DELETE, ("hot", item["sk"])) for item in left))


def _check_last(head: Head, folded: Folded, backend: Backend) -> None:
    """Raise ``NotWhole`` if the records are not as the last commit left them."""
    there = {n: entries for n, _, entries in commits_from(backend, head.n or 1)}
    if head.n + 1 in there:
        raise NotWhole(f"commit {head.n + 1} is in the history, and the head says that {head.n} was the last")
    if head.n and head.n not in there:
        raise NotWhole(f"the head says that commit {head.n} was the last, and the history lacks it")
    changes = [entry.change for _, entry in there.get(head.n, ())]
    last = {(type(change.record), key_of(change.record)): change for change in changes}
    for (_, key), change in last.items():
        if folded.state.known(change.record) != (None if change.gone else change.record):
            raise NotWhole(f"{records.kind_of(change.record)} {key} is not as commit {head.n} left it")


def _slots_in(item: Item) -> Iterator[Owned]:
    node = item["sk"].partition("#")[2]
    for name in item:
        if name[0] == "s" and name[1:].isdigit():
            yield Slot(node, int(name[1:])), items.owner_in(msgspec.convert(item[name], str))
