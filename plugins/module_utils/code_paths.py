# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an image keeps its code, and what may therefore not lie over it.

A mount over the code (also the anonymous volume of a ``VOLUME`` line) shows the process other files than the image's,
while image id, baked SHA and registered SHA all look right.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Iterable, Optional, Sequence

from .names import GUARD_MOUNT, IMAGE_FILE, SECRETS_MOUNT

SYSTEM_CODE = ("/bin", "/sbin", "/lib", "/lib64", "/usr", "/opt", "/app", str(PurePosixPath(IMAGE_FILE).parent))
DATA = ("/tmp", "/var/tmp", "/run", "/var/run", "/var/log", "/var/cache", "/var/lib", "/dev", "/proc", "/sys", "/home", "/root", "/mnt", "/media")
ENGINE_FILES = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/mtab", "/.dockerenv",
    # where an engine puts its init, through /sbin or where that leads
    "/sbin/docker-init", "/usr/sbin/docker-init", "/usr/bin/docker-init")


def code_paths(working_dir: str, command: Sequence[str]) -> tuple[str, ...]:
    """Directories that hold what an image runs.

    :param working_dir: the image's WORKDIR, empty for none.
    :param command: ENTRYPOINT and CMD together; the directory of each absolute path in it counts.
    """
    found = {path for path in (_normal(working_dir or "/"),) if path != "/"}
    for word in command:
        if word.startswith("/"):
            parent = str(PurePosixPath(_normal(word)).parent)
            if parent != "/":
                found.add(parent)
    return tuple(sorted(found | set(SYSTEM_CODE)))


def covered_code(destination: str, paths: Iterable[str]) -> Optional[str]:
    """The code path that a mount at a destination would cover, or None.

    :param destination: absolute path in the container; below, at and above a code path all cover it.
    """
    target = _normal(destination)
    if _inside(target, GUARD_MOUNT) or _inside(target, SECRETS_MOUNT):
        return None
    for path in paths:
        if _inside(target, path) or _inside(path, target):
            return path
    return None


def changed_code(changes: Iterable[str], paths: Sequence[str], mounts: Sequence[str]) -> list[str]:
    """Of the paths that differ from the image (``docker diff``), those that are code.

    Everything counts as code but directories that images use for data, what the engine itself writes, and mount points
    with the directories leading to them.

    :param mounts: mount destinations of the container.
    """
    return [path for path in changes if not _harmless(_normal(path), paths, mounts)]


def _harmless(path: str, paths: Sequence[str], mounts: Sequence[str]) -> bool:
    placed = (*ENGINE_FILES, *map(_normal, mounts))
    if any(_inside(place, path) or _inside(path, place) for place in placed):
        return True
    own_code = [code for code in paths if code not in SYSTEM_CODE]
    if any(_inside(path, code) for code in own_code):
        return False
    # The parent directory of a data directory is listed as changed when something below it is.
    return any(_inside(path, data) or _inside(data, path) for data in DATA) and not any(_inside(path, code) for code in paths)


def _normal(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def _inside(path: str, parent: str) -> bool:
    return parent == "/" or path == parent or path.startswith(parent + "/")
