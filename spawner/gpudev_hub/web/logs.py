"""Structured logs: one JSON object per line, with ids of requests and reservations, and without tokens.

Records have their fields as ``extra={"fields": {...}}``, or only a reservation's id as
``extra={"reservation": ...}``. The access log has paths without query strings, because those of a login have
one-time codes.
"""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime

from tornado.web import RequestHandler

ACCESS = logging.getLogger("gpudev.access")
LONGEST = 200
"""Most characters of a path, which clients choose."""
LONGEST_MESSAGE = 4000
"""Most characters of a message."""
SESSION = re.compile(r"(\bxsrf cookie for )b?'[^']*'")
"""A browser's session in JupyterHub's log line about the XSRF cookie."""


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return ``time``, ``level``, ``logger``, ``message``, the record's fields, and a traceback."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": cut(SESSION.sub(r"\1[secret]", record.getMessage()), LONGEST_MESSAGE),
        }
        if hasattr(record, "reservation"):
            line["reservation"] = record.reservation
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def cut(text: str, longest: int) -> str:
    """Return the text; if it is too long, its beginning and its length."""
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text)} characters)"


def log_request(handler: RequestHandler, unlogged: int = 0) -> None:
    """Log caller, request, status and duration.

    ``unlogged``: number of unauthenticated requests since the last logged one that were not logged.
    """
    request = handler.request
    method, path = cut(request.method or "", 16), cut(request.path, LONGEST)
    status = handler.get_status()
    fields: dict[str, object] = {
        "method": method,
        "path": path,
        "status": status,
        "ms": round(request.request_time() * 1000, 1),
        "peer": request.remote_ip,
    }
    for name in ("request_id", "reservation", "caller", "error_code"):
        value = getattr(handler, name, None)
        if value:
            fields[name] = value
    if unlogged:
        fields["unlogged"] = unlogged
    level = logging.INFO if status < 400 else logging.WARNING if status < 500 else logging.ERROR
    ACCESS.log(level, "%s %s %s", method, path, status, extra={"fields": fields})
