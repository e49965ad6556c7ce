# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes of a fleet spec: named volumes and bind mounts in compose's short form, and what they may not cover."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from . import fleet_values as values
from .fleet_values import Unfit

# /var/run is /run in every image of today; a worker with the raw socket owns the host.
_SOCKETS = ("docker.sock", "containerd.sock", "podman.sock", "crio.sock")
_OWN = ("/opt/driftguard", "/etc/driftguard", "/run/secrets", "/proc", "/sys", "/dev")


@dataclass(frozen=True)
class Mount:
    """One volume: ``kind`` is volume or bind; ``source`` a volume's name or a path of the host."""

    kind: str
    source: str
    target: str
    read_only: bool


def mount(value: Any) -> Mount:
    """Read ``name:/path[:ro]`` or ``/host/path:/path[:ro]``.

    :raises Unfit: another form, an anonymous volume, the raw socket of an engine, or a place that is the collection's own.
    """
    parts = values.text(value).split(":")
    if len(parts) not in (2, 3) or (len(parts) == 3 and parts[2] not in ("ro", "rw")):
        raise Unfit("volumes as name:/path or /host/path:/path, with :ro or :rw (anonymous volumes would keep old files)")
    source, target = parts[0], _absolute(parts[1])
    if source.startswith("/"):
        source = _absolute(source)
        if PurePosixPath(source).name in _SOCKETS or source in ("/", "/run", "/var/run"):
            raise Unfit("no raw engine socket and no system root in a worker (give it a filtered proxy)")
        return Mount("bind", source, target, parts[2:] == ["ro"])
    if not source or not source[0].isalnum() or not all(letter.isascii() and (letter.isalnum() or letter in "-_.") for letter in source):
        raise Unfit("volume names of letters, digits, '-', '_' and '.'")
    return Mount("volume", source, target, parts[2:] == ["ro"])


def tmpfs_path(value: Any) -> str:
    """An absolute path for a tmpfs.

    :raises Unfit: not absolute, or the collection's own.
    """
    return _absolute(values.text(value))


def _absolute(path: str) -> str:
    if not path.startswith("/") or path == "/" or ".." in path.split("/") or any(letter in path for letter in "\n\r\t,;:"):
        raise Unfit("absolute paths without '..', ',' or ';'")
    normal = str(PurePosixPath(path))
    if normal.startswith("//"):
        normal = normal[1:]
    if any(normal == own or normal.startswith(own + "/") for own in _OWN):
        raise Unfit(f"paths outside {', '.join(_OWN)}")
    return normal
