# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container needs so that an engine can run in it."""

from __future__ import annotations

__all__ = ["PREPARE", "engine_in_a_container"]

# Shared mounts, and control groups that the engine may write. In version 2 a group with processes can't have groups
# with limits below it, so what runs here moves into one beside them.
PREPARE = (
    "mount --make-rshared / && mount -o remount,rw /sys && "
    "if [ -e /sys/fs/cgroup/cgroup.controllers ]; then "
    "mount -o remount,rw /sys/fs/cgroup && mkdir -p /sys/fs/cgroup/init && "
    "for process in $(cat /sys/fs/cgroup/cgroup.procs); do "
    "echo $process >/sys/fs/cgroup/init/cgroup.procs 2>/dev/null || true; done && "
    "sed 's/ / +/g; s/^/+/' /sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control; "
    "else for group in /sys/fs/cgroup/*; do mount -o remount,bind,rw $group; done; fi; exec ")
# SYS_PTRACE: without it an engine can't enter the name spaces of a container whose user isn't root.
CAPABILITIES = ["SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE"]
UNCONFINED = ["seccomp=unconfined", "systempaths=unconfined"]


def engine_in_a_container(name: str) -> list[str]:
    """Options of ``docker run`` for a container that can run an engine, once it has done :data:`PREPARE`."""
    return [
        f"--name={name}", "--cgroupns=private", *(f"--cap-add={one}" for one in CAPABILITIES),
        *(f"--security-opt={one}" for one in UNCONFINED)]
