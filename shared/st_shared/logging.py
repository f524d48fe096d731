"""Structured logs: JSON in production, pleasant lines on a terminal."""

import contextlib
import json
import logging
import sys
import threading
from functools import lru_cache
from typing import Literal, TextIO

import structlog
from pydantic_core import to_json

LogFormat = Literal["auto", "json", "console"]

_CHATTY = ("httpx", "httpcore")
"""Loggers whose informational lines hold URLs, and some URLs are signed."""

_SECRET_WORDS = ("password", "token", "secret", "credential", "authorization", "cookie", "api_key")


_processors: list[structlog.types.Processor] = []
"""One list for all loggers: those that keep theirs from an earlier ``configure`` follow."""


def configure(
    *,
    level: str = "info",
    format: LogFormat = "auto",
    stream: TextIO | None = None,
) -> None:
    """Send structlog and the standard library's loggers to ``stream`` (standard error).

    ``auto`` means lines for people on a terminal and one JSON object a line elsewhere.
    """
    target = stream or sys.stderr
    console = format == "console" or (format == "auto" and target.isatty())
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        hide_secrets,
    ]
    # Our own lines go straight out: the way through the standard library costs four times as much,
    # which a controller feels at every request.
    _processors[:] = [*shared, *_rendering(console=console)]
    structlog.configure(
        processors=_processors,
        logger_factory=lambda name="": _Line(name, target),
        wrapper_class=structlog.make_filtering_bound_logger(number),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering(console=console),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(max(logging.WARNING, number))


class _Line:
    """Writes a rendered line to a stream, whole and at once.

    A line that cannot be written, because the disk is full or nobody reads any more, is lost: what
    it tells of must go on. So does the standard library.
    """

    def __init__(self, name: str, stream: TextIO) -> None:
        self.name, self._stream = name, stream

    def msg(self, line: str) -> None:
        """Write a line."""
        with contextlib.suppress(OSError, ValueError), _one_at_a_time:  # ValueError: it is closed
            self._stream.write(line + "\n")
            self._stream.flush()

    debug = info = warning = warn = error = exception = critical = fatal = msg


def _rendering(*, console: bool) -> list[structlog.types.Processor]:
    if console:
        # Plain: the pretty one prints local variables, and passwords are among them.
        return [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    return [structlog.processors.format_exc_info, _to_json]


def _to_json(_logger: object, _method: str, event: structlog.types.EventDict) -> str:
    try:
        return to_json(event, fallback=repr, inf_nan_mode="strings").decode()
    except ValueError:  # text that is no Unicode, bytes that are no text
        return json.dumps(event, default=repr)


_one_at_a_time = threading.Lock()


def hide_secrets(
    _logger: object, _method: str, event: structlog.types.EventDict
) -> structlog.types.EventDict:
    """Replace the value of every key that names a secret."""
    for key in event:
        if _is_secret(key):
            event[key] = "[hidden]"
    return event


@lru_cache(maxsize=4096)
def _is_secret(key: str) -> bool:
    return any(word in key.lower() for word in _SECRET_WORDS)
