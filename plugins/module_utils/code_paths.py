# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an image keeps its code, and what may therefore not lie over it.

A mount over the code (also the anonymous volume of a ``VOLUME`` line) shows the process other files than the image's,
while image id, baked SHA and registered SHA all look right.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Iterable, Iterator, Mapping, Optional, Sequence

from .names import GUARD_MOUNT, IMAGE_FILE, SECRETS_MOUNT

SYSTEM_CODE = ("/bin", "/sbin", "/lib", "/lib64", "/usr", "/opt", "/app", str(PurePosixPath(IMAGE_FILE).parent))
DATA = (
    "/tmp", "/var/tmp", "/run", "/var/run", "/var/log", "/var/cache", "/var/lib", "/dev", "/proc", "/sys", "/home",
    "/root", "/mnt", "/media")
# Of these no image runs code: a pid file, a socket or a secret that an argument names makes no code of its directory.
SCRATCH = ("/tmp", "/var/tmp", "/run", "/var/run", "/var/log", "/var/cache", "/dev", "/proc", "/sys")
ENGINE_FILES = (
    "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/mtab", "/.dockerenv",
    # where an engine puts its init, through /sbin or where that leads
    "/sbin/docker-init", "/usr/sbin/docker-init", "/usr/bin/docker-init")
# Variables that name where programs and libraries are taken from: PYTHONPATH=/data makes a volume at /data code.
SEARCH_VARIABLES = (
    "PATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "NODE_PATH", "CLASSPATH",
    "RUBYLIB", "GEM_PATH", "PERL5LIB")


def code_paths(
    working_dir: str, command: Sequence[str], environment: Optional[Mapping[str, str]] = None,
) -> tuple[str, ...]:
    """Directories that hold what an image runs.

    :param working_dir: the image's WORKDIR, empty for none.
    :param command: ENTRYPOINT and CMD together; the directory of each absolute path in it counts, but of arguments not
        those in :data:`SCRATCH`.
    :param environment: variables of the process; what those in :data:`SEARCH_VARIABLES` list counts, and of a ``bin``
        directory (a Python environment's, say) the one it is in.
    """
    found = {_normal(working_dir)}
    for place, word in enumerate(command):
        directory = _parent(_normal(word)) if word.startswith("/") else "/"
        if place == 0 or not any(_inside(directory, scratch) for scratch in SCRATCH):
            found.add(directory)
    for name in SEARCH_VARIABLES:
        found.update(_searched((environment or {}).get(name, "")))
    return tuple(sorted((found - {"/"}) | set(SYSTEM_CODE)))


def _searched(value: str) -> Iterator[str]:
    for entry in value.replace(" ", ":").split(":"):
        if entry.startswith("/"):
            path = _normal(entry)
            yield path
            if path.endswith("/bin") and _parent(path) not in DATA:
                yield _parent(path)


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
    is_data = any(_inside(path, data) or _inside(data, path) for data in DATA)
    return is_data and not any(_inside(path, code) for code in paths)


def _normal(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _inside(path: str, parent: str) -> bool:
    return parent in ("/", path) or path.startswith(parent + "/")
