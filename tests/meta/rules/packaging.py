# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""galaxy.yml, ignore lists, lock files, make targets: what is declared twice has to agree."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from typing import Iterator, Mapping, Sequence

PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)(?: ;([^\\]*))?", re.MULTILINE)
TARGET = re.compile(r"^([a-z][a-z ]*):(?!=)(.*)$", re.MULTILINE)


def uncovered(ignored: Sequence[str], build_ignore: Sequence[str]) -> list[str]:
    """Entries of .gitignore that no pattern of build_ignore keeps out of the built collection."""
    plain = [entry.strip().strip("/") for entry in ignored if entry.strip() and not entry.startswith("#")]
    return [entry for entry in plain if not any(_covers(pattern, entry) for pattern in build_ignore)]


def _covers(pattern: str, entry: str) -> bool:
    parts = entry.split("/")
    return any(fnmatch("/".join(parts[:count]), pattern) for count in range(1, len(parts) + 1)) or pattern == entry


def pins(lock: str) -> dict[str, set[tuple[str, str]]]:
    """Package name to its versions, each with the condition under which it is meant."""
    found: dict[str, set[tuple[str, str]]] = {}
    for name, version, marker in PIN.findall(lock):
        found.setdefault(name.lower().replace("_", "-"), set()).add((version, marker.strip()))
    return found


def lock_conflicts(first: str, second: str) -> list[str]:
    """Packages that two locks pin to versions without any in common."""
    one, two = pins(first), pins(second)
    return [
        f"{name}: {_versions(one[name])} and {_versions(two[name])}" for name in sorted(one.keys() & two.keys())
        if not {version for version, _marker in one[name]} & {version for version, _marker in two[name]}]


def _versions(pinned: set[tuple[str, str]]) -> str:
    return ", ".join(sorted(version for version, _marker in pinned))


def without_hash(lock: str) -> list[str]:
    """Pins that name no hash."""
    blocks = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)
    return [block.split("\n", 1)[0] for block in blocks if PIN.match(block) and "--hash=sha256:" not in block]


def undocumented_targets(makefile: str) -> Iterator[str]:
    """Targets that ``make help`` doesn't list, and such as are not phony."""
    phony = {name for names in re.findall(r"^\.PHONY:(.*)$", makefile, re.MULTILINE) for name in names.split()}
    lines = TARGET.findall(makefile)
    told = {name for names, rest in lines if " ## " in f" {rest}" for name in names.split()}
    for name in sorted({name for names, _rest in lines for name in names.split()}):
        if name not in told:
            yield f"{name}: no ## comment"
        if name not in phony:
            yield f"{name}: not phony"


def stale_licences(texts: Mapping[str, str], expected: Mapping[str, str]) -> list[str]:
    """Files whose SPDX line is missing or names another licence than their directory has.

    :param texts: path to content.
    :param expected: path prefix to licence; the longest prefix that fits decides.
    """
    return [
        f"{path}: expected {wanted}" for path, text in texts.items()
        for wanted in [expected[max((place for place in expected if path.startswith(place)), key=len)]]
        if f"SPDX-License-Identifier: {wanted}" not in "\n".join(text.splitlines()[:8])]
