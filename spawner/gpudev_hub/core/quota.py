"""Limits on one owner, checked when he asks or extends. GPUs running at once are the plan's business."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .errors import Code, Refused
from .model import HOUR, Allowances, Claim, Millis, Node, Policy, Request, Reservation, State
from .request import resolve_hours
from .words import duration, gpus


def gpu_hours(reservations: Iterable[Reservation]) -> float:
    """Σ GPUs × hours asked for, extensions included."""
    return sum(r.request.shape.total_gpus * r.request.hold for r in reservations) / HOUR


def counts(claim: Claim, reservations: Mapping[str, Reservation], nodes: Mapping[str, Node]) -> bool:
    """Return whether a claim counts against its owner's cap.

    Not if a later attempt has taken its place or the reservation has ended; nor past its end on a node
    that is away for longer than the grace.
    """
    reservation = reservations.get(claim.reservation)
    if reservation is None or reservation.attempt != claim.attempt:
        return False
    there = (nodes.get(part.node) for part in claim.allocation)
    return not claim.overruns or all(node is not None and node.planned for node in there)


def hold_for(policy: Policy, subject: str, hours: float) -> Millis:
    """Return the hold that a request for so many hours gets.

    Raises `Refused` if no request of the owner may ask for it.
    """
    hold = resolve_hours(hours, policy.min_hold)
    check_hold(policy, subject, hold)
    return hold


def check_hold(policy: Policy, subject: str, hold: Millis) -> None:
    """Raise `Refused` if one request of the owner may not ask for so long a hold."""
    longest = policy.limits(subject).hold_per_request
    if hold > longest:
        raise Refused(
            Code.QUOTA_EXCEEDED,
            f"{duration(hold)} is longer than the {duration(longest)} that one request may ask for",
            f"use --hours {longest / HOUR:g} or less; a running reservation can be extended",
        )


def check_submit(policy: Policy, subject: str, request: Request, live: list[Reservation]) -> None:
    """Raise `Refused` if one more request like this is over the owner's limits. `live`: his reservations."""
    check_hold(policy, subject, request.hold)
    limits = policy.limits(subject)
    total = request.shape.total_gpus
    if total > limits.running_gpus:
        raise Refused(
            Code.QUOTA_EXCEEDED,
            f"{gpus(total)} are more than the {limits.running_gpus} that you may hold at once",
            f"ask for at most {gpus(limits.running_gpus)}",
        )
    queued = sum(r.state is State.QUEUED for r in live)
    if queued >= limits.queued_requests:
        raise Refused(
            Code.QUOTA_EXCEEDED,
            f"you have {queued} requests in the queue, and may have {limits.queued_requests}",
            "cancel one of them, or wait until one has started",
        )
    longest = _by_gpu_hours(limits, total, live)
    if longest is not None and request.hold > longest:
        used, more = gpu_hours(live), total * request.hold / HOUR
        raise Refused(
            Code.QUOTA_EXCEEDED,
            f"{round(more, 2):g} GPU-hours more would make {round(used + more, 2):g} with the "
            f"{round(used, 2):g} of your other reservations; {limits.gpu_hours} are allowed",
            f"ask for {gpus(total)} for at most {duration(longest)}, or release something"
            if longest >= policy.min_hold
            else "release something, or wait until one has ended",
        )


def longest_hold(policy: Policy, subject: str, total: int, live: list[Reservation]) -> Millis:
    """Return the longest hold that the owner's limits let a request for `total` GPUs ask for; 0: none."""
    limits = policy.limits(subject)
    if total > limits.running_gpus:
        return 0
    longest = _by_gpu_hours(limits, total, live)
    return limits.hold_per_request if longest is None else min(limits.hold_per_request, longest)


def _by_gpu_hours(limits: Allowances, total: int, live: list[Reservation]) -> Millis | None:
    """The longest hold of `total` GPUs that what is left of the GPU-hours allows; `None`: any."""
    if limits.gpu_hours is None:
        return None
    used = sum(r.request.shape.total_gpus * r.request.hold for r in live)
    return max(0, limits.gpu_hours * HOUR - used) // total


def longest_extension(
    policy: Policy, reservation: Reservation, live: list[Reservation]
) -> tuple[Millis, str]:
    """By how much the owner's limits let the hold grow (0 or more), and the limit that says so, in words."""
    limits = policy.limits(reservation.owner.subject)
    longest = limits.hold_with_extensions - reservation.request.hold
    why = (
        f"a reservation may last {duration(limits.hold_with_extensions)} in all, and this one has "
        f"{duration(reservation.request.hold)}"
    )
    if limits.gpu_hours is not None:
        used = gpu_hours(live)
        left = int((limits.gpu_hours - used) * HOUR / reservation.request.shape.total_gpus)
        if left < longest:
            longest = left
            why = f"{limits.gpu_hours} GPU-hours are allowed, and your reservations have {round(used, 2):g}"
    return max(0, longest), why
