# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes of a fleet spec: named volumes and bind mounts in compose's short form, and what they may not cover."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from . import fleet_values as values
from .fleet_values import Unfit

# A worker with the raw socket owns the host.
SOCKETS = ("docker.sock", "containerd.sock", "podman.sock", "crio.sock")
_OWN = ("/opt/driftguard", "/etc/driftguard", "/run/secrets", "/var/run/secrets", "/proc", "/sys", "/dev")
_VOLUME_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\Z")
_MAX_PATH = 1024
_MODES: tuple[list[str], ...] = ([], ["ro"], ["rw"], ["external"], ["external", "ro"], ["external", "rw"])


@dataclass(frozen=True)
class Mount:
    """One volume: ``kind`` is volume or bind; ``source`` a volume's name or a path of the host.

    :param external: a volume that something else made; by its own name, which no compose project begins.
    """

    kind: str
    source: str
    target: str
    read_only: bool
    external: bool = False


def mount(value: Any) -> Mount:
    """Read ``name:/path[:ro][,external]`` or ``/host/path:/path[:ro]``.

    :raises Unfit: another form, an anonymous volume, an engine's raw socket, or a place that is the collection's own.
    """
    parts = values.text(value).split(":")
    modes = sorted(parts[2].split(",")) if len(parts) == 3 else []
    if len(parts) not in (2, 3) or modes not in _MODES:
        raise Unfit(
            "name:/path or /host/path:/path, with :ro or :rw, or :external for a volume that is there already "
            "(anonymous volumes would keep old files)")
    source, target = parts[0], _absolute(parts[1])
    if source.startswith("/"):
        source = _absolute(source)
        if PurePosixPath(source).name in SOCKETS or source in ("/run", "/var/run", "/var"):
            raise Unfit("no raw engine socket and no system root in a worker (give it a filtered proxy)")
        if "external" in modes:
            raise Unfit("external only for volumes with a name")
        return Mount("bind", source, target, "ro" in modes)
    if not _VOLUME_NAME.match(source):
        raise Unfit("a volume's name of at most 100 letters, digits, '-', '_' and '.'")
    return Mount("volume", source, target, "ro" in modes, "external" in modes)


def tmpfs_path(value: Any) -> str:
    """An absolute path for a tmpfs.

    :raises Unfit: not absolute, the root, or the collection's own.
    """
    return _absolute(values.text(value))


def _absolute(path: str) -> str:
    # "/." and "//" are the root too, and PurePosixPath keeps two leading slashes.
    normal = "/" + str(PurePosixPath(path)).lstrip("/")
    unfit = len(path) > _MAX_PATH or not path.isprintable() or any(letter in path for letter in ",;:")
    if not path.startswith("/") or normal == "/" or ".." in path.split("/") or unfit:
        raise Unfit("absolute paths below / without '..', ',', ';' or ':'")
    if any(normal == own or normal.startswith(own + "/") for own in _OWN):
        raise Unfit(f"paths outside {', '.join(_OWN)}")
    return normal
