# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why adopting changes a key of a compose file, in words for the list of changes."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any, Mapping, Optional

from .fleet_rules import OWN_ENVIRONMENT
from .fleet_volumes import SOCKETS
from .names import GUARD_MOUNT, RESERVED_ENVIRONMENT, SECRETS_MOUNT

CHANGED = "changed"
ADDED = "added"
REMOVED = "removed"
NOT_CARRIED = "not carried over"
_VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,127}\Z")

# By key, the longest beginning decides. A key that is gone is "removed" on purpose, or can't be carried over.
_REASONS = {
    "image": (REMOVED, "the image of the commit, by digest; built by worker_image"),
    "build": (REMOVED, "worker_image builds, from the commit: worker_source; args and target in worker_image_variants"),
    "pull_policy": (REMOVED, "the image is on the host before anything is started"),
    "container_name": (REMOVED, "replicas can't share a name"),
    "restart": (REMOVED, "always: the only policy after which all workers are back when the engine was killed"),
    "deploy.restart_policy": (REMOVED, "restart is always"),
    "entrypoint": (REMOVED, "the start guard; the file's own entrypoint goes before the command, after the image's"),
    "command": (REMOVED, "after the guard; the image's ENTRYPOINT and CMD are written out"),
    "deploy.resources.limits.memory": (REMOVED, "A GUESS, since the file has no limit: measure and set it"),
    "deploy.resources.limits.pids": (REMOVED, "a limit of processes"),
    "deploy.replicas": (REMOVED, "1 to 100 replicas, in worker_fleet_services"),
    "deploy.update_config": (NOT_CARRIED, "Swarm only, but for start-first: see worker_batches and worker_canary"),
    "deploy.rollback_config": (NOT_CARRIED, "Swarm only: a failed deploy goes back by itself"),
    "deploy.placement": (NOT_CARRIED, "Swarm only: see worker_placement in host_vars"),
    "deploy": (NOT_CARRIED, "the fleet spec has no such key"),
    "healthcheck": (REMOVED, "a command without Compose's CMD; a shell is written out; whole seconds"),
    "healthcheck.start_interval": (NOT_CARRIED, "the renderer sets 2s where the engine knows it"),
    "stop_grace_period": (REMOVED, "a worker needs time to give jobs back; longer than drain_time"),
    "logging": (REMOVED, "rotated: three files of 10 MB"),
    "read_only": (REMOVED, "nothing is written beside the code"),
    "tmpfs": (NOT_CARRIED, "it lies over the code, or has options that the fleet spec doesn't have"),
    "cap_drop": (REMOVED, "a queue worker needs no capabilities"),
    "cap_add": (REMOVED, "a queue worker needs no capabilities"),
    "privileged": (REMOVED, "never privileged"),
    "security_opt": (REMOVED, "no new privileges, and the engine's own profiles"),
    "init": (REMOVED, "signals reach the worker, zombies are reaped"),
    "labels": (NOT_CARRIED, "the fleet spec has no labels; the renderer sets its own"),
    "labels.io.driftguard": (REMOVED, "which fleet, service and configuration this is"),
    "network_mode": (REMOVED, "a network of its own, never the host's"),
    "pid": (REMOVED, "never the host's namespaces"),
    "ipc": (REMOVED, "never the host's namespaces"),
    "userns_mode": (REMOVED, "never the host's namespaces"),
    "networks": (NOT_CARRIED, "the fleet spec joins networks by name only"),
    "volumes": (NOT_CARRIED, "the fleet spec has no such option of a mount"),
    f"volumes.{GUARD_MOUNT}": (REMOVED, "the start guard and the host's record"),
    "secrets": (NOT_CARRIED, f"secrets are mounted as {SECRETS_MOUNT}/<name> and belong to the image's user"),
    "configs": (NOT_CARRIED, "the fleet spec has no configs: put the file into the image or a volume"),
    "depends_on": (NOT_CARRIED, "it means nothing across hosts: workers wait for what they need"),
    "ports": (NOT_CARRIED, "workers publish no ports"),
    "expose": (NOT_CARRIED, "workers publish no ports"),
    "profiles": (NOT_CARRIED, "placement decides what runs where: worker_placement in host_vars"),
    "user": (NOT_CARRIED, "the image's own USER"),
    "working_dir": (NOT_CARRIED, "the image's own WORKDIR: set it there"),
    "develop": (REMOVED, "for development"),
    "platform": (NOT_CARRIED, "the platform of the host that builds"),
}
_OTHERS = (NOT_CARRIED, "the fleet spec has no such key")


def reason(key: str, was: Any, is_now: Any) -> tuple[str, str]:
    """What kind of change a key's is, and why.

    :param key: dotted, of the normal service; was: its value in the original; is_now: in the rendered file; or None.
    """
    gone, why = _special(key, was, is_now is not None) or _longest(key)
    if was is not None and is_now is not None:
        return CHANGED, why
    return (ADDED, why) if is_now is not None else (gone, why)


def _special(key: str, was: Any, is_now: bool) -> Optional[tuple[str, str]]:
    head, _dot, name = key.partition(".")
    if head == "environment":
        return _environment(name, is_now)
    if head == "secrets" and is_now:
        return REMOVED, "its content belongs into a vault, as worker_secrets names it"
    if head == "tmpfs" and is_now:
        return REMOVED, "the root is read-only, so that scratch space is named"
    if head == "volumes" and key.endswith(".create_host_path"):
        return REMOVED, "a path that isn't there is an error, not an empty directory"
    if head == "volumes" and not is_now and isinstance(was, dict) and "type" in was:
        return NOT_CARRIED, _mount(was)
    return None


def _mount(volume: Mapping[str, Any]) -> str:
    source = str(volume.get("source") or "")
    if PurePosixPath(source).name in SOCKETS:
        return "the engine's raw socket: give the worker a filtered proxy"
    if volume.get("type") not in ("bind", "volume"):
        return "the fleet spec has volumes and bind mounts only"
    if not source:
        return "an anonymous volume would keep old files: name it"
    return "it lies over code, or at a place that is the system's or the collection's: mount data below /data"


def _environment(name: str, is_now: bool) -> tuple[str, str]:
    if name in RESERVED_ENVIRONMENT:
        return REMOVED, "the version comes from the image alone"
    if name in OWN_ENVIRONMENT or name == "BULLMQ_PREFIX":
        return REMOVED, "the collection sets it: docs/inventory.md, What a worker is given"
    if name.endswith("_FILE") and is_now:
        return REMOVED, "where the secret is; the worker has to read this file"
    if _VARIABLE.match(name):
        return REMOVED, "a secret, now a file in /run/secrets; or without a value here"
    return NOT_CARRIED, "not a name that the fleet spec takes"


def _longest(key: str) -> tuple[str, str]:
    fit = [start for start in _REASONS if key == start or key.startswith(f"{start}.")]
    return _REASONS[max(fit, key=len)] if fit else _OTHERS
