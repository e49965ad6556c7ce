# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values of a fleet spec as people write them: sizes, durations, numbers, names."""

from __future__ import annotations

import re
from typing import Any, Callable, TypeVar

_SIZE = re.compile(r"^(\d{1,16})(?:\.(\d{1,3}))? ?([bkmg]?)i?b?\Z", re.IGNORECASE | re.ASCII)
_UNITS = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_DURATION = re.compile(r"^(?:(\d{1,4})h)?(?:(\d{1,5})m)?(?:(\d{1,7})s)?\Z", re.ASCII)
_NUMBER = re.compile(r"^\d{1,9}(?:\.\d{1,9})?\Z", re.ASCII)
_ENVIRONMENT_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_MEBI = 1024**2
MAX_DURATION = 86400
MAX_TEXT = 128 * 1024 - 1  # Linux: MAX_ARG_STRLEN, the longest argument or variable that a process can be given

Value = TypeVar("Value")


class Unfit(ValueError):
    """A value that doesn't fit; its text says what was expected."""


def size(value: Any) -> int:
    """Bytes from ``512M``, ``2G``, ``1.5g`` or a number of bytes.

    :raises Unfit: not a size, or outside 6 MiB (the engine's minimum) to 1 PiB.
    """
    match = _SIZE.match(_plain(value))
    if match is None:
        raise Unfit("a size such as 512M or 2G")
    thousandths = int(match[1] + (match[2] or "").ljust(3, "0"))
    result = thousandths * _UNITS[match[3].lower()] // 1000
    if not 6 * _MEBI <= result <= 2**50:
        raise Unfit("a size from 6M (the engine's minimum) to 1048576G")
    return result


def size_text(value: int) -> str:
    """Bytes in the shortest exact form that compose reads."""
    for unit, factor in (("g", 1024**3), ("m", _MEBI), ("k", 1024)):
        if value % factor == 0:
            return f"{value // factor}{unit}"
    return f"{value}b"


def duration(value: Any) -> int:
    """Whole seconds from ``90``, ``90s``, ``1m30s`` or ``1h``.

    :raises Unfit: not a duration, or more than a day.
    """
    written = _plain(value)
    match = _DURATION.match(f"{written}s" if written.isdigit() else written) if written else None
    if match is None:
        raise Unfit("a duration such as 30s or 1m30s")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    result = hours * 3600 + minutes * 60 + seconds
    if result > MAX_DURATION:
        raise Unfit("a duration of at most 24h")
    return result


def positive_duration(value: Any) -> int:
    """Like :func:`duration`, at least one second."""
    seconds = duration(value)
    if seconds < 1:
        raise Unfit("a duration of at least 1s")
    return seconds


def whole(low: int, high: int) -> Callable[[Any], int]:
    """Reader of a whole number between two bounds, both included."""

    def read(value: Any) -> int:
        written = _plain(value)
        if not _NUMBER.match(written) or "." in written or not low <= int(written) <= high:
            raise Unfit(f"a whole number from {low} to {high}")
        return int(written)

    return read


def cpus(value: Any) -> float:
    """A number of CPUs such as 0.5 or 2.

    :raises Unfit: not a number, or outside 0.01 to 1024.
    """
    written = repr(round(value, 3)) if isinstance(value, float) else _plain(value)
    if not _NUMBER.match(written) or not 0.01 <= float(written) <= 1024:
        raise Unfit("a number of CPUs from 0.01 to 1024, such as 0.5")
    return round(float(written), 3)


def boolean(value: Any) -> bool:
    """True or False, also as Ansible's extra variables write them.

    :raises Unfit: anything else.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "yes", "false", "no"):
        return value.lower() in ("true", "yes")
    raise Unfit("true or false")


def choice(*known: str) -> Callable[[Any], str]:
    """Reader of one of some words."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in known:
            raise Unfit(" or ".join(known))
        return str(value)

    return read


def text(value: Any) -> str:
    """Text that a process can be given: a scalar without NUL or lone surrogates, of less than 128 KiB.

    :raises Unfit: a list, a dictionary, nothing, undecodable or too long text.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, (str, int, float)):
        raise Unfit("text or a number")
    try:
        result = str(value)
        length = len(result.encode("utf-8"))
    except ValueError as error:  # lone surrogates; from Python 3.11 on also numbers of thousands of digits
        raise Unfit("text that can be written as UTF-8") from error
    if "\0" in result:
        raise Unfit("text without NUL bytes")
    if length > MAX_TEXT:
        raise Unfit(f"text of at most {MAX_TEXT} bytes (Linux gives a process no longer ones)")
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
            raise Unfit(f"variable names of letters, digits and underscores (not {shown(name)})")
    return {str(name): text(content) for name, content in value.items()}


def shown(value: Any) -> str:
    """A value as a message may show it: short, and of a list or dictionary only that it is one, for what is in it."""
    if isinstance(value, (dict, list, tuple)):
        return f"a {'dictionary' if isinstance(value, dict) else 'list'} of {len(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**60:
        return "a number of more than 60 digits"
    written = repr(str(value)) if isinstance(value, str) else repr(value)
    return written if len(written) <= 120 else f"{written[:120]}…"


def _plain(value: Any) -> str:
    """A text or whole number without surrounding spaces; empty for anything else, and for absurdly large numbers."""
    if isinstance(value, bool) or not isinstance(value, (str, int)) or (isinstance(value, int) and abs(value) > 10**18):
        return ""
    return str(value).strip()


def name_like(pattern: re.Pattern[str]) -> Callable[[Any], str]:
    """Reader of a name that matches a pattern."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or not pattern.match(value):
            raise Unfit(f"a name that matches {pattern.pattern}")
        return str(value)

    return read
