# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""Which container this process runs in, from what the kernel shows of it.

The hostname can't tell: with host networking, or with ``hostname:`` in a compose file, it isn't the container's id.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Optional

__all__ = ["from_cgroup", "from_mountinfo", "own_container_id"]

# An engine mounts these three files from the container's own directory, in every network mode. The root is
# matched from its end: on an engine that is itself a container, what comes before is that engine's storage path.
_ENGINE_FILE = re.compile(r"/(?:overlay-)?containers/([0-9a-f]{64})/(?:userdata/)?(?:hostname|hosts|resolv\.conf)$")
_ENGINE_TARGETS = frozenset({"/etc/hostname", "/etc/hosts", "/etc/resolv.conf"})
# docker/<id>, docker-<id>.scope, libpod-<id>.scope, cri-containerd-<id>.scope, kubepods/…/<id>
_CGROUP_PART = re.compile(r"^(?:[a-z][a-z-]*-)?([0-9a-f]{64})(?:\.scope)?$")


def from_mountinfo(text: str) -> Optional[str]:
    """Container id from ``/proc/self/mountinfo``.

    :param text: the file's content; fields as in proc(5): the fourth is the root within its filesystem, the fifth
        where it is mounted.
    :returns: 64 hex digits, or nothing where no engine has mounted its files.
    """
    for line in text.splitlines():
        fields = line.split(" ")
        if len(fields) > 5 and fields[4] in _ENGINE_TARGETS:
            match = _ENGINE_FILE.search(fields[3])
            if match:
                return match.group(1)
    return None


def from_cgroup(text: str) -> Optional[str]:
    """Container id from ``/proc/self/cgroup``, version 1 or 2.

    :param text: the file's content: lines ``hierarchy:controllers:path``.
    :returns: 64 hex digits, or nothing where the path names no container, as with a private cgroup namespace.
    """
    for line in text.splitlines():
        parts = line.split(":", 2)[-1].split("/")
        # The innermost one is ours: an engine inside a container has the outer container's id before it.
        for part in reversed(parts):
            match = _CGROUP_PART.match(part)
            if match:
                return match.group(1)
    return None


def own_container_id(proc: Path = Path("/proc/self")) -> Optional[str]:
    """Id of the container of this process (64 hex digits), or nothing outside of one."""
    return from_mountinfo(_read(proc / "mountinfo")) or from_cgroup(_read(proc / "cgroup"))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
