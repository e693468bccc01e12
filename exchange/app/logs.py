"""The log lines of a serving process on stderr: one per fact, as text or as JSON.

Facts are passed as ``extra={"facts": {...}}``. Secrets are never logged; in addition the value of a
fact with a secret's name is hidden.
"""

import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

SECRET: Final = ("secret", "signature", "password", "token")
HIDDEN: Final = "hidden"


def facts_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the facts of a line, with secret values hidden."""
    facts: dict[str, Any] = getattr(record, "facts", {})
    return {
        name: HIDDEN if any(word in name.lower() for word in SECRET) else value
        for name, value in facts.items()
    }


class TextLines(logging.Formatter):
    """``2026-11-20T12:00:00.000000Z WARNING exchange.app.market: message name=value``."""

    def format(self, record: logging.LogRecord) -> str:
        facts = "".join(f" {name}={value}" for name, value in facts_of(record).items())
        text = f"{_time(record)} {record.levelname} {record.name}: {record.getMessage()}{facts}"
        return text + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else "")


class JsonLines(logging.Formatter):
    """One JSON object a line: ``time``, ``level``, ``logger``, ``message`` and the facts."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **facts_of(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


def configure(form: str, level: str) -> None:
    """Log to stderr from now on: ``form`` is ``text`` or ``json``, ``level`` a level's name."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
