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

from .command_paths import (
    SCRATCH,
    WIDE,
    in_any,
    inside,
    joined,
    loaded_paths,
    normal,
    parent,
    text_variables,
    word_paths,
)
from .names import GUARD_MOUNT, IMAGE_FILE, SECRETS_MOUNT

SYSTEM_CODE = ("/bin", "/sbin", "/lib", "/lib64", "/usr", "/opt", "/app", str(PurePosixPath(IMAGE_FILE).parent))
DATA = (
    "/tmp", "/var/tmp", "/run", "/var/run", "/var/log", "/var/cache", "/var/lib", "/dev", "/proc", "/sys", "/home",
    "/root", "/mnt", "/media")
ENGINE_FILES = (
    "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/mtab", "/.dockerenv",
    # where an engine puts its init, through /sbin or where that leads
    "/sbin/docker-init", "/usr/sbin/docker-init", "/usr/bin/docker-init")
# Variables that name where programs and libraries are taken from: PYTHONPATH=/data makes a volume at /data code.
SEARCH_VARIABLES = (
    "PATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "NODE_PATH", "CLASSPATH",
    "RUBYLIB", "GEM_PATH", "GEM_HOME", "PERL5LIB", "PYTHONUSERBASE", "BASH_ENV", "ENV", "LD_AUDIT")
# Variables with options, some of which load code: --require /data/hook.js, -javaagent:/data/agent.jar
OPTION_VARIABLES = ("NODE_OPTIONS", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS")
# Directories of these names hold code wherever they are.
LIBRARIES = ("site-packages", "dist-packages", "node_modules", ".venv")
# Python's own for what a user installed, below the user's home; data too, so only a mount there tells.
USER_SITE = ".local"


def code_paths(
    working_dir: str, command: Sequence[str], environment: Optional[Mapping[str, str]] = None,
) -> tuple[str, ...]:
    """Directories that hold what an image runs.

    :param working_dir: the image's WORKDIR, empty for none.
    :param command: ENTRYPOINT and CMD together; the directory of each path in it counts (a relative one begins in
        WORKDIR), but of arguments not those in :data:`SCRATCH`. A text for a shell is taken apart: what ``cd`` enters
        counts, and each path in it with its directory.
    :param environment: variables of the process; what those in :data:`SEARCH_VARIABLES` list counts, and of a ``bin``
        directory (a Python environment's, say) the one it is in; what those in :data:`OPTION_VARIABLES` load; and of
        HOME Python's user site.
    """
    directory, variables = normal(working_dir), environment or {}
    found = {directory, *_of_variables(variables, directory)}
    for place, word in enumerate(command):
        found.update(word_paths(word, place == 0, directory, variables))
        found.update(_of_variables(dict(text_variables(word, variables)), directory))
    return tuple(sorted((found - {"/"}) | set(SYSTEM_CODE)))


def _of_variables(variables: Mapping[str, str], directory: str) -> Iterator[str]:
    for name in SEARCH_VARIABLES:
        yield from _searched(variables.get(name, ""))
    for name in OPTION_VARIABLES:
        yield from loaded_paths(variables.get(name, ""), directory)
    home = normal(variables.get("HOME", ""))
    # A volume for data that is the home as a whole (HOME=/data) is data; a mount at its user site tells by its name.
    if home not in WIDE and not in_any(home, SCRATCH):
        yield joined(home, USER_SITE)


def _searched(value: str) -> Iterator[str]:
    for entry in value.replace(" ", ":").split(":"):
        if entry.startswith("/"):
            path = normal(entry)
            yield path
            if path.endswith("/bin") and parent(path) not in DATA:
                yield parent(path)


def covered_code(destination: str, paths: Iterable[str]) -> Optional[str]:
    """The code path that a mount at a destination would cover, or None.

    :param destination: absolute path in the container; below, at and above a code path all cover it, and so does one
        in a directory of libraries (:data:`LIBRARIES`), wherever that is.
    """
    target = normal(destination)
    if inside(target, GUARD_MOUNT) or inside(target, SECRETS_MOUNT):
        return None
    for path in paths:
        if inside(target, path) or inside(path, target):
            return path
    return _library(target, (*LIBRARIES, USER_SITE))


def _library(path: str, names: Sequence[str]) -> Optional[str]:
    parts = path.split("/")
    places = [place for place, part in enumerate(parts) if part in names]
    return "/".join(parts[:places[0] + 1]) if places else None


def changed_code(changes: Iterable[str], paths: Sequence[str], mounts: Sequence[str]) -> list[str]:
    """Of the paths that differ from the image (``docker diff``), those that are code.

    Everything counts as code but directories that images use for data, what the engine itself writes, and mount points
    with the directories leading to them.

    :param mounts: mount destinations of the container.
    """
    return [path for path in changes if not _harmless(normal(path), paths, mounts)]


def _harmless(path: str, paths: Sequence[str], mounts: Sequence[str]) -> bool:
    placed = (*ENGINE_FILES, *map(normal, mounts))
    if any(inside(place, path) or inside(path, place) for place in placed):
        return True
    own_code = [code for code in paths if code not in SYSTEM_CODE]
    if in_any(path, own_code) or (_library(path, LIBRARIES) and not in_any(path, SCRATCH)):
        return False
    # The parent directory of a data directory is listed as changed when something below it is.
    is_data = any(inside(path, data) or inside(data, path) for data in DATA)
    return is_data and not in_any(path, paths)
