"""Which slots of a node a reservation gets when it starts.

The plan only counts GPUs, so any free slots would do. Aligned blocks (2 at an even slot, 4 at a multiple of
4, …) keep a server within one CPU socket and leave whole blocks for the next.
"""

from collections.abc import Collection, Iterator


def choose_slots(free: Collection[int], count: int, capacity: int) -> tuple[int, ...]:
    """Return ``count`` free slots of a node with slots 0 … capacity - 1, in ascending order.

    They are an aligned block, taken from the smallest free block that holds one. If no such block is free,
    they are the slots that break up the fewest free aligned blocks. Raises ``ValueError`` if fewer than
    ``count`` are free, which no plan allows.
    """
    available = {slot for slot in free if 0 <= slot < capacity}
    if count < 1 or len(available) < count:
        raise ValueError(f"{count} slots wanted, {len(available)} of {capacity} free")
    size = 1 << (count - 1).bit_length()  # the least power of two that is at least `count`
    blocks = list(_free_blocks(available, size, capacity)) if size == count else []
    if blocks:
        start = min(blocks, key=lambda block: (_enclosing(available, block, size, capacity), block))
        return tuple(range(start, start + size))
    taken: list[int] = []
    while len(taken) < count:
        # The neighbours of a slot in the smallest free block are the least useful for larger requests.
        slot = min(available, key=lambda slot: (_enclosing(available, slot, 1, capacity), slot))
        available.remove(slot)
        taken.append(slot)
    return tuple(sorted(taken))


def _free_blocks(available: set[int], size: int, capacity: int) -> Iterator[int]:
    """Yield the first slots of the aligned blocks of this size that are entirely free."""
    for start in range(0, capacity - size + 1, size):
        if available.issuperset(range(start, start + size)):
            yield start


def _enclosing(available: set[int], start: int, size: int, capacity: int) -> int:
    """Return the size of the largest entirely free aligned block around the block at ``start``."""
    while size * 2 <= capacity:
        wider = start - start % (size * 2)
        if wider + size * 2 > capacity or not available.issuperset(range(wider, wider + size * 2)):
            break
        start, size = wider, size * 2
    return size
