"""Usage sums as compressed JSON: one codec for every store."""

from __future__ import annotations

import zlib
from typing import Final

import msgspec

from gpudev_hub.core.usage import Day, OpenClaim, OpenRequest, Sums, UsageDay, UsageHead


class _Row(msgspec.Struct, array_like=True):
    """The sums of one person, pool and size on one day."""

    subject: str
    pool: str
    gpus: int
    requests: int
    reserved: int
    held: int
    waits: int
    waited: int
    longest_wait: int
    starts: int
    early_releases: int
    given_back: int
    outcomes: dict[str, int]


class _Claim(msgspec.Struct, array_like=True):
    """A claim with its key: JSON has no tuples as keys."""

    reservation: str
    attempt: int
    claim: OpenClaim


class _Saved(msgspec.Struct):
    """The head."""

    n: int
    at: int
    first: int
    last: int
    requests: dict[str, OpenRequest]
    claims: list[_Claim]
    logins: dict[str, str]


_ENCODER: Final = msgspec.json.Encoder()
_ROWS: Final = msgspec.json.Decoder(list[_Row])
_HEAD: Final = msgspec.json.Decoder(_Saved)


def encode_day(saved: UsageDay) -> bytes:
    """Return the rows of a day as compressed JSON."""
    rows = [
        _Row(
            *key,
            sums.requests,
            sums.reserved,
            sums.held,
            sums.waits,
            sums.waited,
            sums.longest_wait,
            sums.starts,
            sums.early_releases,
            sums.given_back,
            sums.outcomes,
        )
        for key, sums in saved.rows.items()
    ]
    return zlib.compress(_ENCODER.encode(rows))


def decode_day(day: Day, n: int, data: bytes) -> UsageDay:
    """Return the day that ``encode_day`` was given."""
    rows = {}
    for row in _ROWS.decode(zlib.decompress(data)):
        rows[row.subject, row.pool, row.gpus] = Sums(
            row.requests,
            row.reserved,
            row.held,
            row.waits,
            row.waited,
            row.longest_wait,
            row.starts,
            row.early_releases,
            row.given_back,
            row.outcomes,
        )
    return UsageDay(day, n, rows)


def encode_head(head: UsageHead) -> bytes:
    """Return the head as compressed JSON."""
    claims = [_Claim(*key, claim) for key, claim in head.claims.items()]
    saved = _Saved(head.n, head.at, head.first, head.last, head.requests, claims, head.logins)
    return zlib.compress(_ENCODER.encode(saved))


def decode_head(data: bytes) -> UsageHead:
    """Return the head that ``encode_head`` was given."""
    saved = _HEAD.decode(zlib.decompress(data))
    claims = {(found.reservation, found.attempt): found.claim for found in saved.claims}
    return UsageHead(saved.n, saved.at, saved.first, saved.last, saved.requests, claims, saved.logins)
