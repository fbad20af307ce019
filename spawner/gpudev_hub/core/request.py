"""From what a person asks to a complete, possible request, or to a refusal that says what to ask instead."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .errors import Code, Refused
from .ids import check_name
from .model import HOUR, Millis, Node, Policy, PoolSettings, Request, Shape
from .words import duration, listing


@dataclass(frozen=True, slots=True)
class Ask:
    """What was asked for, as on the wire: anything may be left out."""

    gpus: int | None = None
    """GPUs per node; left out with `nodes`: whole nodes."""
    nodes: int | None = None
    """Left out: one, and with `gpus` left out too: one GPU of it."""
    hours: float | None = None
    gpu_type: str | None = None
    name: str | None = None
    image: str | None = None


def joinable(nodes: Iterable[Node]) -> dict[str, int]:
    """How many nodes a gang of each pool can have: the size of its largest zone and placement group."""
    groups: dict[tuple[str, str], int] = {}
    for node in nodes:
        groups[node.pool, node.group] = groups.get((node.pool, node.group), 0) + 1
    largest: dict[str, int] = {}
    for (pool, _), count in groups.items():
        largest[pool] = max(count, largest.get(pool, 0))
    return largest


def resolve(policy: Policy, ask: Ask, nodes_of_pool: Mapping[str, int]) -> Request:
    """The complete request. `nodes_of_pool`: as from `joinable`, for every pool that has nodes.

    Raises `Refused` for what no pool can ever hold. Limits of the owner are not looked at (`quota.py`).
    """
    pool = _pool(policy, ask.gpu_type)
    shape = resolve_shape(pool, ask.gpus, ask.nodes, nodes_of_pool.get(pool.name, 0))
    hold = policy.default_hold if ask.hours is None else resolve_hours(ask.hours, policy.min_hold)
    name = None if ask.name is None else check_name(ask.name)
    return Request(shape=shape, pool=pool.name, hold=hold, image=_image(pool, ask.image), name=name)


def sizes(pool: PoolSettings) -> tuple[int, ...]:
    """The GPUs of one node that can be asked for: powers of two, and the whole node."""
    powers = [1 << i for i in range(pool.gpus_per_node.bit_length()) if 1 << i <= pool.gpus_per_node]
    return tuple(sorted({*powers, pool.gpus_per_node}))


def resolve_shape(pool: PoolSettings, gpus: int | None, nodes: int | None, known: int) -> Shape:
    """The shape asked for; `known`: how many nodes of the pool can be joined."""
    whole = pool.gpus_per_node
    largest = min(pool.max_gang, known)
    if gpus is None:
        gpus = 1 if nodes is None else whole
    if nodes is None:
        nodes = 1
    if nodes < 1:
        raise Refused(
            Code.INVALID_SHAPE,
            f"{nodes} nodes can't be reserved: at least 1",
            "leave --nodes out for one node",
        )
    if nodes == 1:
        if gpus not in sizes(pool):
            raise _refused_size(pool, gpus, largest)
        return Shape(gpus, 1)
    if gpus != whole:
        raise Refused(
            Code.INVALID_SHAPE,
            f"{gpus} GPUs on each of {nodes} nodes can't be reserved: several nodes are whole nodes, "
            f"{whole} GPUs each in {pool.name}",
            f"use --gpus {whole} --nodes {nodes}, or leave --gpus out",
        )
    if nodes > largest:
        if nodes <= pool.max_gang:
            why = f"{pool.name} has {known} that can be joined"
        else:
            why = f"at most {pool.max_gang} can be reserved together in {pool.name}"
            why += f", which has {known} that can be joined" if known < nodes else ""
        best = f"use --gpus {whole} --nodes {largest}" if largest > 1 else f"use --gpus {whole}"
        raise Refused(Code.INVALID_SHAPE, f"{nodes} nodes can't be reserved: {why}", best)
    return Shape(gpus, nodes)


def _refused_size(pool: PoolSettings, gpus: int, largest: int) -> Refused:
    """Why this number of GPUs is not one that can be asked for, and what to ask for instead."""
    whole = pool.gpus_per_node
    offered = f"{listing([str(size) for size in sizes(pool)], 'or')} GPUs of a node of {pool.name}"
    if gpus <= whole:
        better = next((size for size in sizes(pool) if size > gpus), whole)
        return Refused(
            Code.INVALID_SHAPE, f"{gpus} GPUs can't be reserved: ask for {offered}", f"use --gpus {better}"
        )
    nodes = -(-gpus // whole)
    if 1 < nodes <= largest:
        return Refused(
            Code.INVALID_SHAPE,
            f"{gpus} GPUs do not fit on one node of {pool.name}, which has {whole}: "
            f"use --gpus {whole} --nodes {nodes} (gpus={whole}, nodes={nodes})",
            f"several nodes are whole nodes of {whole} GPUs; on one node ask for {offered}",
        )
    most = whole * max(1, largest)
    return Refused(
        Code.INVALID_SHAPE,
        f"{gpus} GPUs can't be reserved: {pool.name} has {whole} GPUs a node, and one reservation holds at "
        f"most {most}",
        f"use --gpus {whole} --nodes {largest}" if largest > 1 else f"use --gpus {whole}",
    )


def resolve_hours(hours: float, least: Millis) -> Millis:
    """Hours as milliseconds; `least` is the shortest hold."""
    if not math.isfinite(hours * HOUR):
        raise Refused(
            Code.INVALID_HOURS, f"{hours} hours is not a length of time", "use --hours 4, for example"
        )
    if hours <= 0:
        raise Refused(
            Code.INVALID_HOURS,
            f"{hours:g} hours is not a length of time: it must be positive",
            "use --hours 4",
        )
    millis = round(hours * HOUR)
    if millis < least:
        raise Refused(
            Code.INVALID_HOURS,
            f"{hours:g} hours is shorter than the shortest hold, {duration(least)}",
            f"use --hours {math.ceil(least / HOUR * 100) / 100:g} or more",
        )
    return millis


def _pool(policy: Policy, gpu_type: str | None) -> PoolSettings:
    if gpu_type is None:
        return policy.pools[0]
    for pool in policy.pools:
        if pool.name == gpu_type:
            return pool
    known = listing([pool.name for pool in policy.pools], "and")
    raise Refused(
        Code.UNKNOWN_GPU_TYPE,
        f"there is no GPU type {gpu_type!r} here",
        f"known: {known}; leave --gpu-type out for {policy.pools[0].name}",
    )


def _image(pool: PoolSettings, image: str | None) -> str:
    if image is None:
        return pool.images[0]
    if image in pool.images:
        return image
    raise Refused(
        Code.INVALID_IMAGE,
        f"{pool.name} has no image {image!r}",
        f"known: {listing(list(pool.images), 'and')}; leave --image out for {pool.images[0]}",
    )
