# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges one container: is it what the release and the inventory want? Pure; the planner and the proof share it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Optional

from .code_paths import changed_code, code_paths, covered_code
from .fleet_containers import RUNNING, Container
from .guard_command import is_guard_command
from .names import GUARD_MOUNT
from .node_guard import has_node_guard

OK = "OK"
STALE = "STALE"
MISSING = "MISSING"
EXTRA = "EXTRA"
DEAD = "DEAD"
STOPPED = "STOPPED"
CRASHING = "CRASHING"
UNHEALTHY = "UNHEALTHY"
STARTING = "STARTING"
DRAINING = "DRAINING"
FENCED = "FENCED"
UNREGISTERED = "UNREGISTERED"
MISMATCH = "MISMATCH"
OVERRIDDEN = "OVERRIDDEN"
MOUNTED = "MOUNTED"
MODIFIED = "MODIFIED"
RETAGGED = "RETAGGED"
UNGUARDED = "UNGUARDED"
UNKNOWN = "UNKNOWN"
RECORD = "RECORD"

# These may pass by themselves within a heartbeat or a registration's lifetime, so a proof may wait for them.
PASSING = frozenset({STARTING, DRAINING, FENCED, UNREGISTERED, DEAD, UNKNOWN})
SHOWN_CHANGES = 3


@dataclass(frozen=True)
class Wanted:
    """What the instances of one service on one host should be.

    :param image_id: the release's image of the service's variant, as this host's engine names it; None: it isn't there.
    :param memory: limit in bytes, None to leave unchecked; likewise the spec hash.
    :param guard: directory of the fleet's guards on the host, empty to leave unchecked.
    :param node: whether its Node has to load the Node guard as well.
    :param entrypoint: how the guard has to be started; empty where the image isn't known: then any way that it is
        rendered in.
    """

    service: str
    replicas: int
    variant: str
    image_id: Optional[str]
    sha: str
    release_id: str
    memory: Optional[int] = None
    spec: Optional[str] = None
    guard: str = ""
    entrypoint: tuple[str, ...] = ()
    retagged: str = ""
    node: bool = False


@dataclass(frozen=True)
class Problem:
    """Why an instance isn't right: the verdict, what was found, and what to do."""

    verdict: str
    found: str
    remedy: str


def container_problem(container: Container, wanted: Wanted) -> Optional[Problem]:
    """The first reason why a container doesn't run the release's code, or None.

    Looks only at what the engine says; registrations are judged elsewhere.
    """
    for check in (_running, _image, _environment, _mounts, _guard, _changes, _tag, _health):
        problem = check(container, wanted)
        if problem is not None:
            return problem
    return None


def _redeploy(container: Container) -> str:
    return f"deploy again: ansible-playbook playbooks/deploy-workers.yml -e worker_services={container.service}"


def _running(container: Container, wanted: Wanted) -> Optional[Problem]:
    if container.status == "restarting":
        return Problem(
            CRASHING,
            f"restarting, last exit status {container.exit_code}{', out of memory' if container.oom_killed else ''}",
            f"read its log: docker logs --tail 50 {container.name}")
    if container.status != RUNNING or container.half_made:
        return Problem(
            STOPPED,
            f"{'half made' if container.half_made else container.status} "
            f"(restart policy {container.restart_policy}): it may revive",
            f"remove it: docker rm -f {container.name}; then deploy again")
    return None


def _image(container: Container, wanted: Wanted) -> Optional[Problem]:
    facts = container.image
    if wanted.image_id is None:
        if facts is None or facts.sha != wanted.sha:
            return Problem(
                STALE,
                f"its image is stamped {facts.sha[:7] if facts and facts.sha else 'nothing'}, not {wanted.sha[:7]}",
                f"deploy that commit: check {wanted.sha[:7]} out, then ansible-playbook playbooks/deploy-workers.yml")
        return Problem(UNKNOWN, "the release's image isn't on this engine", "deploy the release again")
    if container.image_id != wanted.image_id:
        sha = facts.sha[:7] if facts and facts.sha else "an unstamped image"
        return Problem(
            STALE, f"runs image {_short(container.image_id)} ({sha}), not {_short(wanted.image_id)}",
            _redeploy(container))
    stamps = (facts.sha, facts.environment_sha, facts.release_id) if facts else ()
    if facts is None or stamps != (wanted.sha, wanted.sha, wanted.release_id):
        return Problem(
            STALE, f"its image is stamped {facts.sha[:7] if facts else 'unknown'}",
            "build the release again, then deploy")
    return None


def _environment(container: Container, wanted: Wanted) -> Optional[Problem]:
    if container.environment.get("GIT_SHA") != wanted.sha:
        return Problem(
            OVERRIDDEN, "GIT_SHA was set at deploy time",
            f"remove GIT_SHA from its environment; {_redeploy(container)}")
    return None


def _guard(container: Container, wanted: Wanted) -> Optional[Problem]:
    if not is_guard_command(container.entrypoint) or GUARD_MOUNT not in container.mounts:
        return Problem(UNGUARDED, "started without the guard", _redeploy(container))
    if wanted.entrypoint and container.entrypoint != wanted.entrypoint:
        return Problem(
            UNGUARDED, f"its guard was started otherwise than as {' '.join(wanted.entrypoint)}", _redeploy(container))
    if wanted.node and not has_node_guard(container.command):
        return Problem(UNGUARDED, "its Node was started without the Node guard", _redeploy(container))
    if wanted.guard and os.path.normpath(container.guard) != os.path.normpath(wanted.guard):
        return Problem(
            UNGUARDED, f"its guard is {container.guard or 'a directory that it may write'}, not {wanted.guard}",
            _redeploy(container))
    return None


def _mounts(container: Container, wanted: Wanted) -> Optional[Problem]:
    paths = _code(container)
    for target in container.mounts:
        covered = covered_code(target, paths)
        if covered:
            return Problem(
                MOUNTED, f"a mount at {target} lies over the code in {covered}",
                "move the mount, or drop the VOLUME line from the Dockerfile; then deploy again")
    return None


def _changes(container: Container, wanted: Wanted) -> Optional[Problem]:
    changed = changed_code(container.changes, _code(container), container.mounts)
    if changed:
        more = f" and {len(changed) - SHOWN_CHANGES} more" if len(changed) > SHOWN_CHANGES else ""
        return Problem(
            MODIFIED, f"files changed since it was created: {', '.join(changed[:SHOWN_CHANGES])}{more}",
            _redeploy(container))
    return None


def _code(container: Container) -> tuple[str, ...]:
    """Where its code is, by its image, and by the command and the search paths that it was given."""
    image = container.image
    words = (*image.command, *container.command) if image else container.command
    return code_paths(image.working_dir if image else "", words, container.environment)


def _tag(container: Container, wanted: Wanted) -> Optional[Problem]:
    if wanted.retagged:
        return Problem(
            RETAGGED, wanted.retagged,
            "give the tag back: ansible-playbook playbooks/build-workers.yml; and find who moved it")
    return None


def _health(container: Container, wanted: Wanted) -> Optional[Problem]:
    if container.health == "unhealthy":
        return Problem(UNHEALTHY, "its health check fails", f"read its log: docker logs --tail 50 {container.name}")
    return None


def _short(image_id: str) -> str:
    return image_id.partition(":")[2][:12] or image_id
