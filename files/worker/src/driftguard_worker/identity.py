# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""Who this worker is: everything in its registration that doesn't change while it runs."""

from __future__ import annotations

import json
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from .container_id import own_container_id
from .names import IMAGE_FILE, UNKNOWN, member
from .records import ReleaseKey
from .settings import Settings

__all__ = ["Identity", "instance_name", "release_of"]

_LONGEST_HOSTNAME = 64  # the kernel's own limit


@dataclass(frozen=True)
class Identity:
    """One instance of a service of a fleet.

    ``baked`` is what the image says of itself, which records are compared with; nothing where it doesn't.

    ``container_id`` is empty outside a container; ``git_sha``, ``build_date`` and ``release_id`` are ``unknown``
    where the image doesn't say.
    """

    fleet: str
    service: str
    instance: str
    container_id: str
    host: str
    pid: int
    git_sha: str
    build_date: str
    release_id: str
    baked: Optional[ReleaseKey] = None

    @property
    def worker_id(self) -> str:
        """``<service>:<instance>``."""
        return member(self.service, self.instance)

    @classmethod
    def of_this_process(cls, settings: Settings, image_file: Path = Path(IMAGE_FILE)) -> Identity:
        """Read it from the settings, the image and the kernel."""
        container_id = own_container_id() or ""
        baked = release_of(image_file)
        hostname = socket.gethostname()
        return cls(
            fleet=settings.worker_fleet,
            service=settings.worker_type,
            instance=instance_name(container_id, hostname, os.getpid()),
            container_id=container_id,
            host=settings.worker_host or hostname,
            pid=os.getpid(),
            git_sha=settings.git_sha,
            build_date=settings.build_date,
            release_id=baked.release_id if baked else UNKNOWN,
            baked=baked,
        )


def instance_name(container_id: str, hostname: str, pid: int) -> str:
    """Name of an instance within its service.

    :param container_id: 64 hex digits, or empty outside a container.
    :returns: the first 12 digits of the container id, as ``docker ps`` shows them; else ``<hostname>-<pid>``, without
        characters that mean something in a key.
    """
    if container_id:
        return container_id[:12]
    name = re.sub(r"[^A-Za-z0-9.-]", "-", hostname).lstrip(".-") or UNKNOWN
    return f"{name[:_LONGEST_HOSTNAME]}-{pid}"


def release_of(image_file: Path) -> Optional[ReleaseKey]:
    """Release that is baked into the image.

    :param image_file: ``image.json``, written when the image was built.
    :returns: nothing without a readable file. Whether that is acceptable is the guard's decision, and it has been made
        before this is read.
    """
    try:
        content = json.loads(image_file.read_text(encoding="utf-8"))
        key = ReleaseKey(content["release"], content["revision"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return key if all(isinstance(part, str) and part for part in key) else None
