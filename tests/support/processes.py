# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes of this machine, by /proc."""

from __future__ import annotations

from pathlib import Path

__all__ = ["alive", "processes_of"]


def alive(pid: int) -> bool:
    """Whether it runs, and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def processes_of(ancestor: int) -> list[int]:
    """Pids of what descends from a process and is no zombie, by /proc."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] not in "ZX":
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, parents = [], [ancestor]
    while parents:
        born = children.get(parents.pop(), [])
        found += born
        parents += born
    return found
