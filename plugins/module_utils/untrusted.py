# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading what others wrote (Redis, files a person may have edited) without trusting a byte of it; and plain times."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any, NoReturn, Optional

from .errors import DriftguardError
from .names import FLEET_PATTERN

MAX_DOCUMENT = 65536
MAX_SHOWN = 200
SECONDS_OF_A_DAY = 86400
MAX_NUMBER = 10 ** 15  # exact in JSON readers that know doubles only (Lua in Redis, JavaScript)


def clean(text: str, limit: int = MAX_SHOWN) -> str:
    """The text as it may be shown to a person: one line, no control characters, at most ``limit`` characters."""
    short = text[:limit]
    if not short.isprintable():
        short = "".join(sign if sign.isprintable() else "\ufffd" for sign in short)
    return short if len(text) <= limit else f"{short}…"


def decode(value: bytes) -> str:
    """Bytes as text; what isn't UTF-8 is replaced."""
    return value.decode("utf-8", "replace")


def json_object(text: str) -> Optional[dict[str, Any]]:
    """A JSON object of at most 64 KiB with no key twice; None for anything else, however malformed."""
    if len(text) > MAX_DOCUMENT:
        return None
    try:
        value = json.loads(text, object_pairs_hook=_unambiguous, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key stands twice")
    return values


def _no_number(name: str) -> NoReturn:
    # NaN and Infinity are Python's own addition; a comparison with NaN is false whatever the other side is.
    raise ValueError(f"{name} is no JSON")


def whole_number(value: Any, least: int = 0) -> Optional[int]:
    """The value when it is an integer from ``least`` to 10^15 (and no bool), else None."""
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= MAX_NUMBER:
        return value
    return None


def digits(text: str) -> Optional[int]:
    """A number written in at most 15 ASCII digits, else None."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else None


def check_fleet(fleet: str) -> str:
    """The fleet's name, once it is known to be safe in a key and in a path.

    :raises DriftguardError: it isn't a fleet name.
    """
    if FLEET_PATTERN.match(fleet):
        return fleet
    raise DriftguardError(
        "option fleet", "2 to 32 lower-case letters, digits and dashes, a letter first, no dash last",
        repr(clean(fleet)), "give the fleet's name as the inventory has it")


def check_seconds(option: str, seconds: float, least: float = 0.0) -> float:
    """A number of seconds that can be waited for: at most a day.

    :raises DriftguardError: it isn't one.
    """
    if least <= seconds <= SECONDS_OF_A_DAY:
        return seconds
    raise DriftguardError(
        f"option {option}", f"seconds from {least:g} to {SECONDS_OF_A_DAY}", f"{seconds:g}", "give a number in between")


def iso_time(seconds: float) -> str:
    """Seconds since 1970 as ISO-8601 UTC."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
