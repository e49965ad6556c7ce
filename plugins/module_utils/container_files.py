# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container wrote over its image, read where the host keeps it: in the upper directory of an overlay."""

from __future__ import annotations

import os
from typing import Any, Mapping, Optional


def own_paths(facts: Mapping[str, Any]) -> Optional[list[str]]:
    """Paths in a container's writable layer; None where it can't be read whole (another driver, no right)."""
    driver = facts.get("GraphDriver") or {}
    upper = str((driver.get("Data") or {}).get("UpperDir") or "") if driver.get("Name") == "overlay2" else (
        mounted_upper(str(facts["Id"]), _mounts()))
    if not os.path.isdir(upper):
        return None
    found = []
    try:
        for place, directories, files in os.walk(upper, onerror=_give_up):
            found += [os.path.join(place, name)[len(upper) :] for name in (*directories, *files)]
    except OSError:
        return None
    return sorted(found)


def _give_up(error: OSError) -> None:
    raise error


def _mounts() -> str:
    """This process's own mounts, where the engine's are seen too unless it has a namespace of its own."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as table:
            return table.read()
    except OSError:
        return ""


def mounted_upper(container_id: str, mountinfo: str) -> str:
    """The directory of a running container's own files, with the containerd image store, which doesn't tell it.

    The engine mounts the root of a container at a place of the container's id (``.../rootfs/overlayfs/ID``), which is
    in the host's namespace, where no container can put one.

    :param mountinfo: ``/proc/self/mountinfo``, see proc(5).
    :returns: empty where that isn't one overlay file system, or has a name that is written with escapes.
    """
    lines = [line for line in mountinfo.splitlines() if f"/{container_id} " in line]
    left, _dash, right = lines[0].partition(" - ") if len(lines) == 1 else ("", "", "")
    places, options = left.split(" "), right.split(" ")
    if len(places) < 5 or len(options) != 3 or options[0] != "overlay" or not places[4].endswith(f"/{container_id}"):
        return ""
    found = [option[len("upperdir=") :] for option in options[2].split(",") if option.startswith("upperdir=")]
    return found[0] if len(found) == 1 and found[0].startswith("/") and "\\" not in options[2] else ""
