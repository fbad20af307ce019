"""Turns what a person asks for into a complete request, or a refusal that says what to ask instead."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .errors import Code, Refused
from .ids import check_name
from .model import HOUR, Millis, Node, Request, Shape
from .policy import Policy, PoolSettings
from .words import counted, duration, listing


@dataclass(frozen=True, slots=True)
class Ask:
    """What was asked for, as in the API: every field may be left out."""

    gpus: int | None = None
    """GPUs per node; left out with ``nodes``: whole nodes."""
    nodes: int | None = None
    """Left out: one node; if ``gpus`` is left out, too: one GPU of it."""
    hours: float | None = None
    gpu_type: str | None = None
    name: str | None = None
    image: str | None = None


def joinable(nodes: Iterable[Node]) -> dict[str, int]:
    """Return how many nodes a gang of each pool can have: its largest zone and placement group."""
    groups: dict[tuple[str, str], int] = {}
    for node in nodes:
        groups[node.pool, node.group] = groups.get((node.pool, node.group), 0) + 1
    largest: dict[str, int] = {}
    for (pool, _), count in groups.items():
        largest[pool] = max(count, largest.get(pool, 0))
    return largest


def resolve(policy: Policy, ask: Ask, nodes_of_pool: Mapping[str, int]) -> Request:
    """Return the complete request. ``nodes_of_pool``: as from ``joinable``, for every pool that has nodes.

    Raises ``Refused`` for a request that no pool can ever serve. The owner's limits are not checked
    (``limits/quota.py``).
    """
    pool = _pool(policy, ask.gpu_type)
    shape = resolve_shape(pool, ask.gpus, ask.nodes, nodes_of_pool.get(pool.name, 0))
    hold = policy.default_hold if ask.hours is None else resolve_hours(ask.hours, policy.min_hold)
    name = None if ask.name is None else check_name(ask.name)
    return Request(shape=shape, pool=pool.name, hold=hold, image=_image(pool, ask.image), name=name)


def sizes(pool: PoolSettings) -> tuple[int, ...]:
    """Return how many GPUs of a node can be requested: powers of two, and the whole node."""
    powers = [1 << i for i in range(pool.gpus_per_node.bit_length()) if 1 << i <= pool.gpus_per_node]
    return tuple(sorted({*powers, pool.gpus_per_node}))


def resolve_shape(pool: PoolSettings, gpus: int | None, nodes: int | None, known: int) -> Shape:
    """Return the shape asked for; ``known``: how many nodes of the pool can be used together."""
    whole = pool.gpus_per_node
    largest = min(pool.max_gang, known)
    if gpus is None:
        gpus = 1 if nodes is None else whole
    if nodes is None:
        nodes = 1
    if nodes < 1:
        raise Refused(
            Code.INVALID_SHAPE,
            f"You asked for {nodes} nodes; the minimum is 1.",
            "Leave the number of nodes out to get one node.",
        )
    if nodes == 1:
        if gpus not in sizes(pool):
            raise _refused_size(pool, gpus, largest)
        return Shape(gpus, 1)
    if gpus != whole:
        raise Refused(
            Code.INVALID_SHAPE,
            f"{counted(gpus, 'GPU')} on each of {nodes} nodes cannot be reserved: a reservation of several "
            f"nodes takes whole nodes, with {counted(whole, 'GPU')} each in pool {pool.name}.",
            f"Use {counted(whole, 'GPU')} per node, or leave the number of GPUs out.",
        )
    if nodes > largest:
        if nodes <= pool.max_gang:
            why = f"pool {pool.name} has {counted(known, 'node')} that can be used together"
        else:
            why = f"the limit in pool {pool.name} is {pool.max_gang}"
            why += f", and it has {counted(known, 'node')} that can be used together" if known < nodes else ""
        raise Refused(
            Code.INVALID_SHAPE, f"{nodes} nodes cannot be reserved: {why}.", _largest(whole, largest)
        )
    return Shape(gpus, nodes)


def _largest(whole: int, nodes: int) -> str:
    """Return a hint with the largest shape: ``nodes`` whole nodes, or one if no more can be used together."""
    gpus = counted(whole, "GPU")
    return f"Use {nodes} nodes of {gpus} each." if nodes > 1 else f"Use {gpus}."


def _refused_size(pool: PoolSettings, gpus: int, largest: int) -> Refused:
    """Return the refusal of a number of GPUs that the pool does not offer, with what to ask for instead."""
    whole = pool.gpus_per_node
    offered = listing([str(size) for size in sizes(pool)], "or")
    if gpus <= whole:
        better = next((size for size in sizes(pool) if size > gpus), whole)
        return Refused(
            Code.INVALID_SHAPE,
            f"{gpus} GPUs cannot be reserved: a reservation in pool {pool.name} has {offered} GPUs per node.",
            f"Use {counted(better, 'GPU')}.",
        )
    nodes = -(-gpus // whole)
    if 1 < nodes <= largest:
        return Refused(
            Code.INVALID_SHAPE,
            f"{gpus} GPUs do not fit on one node: a node of pool {pool.name} has {whole}. "
            f"Use --gpus {whole} --nodes {nodes} (gpus={whole}, nodes={nodes}).",
            f"A reservation of several nodes takes whole nodes of {whole} GPUs. "
            f"On one node, ask for {offered} GPUs.",
        )
    most = whole * max(1, largest)
    return Refused(
        Code.INVALID_SHAPE,
        f"{gpus} GPUs cannot be reserved: a node of pool {pool.name} has {whole}, and the limit for one "
        f"reservation is {most}.",
        _largest(whole, largest),
    )


def resolve_hours(hours: float, least: Millis) -> Millis:
    """Return hours as milliseconds; ``least``: the shortest hold."""
    if not math.isfinite(hours * HOUR):
        raise Refused(
            Code.INVALID_HOURS, f"{hours} is not a number of hours.", "Use a number, for example 4."
        )
    if hours <= 0:
        raise Refused(
            Code.INVALID_HOURS,
            f"You asked for {hours:g} hours; the hold time must be longer than zero.",
            "Use a positive number, for example 4.",
        )
    millis = round(hours * HOUR)
    if millis < least:
        raise Refused(
            Code.INVALID_HOURS,
            f"You asked for {duration(millis)}; the shortest hold time is {duration(least)}.",
            f"Use {duration(least)} or more.",
        )
    return millis


def _pool(policy: Policy, gpu_type: str | None) -> PoolSettings:
    # Settings files and scripts may still ask for simulated GPUs by the name "pretended".
    if gpu_type is None:
        return policy.pools[0]
    for pool in policy.pools:
        if pool.name == gpu_type or (pool.simulated and gpu_type == "pretended"):
            return pool
    known = listing([pool.name for pool in policy.pools], "and")
    raise Refused(
        Code.UNKNOWN_GPU_TYPE,
        f"There is no GPU type {gpu_type!r}.",
        f"Available: {known}. Leave the GPU type out to get {policy.pools[0].name}.",
    )


def _image(pool: PoolSettings, image: str | None) -> str:
    if image is None:
        return pool.images[0]
    if image in pool.images:
        return image
    raise Refused(
        Code.INVALID_IMAGE,
        f"Pool {pool.name} has no image {image!r}.",
        f"Available: {listing(list(pool.images), 'and')}. Leave the image out to get {pool.images[0]}.",
    )
