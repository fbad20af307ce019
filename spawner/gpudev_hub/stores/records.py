"""Records as JSON: one codec for every store."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gpudev_hub.core.causes import Cause
from gpudev_hub.core.commit import Change
from gpudev_hub.core.live_state import KINDS, Record
from gpudev_hub.core.model import Claim, MintedId, Reservation
from gpudev_hub.core.sentences import Text

_ENCODER: Final = msgspec.json.Encoder()
_DECODERS: Final[dict[str, msgspec.json.Decoder[Any]]] = {
    kind.name: msgspec.json.Decoder(type_) for type_, kind in KINDS.items()
}
_CAUSE: Final = msgspec.json.Decoder(tuple[Cause, Text])


def encode_cause(change: Change) -> str:
    """Return the cause of a change: its word, or JSON with the details if there are any."""
    return _ENCODER.encode((change.cause, change.detail)).decode() if change.detail else change.cause.value


def decode_change(kind: str, data: bytes, cause: str, actor: str, gone: bool) -> Change:
    """Return the change with this encoded record and cause; causes were once ``start_failed: no answer``.

    Raises ``msgspec.ValidationError`` for what only a later version knows.
    """
    if cause.startswith("["):
        word, detail = _CAUSE.decode(cause)
    else:
        old, _, detail = cause.partition(": ")
        word = msgspec.convert(old, Cause)
    return Change(decode(kind, data), word, actor, gone, detail)


def kind_of(record: Record) -> str:
    """Return the name of the record's kind: ``reservation``, ``claim`` …"""
    return KINDS[type(record)].name


def reservation_of(record: Record) -> str | None:
    """Return the reservation whose history has the changes of this record, if any."""
    match record:
        case Claim():
            return record.reservation
        case Reservation() | MintedId():
            return record.id
        case _:
            return None


def encode(record: Record) -> bytes:
    """Return the record as JSON."""
    return _ENCODER.encode(record)


def decode_reservation(data: bytes) -> Reservation:
    """Return the reservation that ``encode`` was given."""
    found = decode("reservation", data)
    assert isinstance(found, Reservation)
    return found


def decode(kind: str, data: bytes) -> Record:
    """Return the record of that kind that ``encode`` was given; the simulated pool was once ``pretended``."""
    decoder = _DECODERS.get(kind)
    if decoder is None:
        raise msgspec.ValidationError(f"{kind!r} is not a kind of record")
    found: Record = decoder.decode(data.replace(b'"pool":"pretended"', b'"pool":"simulated"'))
    return found
