"""What all parts of the API share: its path, requests, texts and errors."""

from __future__ import annotations

from typing import Annotated

import msgspec

API = "api/v1"
"""Path of the API, below the path of the service (``/services/gpudev/``)."""
RequestId = Annotated[str, msgspec.Meta(min_length=8, max_length=64, pattern=r"^[A-Za-z0-9_-]+$(?!\n)")]
"""Chosen by the client, different for every new request."""
Reason = Annotated[str, msgspec.Meta(max_length=300)]
"""Why an operator acts, in a few words."""


class Request(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Base class of all request bodies."""


class Error(msgspec.Struct, kw_only=True):
    """Inside ``{"error": …}``."""

    code: str
    message: str
    hint: str = ""
    longest_hours: float | msgspec.UnsetType = msgspec.UNSET
    """Only in a refused extension: the longest one available, 0 for none."""


class ErrorBody(msgspec.Struct, kw_only=True):
    """Body of every answer that is not 2xx."""

    error: Error
