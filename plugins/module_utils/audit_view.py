# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One service of a compose file with its variables as they are written, in one form whatever form was written."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any, Mapping, Optional

from .compose_variables import Expanded, expand


@dataclass(frozen=True)
class Volume:
    """A mount; an empty source is an anonymous volume, or a tmpfs."""

    kind: str
    source: str
    target: str


@dataclass(frozen=True)
class ServiceView:
    """A service.

    :param raw: as in Compose's document.
    :param values: variables of the env files.
    :param from_files: variables that the service's own env files set: name → value, file and line.
    """

    name: str
    raw: Mapping[str, Any]
    worker: bool
    values: Mapping[str, str]
    from_files: Mapping[str, tuple[str, str, int]]

    def expanded(self, value: Any) -> Expanded:
        """A value of the document as text, its variables replaced."""
        return expand("" if value is None else str(value), self.values)

    def text(self, *path: str) -> str:
        """The value at a path as text, empty where there is none."""
        return self.expanded(self.value(*path)).text

    def value(self, *path: str) -> Any:
        """The value at a path, None where there is none."""
        found: Any = self.raw
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        return found

    def is_true(self, key: str) -> bool:
        """Whether a switch is on."""
        return self.text(key).lower() in ("true", "yes", "on", "1")

    def listed(self, *path: str) -> list[str]:
        """A list, or a single text, as texts."""
        found = self.value(*path)
        elements = found if isinstance(found, list) else [] if found in (None, "") else [found]
        return [self.expanded(element).text for element in elements if not isinstance(element, (dict, list))]

    def pairs(self, *path: str) -> dict[str, Optional[str]]:
        """Names and values as written, of a dictionary or of a list of ``NAME=value``; None takes the shell's value."""
        found = self.value(*path)
        if isinstance(found, dict):
            return {str(name): None if value is None else _scalar(value) for name, value in found.items()}
        named = [str(element).partition("=") for element in found or []]
        return {name: value if sign else None for name, sign, value in named}

    def words(self, key: str) -> list[str]:
        """A command as words; Compose takes a text apart as a shell would."""
        found = self.value(key)
        if not isinstance(found, str):
            return self.listed(key)
        text = self.expanded(found).text
        try:
            return shlex.split(text)
        except ValueError:
            return text.split()

    def volumes(self) -> list[Volume]:
        """All mounts of ``volumes``; those that aren't dictionaries had a variable where Compose looks for a colon."""
        found = []
        for one in self.value("volumes") or []:
            if isinstance(one, dict):
                kind, source, target = (self.expanded(one.get(key)).text for key in ("type", "source", "target"))
            else:
                parts = self.expanded(one).text.split(":")
                source, target = (parts[0], parts[1]) if len(parts) > 1 else ("", parts[0])
                kind = "bind" if source.startswith(("/", ".", "~")) else "volume"
            found.append(Volume(kind, source, target))
        return found


def _scalar(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
