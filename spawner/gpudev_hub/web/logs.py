"""Structured logs: one JSON object per line, with request and reservation ids, never with a token.

Records carry their fields as ``extra={"fields": {...}}``, or a reservation's id alone as
``extra={"reservation": ...}``. The access log knows paths, never query strings:
those of the log-in dance hold one-time codes.
"""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime

from tornado.web import RequestHandler

ACCESS = logging.getLogger("gpudev.access")
LONGEST = 200
"""Characters of a path; clients choose them."""
LONGEST_MESSAGE = 4000
"""Characters of a message."""
SESSION = re.compile(r"(\bxsrf cookie for )b?'[^']*'")
"""The session of a browser, in JupyterHub's line about the cookie that protects forms."""


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """``time``, ``level``, ``logger``, ``message``, the record's fields, and a traceback."""
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
    """``text``, or its beginning and how much is missing."""
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text)} characters)"


def log_request(handler: RequestHandler, unlogged: int = 0) -> None:
    """Log who asked for what, how it ended and how long it took.

    ``unlogged``: requests of strangers that were not logged since the last line about one.
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
