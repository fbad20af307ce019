"""Refusals: the answers to requests that cannot be granted.

``Refused`` is the only exception that reaches a user. Its ``code`` is stable: clients branch on it, and
``docs/reference-api.md`` lists all codes. Its ``message`` says what happened to which object with the
numbers, its ``hint`` what to do next.
"""

from __future__ import annotations

from enum import StrEnum


class Code(StrEnum):
    """Stable error codes of the API; ``STATUS`` has the HTTP status of each."""

    INVALID_REQUEST = "invalid_request"
    INVALID_SHAPE = "invalid_shape"
    INVALID_HOURS = "invalid_hours"
    INVALID_NAME = "invalid_name"
    INVALID_IMAGE = "invalid_image"
    UNKNOWN_GPU_TYPE = "unknown_gpu_type"
    NAME_TAKEN = "name_taken"
    NOT_FOUND = "not_found"
    FORBIDDEN = "forbidden"
    ACCESS_REVOKED = "access_revoked"
    UNAUTHENTICATED = "unauthenticated"
    QUOTA_EXCEEDED = "quota_exceeded"
    EXTENSION_REFUSED = "extension_refused"
    WRONG_STATE = "wrong_state"
    REQUEST_ID_REUSED = "request_id_reused"
    TOO_LARGE = "too_large"
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    INTERNAL_ERROR = "internal_error"


STATUS: dict[Code, int] = {
    Code.INVALID_REQUEST: 400,
    Code.INVALID_SHAPE: 400,
    Code.INVALID_HOURS: 400,
    Code.INVALID_NAME: 400,
    Code.INVALID_IMAGE: 400,
    Code.UNKNOWN_GPU_TYPE: 400,
    Code.NAME_TAKEN: 409,
    Code.NOT_FOUND: 404,
    Code.FORBIDDEN: 403,
    Code.ACCESS_REVOKED: 403,
    Code.UNAUTHENTICATED: 401,
    Code.QUOTA_EXCEEDED: 409,
    Code.EXTENSION_REFUSED: 409,
    Code.WRONG_STATE: 409,
    Code.REQUEST_ID_REUSED: 409,
    Code.TOO_LARGE: 413,
    Code.RATE_LIMITED: 429,
    Code.UNAVAILABLE: 503,
    Code.METHOD_NOT_ALLOWED: 405,
    Code.UNSUPPORTED_MEDIA_TYPE: 415,
    Code.INTERNAL_ERROR: 500,
}


# Hints that several refusals give.
SEE_YOURS = "See your reservations with `gpu-dev list`."
NEW_REQUEST_ID = "Use a new request_id for each new request."
TRY_AGAIN = "Try again in a few seconds."
ASK_AN_OPERATOR = "Ask an operator of this hub."


class Refused(Exception):
    """A request that is not granted; nothing was changed."""

    def __init__(self, code: Code, message: str, hint: str = "", longest_hours: float | None = None) -> None:
        """``longest_hours``: the longest extension that would be granted instead."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.longest_hours = longest_hours


class IllegalMove(Exception):
    """A change of state that the lifecycle table does not have: a bug of the hub, never a user's mistake."""
