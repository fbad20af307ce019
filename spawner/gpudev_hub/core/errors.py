"""Refusals: the answers to requests that cannot be granted.

``Refused`` is the only exception that reaches a user. Its ``code`` is stable: clients branch on it, and
``docs/reference-api.md`` lists all codes. Its ``message`` says what happened to which object with the
numbers, its ``hint`` what to do next.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Self


class Code(StrEnum):
    """Stable error codes of the API, each with its HTTP status."""

    status: int

    def __new__(cls, code: str, status: int) -> Self:
        """Make a member whose value is the code alone."""
        member = str.__new__(cls, code)
        member._value_, member.status = code, status
        return member

    INVALID_REQUEST = "invalid_request", 400
    INVALID_SHAPE = "invalid_shape", 400
    INVALID_HOURS = "invalid_hours", 400
    INVALID_NAME = "invalid_name", 400
    INVALID_IMAGE = "invalid_image", 400
    UNKNOWN_GPU_TYPE = "unknown_gpu_type", 400
    NAME_TAKEN = "name_taken", 409
    NOT_FOUND = "not_found", 404
    FORBIDDEN = "forbidden", 403
    ACCESS_REVOKED = "access_revoked", 403
    UNAUTHENTICATED = "unauthenticated", 401
    QUOTA_EXCEEDED = "quota_exceeded", 409
    EXTENSION_REFUSED = "extension_refused", 409
    WRONG_STATE = "wrong_state", 409
    REQUEST_ID_REUSED = "request_id_reused", 409
    TOO_LARGE = "too_large", 413
    RATE_LIMITED = "rate_limited", 429
    UNAVAILABLE = "unavailable", 503
    METHOD_NOT_ALLOWED = "method_not_allowed", 405
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type", 415
    INTERNAL_ERROR = "internal_error", 500


STATUS: Final = {code: code.status for code in Code}
"""The HTTP status of each code."""

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
