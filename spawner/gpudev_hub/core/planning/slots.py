"""Which slots of a node a reservation gets when it starts.

The plan only counts, so any free slots will do. Aligned blocks (2 at an even slot, 4 at a multiple of 4, …)
keep a server within one CPU socket and leave whole blocks for the next.
"""

from collections.abc import Collection, Iterable, Iterator


def choose_slots(free: Collection[int], count: int, capacity: int) -> tuple[int, ...]:
    """`count` of the free slots of a node that has slots 0 … capacity - 1, in ascending order.

    An aligned block, out of the smallest free block that holds one; where none is free, the slots that spoil
    the fewest free aligned blocks. Raises ValueError when fewer than `count` are free, which no plan allows.
    """
    available = {slot for slot in free if 0 <= slot < capacity}
    if count < 1 or len(available) < count:
        raise ValueError(f"{count} slots wanted, {len(available)} of {capacity} free")
    size = _block_size(count)
    blocks = list(_free_blocks(available, size, capacity)) if size == count else []
    if blocks:
        start = min(blocks, key=lambda block: (_enclosing(available, block, size, capacity), block))
        return tuple(range(start, start + size))
    taken: list[int] = []
    while len(taken) < count:
        # A slot of the smallest free block around: its neighbours are the least good for anything larger.
        slot = min(available, key=lambda slot: (_enclosing(available, slot, 1, capacity), slot))
        available.remove(slot)
        taken.append(slot)
    return tuple(sorted(taken))


def _block_size(count: int) -> int:
    """The least power of two that is not below `count`."""
    return 1 << (count - 1).bit_length()


def _free_blocks(available: Collection[int], size: int, capacity: int) -> Iterator[int]:
    """First slots of the aligned blocks of this size that are wholly free."""
    for start in range(0, capacity - size + 1, size):
        if _all_in(range(start, start + size), available):
            yield start


def _enclosing(available: Collection[int], start: int, size: int, capacity: int) -> int:
    """The size of the largest wholly free aligned block around the block at `start`."""
    while size * 2 <= capacity:
        wider = start - start % (size * 2)
        if wider + size * 2 > capacity or not _all_in(range(wider, wider + size * 2), available):
            break
        start, size = wider, size * 2
    return size


def _all_in(slots: Iterable[int], available: Collection[int]) -> bool:
    return all(slot in available for slot in slots)
