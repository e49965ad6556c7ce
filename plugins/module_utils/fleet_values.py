# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values of a fleet spec as people write them: sizes, durations, numbers, names."""

from __future__ import annotations

import re
from typing import Any, Callable, TypeVar

_SIZE = re.compile(r"^(\d{1,15})(?:\.(\d{1,3}))?\s?([bkmg]?)i?b?\Z", re.IGNORECASE)
_UNITS = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_DURATION = re.compile(r"^(?:(\d{1,4})h)?(?:(\d{1,5})m)?(?:(\d{1,7})s)?\Z")
_ENVIRONMENT_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_MEBI = 1024**2

Value = TypeVar("Value")


class Unfit(ValueError):
    """A value that doesn't fit; its text says what was expected."""


def size(value: Any) -> int:
    """Bytes from ``512M``, ``2G``, ``1.5g`` or a number of bytes.

    :raises Unfit: not a size, or less than the 6 MiB that the engine demands.
    """
    match = _SIZE.match(str(value).strip()) if isinstance(value, (str, int)) and not isinstance(value, bool) else None
    if match is None:
        raise Unfit("a size such as 512M or 2G")
    number = float(f"{match[1]}.{match[2] or 0}")
    result = int(number * _UNITS[match[3].lower()])
    if not 6 * _MEBI <= result <= 2**50:
        raise Unfit("a size of at least 6M (the engine's minimum)")
    return result


def size_text(value: int) -> str:
    """Bytes in the shortest exact form that compose reads."""
    for unit, factor in (("g", 1024**3), ("m", _MEBI), ("k", 1024)):
        if value % factor == 0:
            return f"{value // factor}{unit}"
    return f"{value}b"


def duration(value: Any) -> int:
    """Whole seconds from ``90``, ``90s``, ``1m30s`` or ``1h``.

    :raises Unfit: not a duration.
    """
    text = str(value).strip() if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if text.isascii() and text.isdigit() and len(text) < 8:
        return int(text)
    match = _DURATION.match(text) if text else None
    if match is None:
        raise Unfit("a duration such as 30s or 1m30s")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def positive_duration(value: Any) -> int:
    """Like :func:`duration`, at least one second."""
    seconds = duration(value)
    if seconds < 1:
        raise Unfit("a duration of at least 1s")
    return seconds


def whole(low: int, high: int) -> Callable[[Any], int]:
    """Reader of a whole number between two bounds, both included."""

    def read(value: Any) -> int:
        text = str(value).strip()
        if isinstance(value, (bool, float)) or not text.isascii() or not text.isdigit() or len(text) > 9 or not low <= int(text) <= high:
            raise Unfit(f"a whole number from {low} to {high}")
        return int(text)

    return read


def cpus(value: Any) -> float:
    """A number of CPUs such as 0.5 or 2.

    :raises Unfit: not a number, or outside 0.01 to 1024.
    """
    try:
        number = float(value) if not isinstance(value, bool) else 0.0
    except (TypeError, ValueError) as error:
        raise Unfit("a number of CPUs such as 0.5") from error
    if not 0.01 <= number <= 1024:
        raise Unfit("a number of CPUs from 0.01 to 1024")
    return round(number, 3)


def boolean(value: Any) -> bool:
    """True or False, also as Ansible's extra variables write them.

    :raises Unfit: anything else.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "yes", "false", "no"):
        return value.lower() in ("true", "yes")
    raise Unfit("true or false")


def text(value: Any) -> str:
    """Text that a process can be given: a scalar without NUL or lone surrogates.

    :raises Unfit: a list, a dictionary, nothing, or undecodable text.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, (str, int, float)):
        raise Unfit("text or a number")
    result = str(value)
    if "\0" in result:
        raise Unfit("text without NUL bytes")
    try:
        result.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Unfit("text that can be written as UTF-8") from error
    return result


def texts(value: Any) -> tuple[str, ...]:
    """A list of texts.

    :raises Unfit: not a list, or an element that is no text.
    """
    if not isinstance(value, (list, tuple)):
        raise Unfit("a list of texts")
    return tuple(text(element) for element in value)


def command(value: Any) -> tuple[str, ...]:
    """A command as a list of arguments, never a shell string.

    :raises Unfit: a plain string, an empty list, or an empty program.
    """
    if isinstance(value, str):
        raise Unfit('a list of arguments such as ["python", "-m", "worker"] (no shell reads it)')
    result = texts(value)
    if not result or not result[0].strip():
        raise Unfit("a list of arguments with a program first")
    return result


def environment(value: Any) -> dict[str, str]:
    """Environment variables as a dictionary.

    :raises Unfit: not a dictionary, a name that is no variable name, or a value that is no text.
    """
    if not isinstance(value, dict):
        raise Unfit("a dictionary of variables")
    for name in value:
        if not isinstance(name, str) or not _ENVIRONMENT_NAME.match(name):
            raise Unfit(f"variable names of letters, digits and underscores (not {name!r})")
    return {str(name): text(content) for name, content in value.items()}


def name_like(pattern: re.Pattern[str]) -> Callable[[Any], str]:
    """Reader of a name that matches a pattern."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or not pattern.match(value):
            raise Unfit(f"a name that matches {pattern.pattern}")
        return str(value)

    return read
