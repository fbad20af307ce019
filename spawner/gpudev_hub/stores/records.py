"""Records as JSON: one codec for every store."""

from __future__ import annotations

from typing import Final

import msgspec

from gpudev_hub.core.commit import Record
from gpudev_hub.core.model import Claim, MintedId, Node, Reservation

_NAMES: Final[dict[type[Record], str]] = {
    Reservation: "reservation",
    Claim: "claim",
    MintedId: "minted",
    Node: "node",
}
_ENCODER: Final = msgspec.json.Encoder()
_RESERVATION: Final = msgspec.json.Decoder(Reservation)
_CLAIM: Final = msgspec.json.Decoder(Claim)
_MINTED: Final = msgspec.json.Decoder(MintedId)
_NODE: Final = msgspec.json.Decoder(Node)


def kind_of(record: Record) -> str:
    """``reservation``, ``claim``, ``minted`` or ``node``."""
    return _NAMES[type(record)]


def reservation_of(record: Record) -> str | None:
    """The reservation in whose history a change of this record belongs, if any."""
    if isinstance(record, Claim):
        return record.reservation
    return None if isinstance(record, Node) else record.id


def encode(record: Record) -> bytes:
    """The record as JSON."""
    return _ENCODER.encode(record)


def decode_reservation(data: bytes) -> Reservation:
    """The reservation that ``encode`` was given."""
    return _RESERVATION.decode(data)


def decode_claim(data: bytes) -> Claim:
    """The claim that ``encode`` was given."""
    return _CLAIM.decode(data)


def decode_minted(data: bytes) -> MintedId:
    """The minted id that ``encode`` was given."""
    return _MINTED.decode(data)


def decode_node(data: bytes) -> Node:
    """The node that ``encode`` was given."""
    return _NODE.decode(data)


def decode(kind: str, data: bytes) -> Record:
    """The record of that kind that ``encode`` was given."""
    match kind:
        case "reservation":
            return decode_reservation(data)
        case "claim":
            return decode_claim(data)
        case "minted":
            return decode_minted(data)
        case "node":
            return decode_node(data)
        case _:
            raise ValueError(f"{kind!r} is no kind of record")
