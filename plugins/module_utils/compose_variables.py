# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compose's variables in a text, and the files that give them values. Pure but for reading files.

Only for judging a compose file; what is adopted from one was interpolated by Compose itself.
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, Mapping

from .errors import DriftguardError
from .untrusted import clean

MAX_FILE = 256 * 1024
_MAX_NESTING = 20
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ASSIGNMENT = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_.-]*)\s*[=:]\s*(.*)$")


@dataclass(frozen=True)
class Expanded:
    """A text with its variables replaced.

    :param unset: variables that have neither a value nor a default; each is an empty text here, as for Compose.
    :param used: all variables in it, in order.
    """

    text: str
    unset: tuple[str, ...] = ()
    used: tuple[str, ...] = ()


def expand(text: str, values: Mapping[str, str], depth: int = 0) -> Expanded:
    """Replace ``$NAME``, ``${NAME}`` and ``${NAME:-default}`` with its relatives; ``$$`` is a dollar sign."""
    if depth > _MAX_NESTING:
        return Expanded(text)
    parts: list[str] = []
    unset: list[str] = []
    used: list[str] = []
    place = 0
    while place < len(text):
        sign = text.find("$", place)
        if sign < 0:
            sign = len(text)
        parts.append(text[place:sign])
        found, place = _variable(text, sign, values, depth)
        parts.append(found.text)
        unset += found.unset
        used += found.used
    return Expanded("".join(parts), tuple(dict.fromkeys(unset)), tuple(dict.fromkeys(used)))


def _variable(text: str, sign: int, values: Mapping[str, str], depth: int) -> tuple[Expanded, int]:
    """What stands at a dollar sign, and where the text goes on."""
    after = text[sign + 1:sign + 2]
    if after == "{":
        end = _closing(text, sign + 2)
        if end > 0:
            return _braced(text[sign + 2:end], values, depth), end + 1
    name = _NAME.match(text, sign + 1)
    if name:
        return _value(name[0], values), name.end()
    return Expanded(text[sign:sign + 1]), sign + (2 if after == "$" else 1)


def _closing(text: str, start: int) -> int:
    open_braces = 1
    for place in range(start, len(text)):
        if text[place] == "{" and text[place - 1] == "$":
            open_braces += 1
        elif text[place] == "}":
            open_braces -= 1
            if not open_braces:
                return place
    return -1


def _braced(inner: str, values: Mapping[str, str], depth: int) -> Expanded:
    name = _NAME.match(inner)
    if not name:
        return Expanded("${" + inner + "}")
    rest = inner[name.end():]
    operator = rest[:2] if rest[:1] == ":" else rest[:1]
    missing = name[0] not in values or (operator[:1] == ":" and not values[name[0]])
    if operator[-1:] == "-" and missing:
        default = expand(rest[len(operator):], values, depth + 1)
        return Expanded(default.text, default.unset, (name[0], *default.used))
    if operator[-1:] == "+":
        other = Expanded("") if missing else expand(rest[len(operator):], values, depth + 1)
        return Expanded(other.text, other.unset, (name[0], *other.used))
    return _value(name[0], values)


def _value(name: str, values: Mapping[str, str]) -> Expanded:
    return Expanded(values.get(name, ""), () if name in values else (name,), (name,))


def read_source(path: Path, what: str) -> str:
    """A file that Compose is going to read.

    :param what: what it is, for messages.
    :raises DriftguardError: it is missing, no regular file, larger than 256 KiB or not UTF-8.
    """
    subject = f"{what} {clean(str(path))}"
    remedy = "name another file, or mend this one"
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DriftguardError(subject, "a regular file", "a directory, a device or a pipe", remedy)
        if status.st_size > MAX_FILE:
            raise DriftguardError(subject, f"at most {MAX_FILE} bytes", f"{status.st_size} bytes", remedy)
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        found = getattr(error, "strerror", None) or "a path that no file can have"
        raise DriftguardError(subject, "a readable file", found, remedy) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DriftguardError(
            subject, "text in UTF-8", f"a byte at offset {error.start} that isn't", "save the file as UTF-8") from error


def assignments(text: str) -> Iterable[tuple[str, str, int]]:
    """Variables of an env file with value and line; a quoted value may span lines."""
    quote = ""
    for number, line in enumerate(text.splitlines(), 1):
        if quote:
            quote = "" if quote in line else quote
            continue
        match = _ASSIGNMENT.match(line)
        if match:
            value = match[2].strip()
            if value[:1] in ("'", '"'):
                quote = value[0] if value[0] not in value[1:] else ""
                value = value[1:].partition(value[0])[0]
            else:
                value = value.partition(" #")[0].strip()
            yield match[1], value, number
