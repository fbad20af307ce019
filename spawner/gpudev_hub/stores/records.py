"""Records as JSON: one codec for every store."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gpudev_hub.core.causes import Cause
from gpudev_hub.core.commit import Change
from gpudev_hub.core.live_state import KINDS, Record, key_of
from gpudev_hub.core.model import Claim, MintedId, Reservation
from gpudev_hub.core.sentences import Text

_ENCODER: Final = msgspec.json.Encoder()
_DECODERS: Final[dict[str, msgspec.json.Decoder[Any]]] = {
    kind.name: msgspec.json.Decoder(type_) for type_, kind in KINDS.items()
}
_CAUSE: Final = msgspec.json.Decoder(tuple[Cause, Text])


def encode_cause(change: Change) -> str:
    """Why a record changed: the cause, in JSON with its details if there are any."""
    return _ENCODER.encode((change.cause, change.detail)).decode() if change.detail else change.cause.value


def decode_change(kind: str, data: bytes, cause: str, actor: str, gone: bool) -> Change:
    """The change with this encoded record and cause; earlier versions wrote ``start_failed: no answer``."""
    if cause.startswith("["):
        word, detail = _CAUSE.decode(cause)
    else:
        old, _, detail = cause.partition(": ")
        word = Cause(old)
    return Change(decode(kind, data), word, actor, gone, detail)


def kind_of(record: Record) -> str:
    """Return the name of the record's kind: ``reservation``, ``claim`` …"""
    return KINDS[type(record)].name


def name_of(record: Record) -> str:
    """Return the record's key as text, unique within its kind; attempts of a claim sort as numbers."""
    if isinstance(record, Claim):
        return f"{record.reservation}#{record.attempt:06}"
    key = key_of(record)
    return key if isinstance(key, str) else "#".join("" if part is None else str(part) for part in key)


def reservation_of(record: Record) -> str | None:
    """The reservation in whose history a change of this record belongs, if any."""
    match record:
        case Claim():
            return record.reservation
        case Reservation() | MintedId():
            return record.id
        case _:
            return None


def encode(record: Record) -> bytes:
    """The record as JSON."""
    return _ENCODER.encode(record)


def decode_reservation(data: bytes) -> Reservation:
    """The reservation that ``encode`` was given."""
    found = decode("reservation", data)
    assert isinstance(found, Reservation)
    return found


def decode(kind: str, data: bytes) -> Record:
    """The record of that kind that ``encode`` was given."""
    decoder = _DECODERS.get(kind)
    if decoder is None:
        raise ValueError(f"{kind!r} is not a kind of record")
    found: Record = decoder.decode(data)
    return found
