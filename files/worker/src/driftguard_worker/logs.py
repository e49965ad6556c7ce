# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""Logs: one JSON object a line on standard output, for this package and for the libraries under it."""

from __future__ import annotations

import logging
import sys
from typing import Any, Iterable, Mapping

import structlog
from structlog.typing import EventDict, Processor

__all__ = ["Logger", "configure", "get"]

Logger = structlog.stdlib.BoundLogger

_MASK = "***"
_SHORTEST_MASKED = 4


def configure(level: str, context: Mapping[str, str], secrets: Iterable[str] = ()) -> None:
    """Set up logging for the process; may be called again once more is known.

    :param level: ``debug``, ``info``, ``warning`` or ``error``.
    :param context: fields of every line, such as the worker's id and commit.
    :param secrets: values that are replaced wherever they appear, whoever logs them.
    """
    shared = _processors(dict(context), tuple(secrets), level)
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        # JSON escapes line ends and control characters, so no value can forge a line of its own.
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.JSONRenderer()],
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    # A reader that has gone away must not print tracebacks over the worker's own exit.
    logging.raiseExceptions = False
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


def get(name: str) -> Logger:
    """The logger of a part of the program."""
    return structlog.stdlib.get_logger(name)


def _processors(context: dict[str, str], secrets: tuple[str, ...], level: str) -> list[Processor]:
    def add_context(_logger: Any, _method: str, event: EventDict) -> EventDict:
        return {**context, **event}

    def mask(_logger: Any, _method: str, event: EventDict) -> EventDict:
        return {key: _masked(value, secrets) for key, value in event.items()}

    return [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_context,
        _failure_in_one_line if level != "debug" else structlog.processors.format_exc_info,
        mask,
    ]


def _failure_in_one_line(_logger: Any, _method: str, event: EventDict) -> EventDict:
    info = event.pop("exc_info", None)
    error = sys.exc_info()[1] if info is True else info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event["error"] = f"{type(error).__name__}: {error}"
        event["at"] = _place(error)
    return event


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_globals.get('__name__')}:{trace.tb_lineno}" if trace else "unknown"


def _masked(value: Any, secrets: tuple[str, ...]) -> Any:
    if not isinstance(value, str):
        return value
    for secret in secrets:
        # Masking "1" or "ab" would garble every line and thereby give it away.
        if len(secret) >= _SHORTEST_MASKED:
            value = value.replace(secret, _MASK)
    return value
