# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof: the containers a host should run are exactly those that run are exactly the live registrations. Pure.

Rows are judged in one place for deploys and verify runs. A row is fine only with verdict ``OK``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Iterable, Mapping, Optional, Sequence

from . import verdicts
from .fleet_containers import Container, uptime
from .registrations import Registration
from .verdicts import Problem, Wanted, container_problem

# A worker that crashes every few seconds is running whenever one looks, and its registration outlives each crash. So
# one that was restarted has to stay up for twice a registration's lifetime before it counts.
SETTLED_SECONDS = 30.0
# The state of an instance that was restarted a moment ago; it may be settled at a later look.
_RESTARTED = "restarted"


@dataclass(frozen=True)
class Row:
    """One line of the table: an instance, or something about the fleet, and its verdict."""

    service: str
    instance: str
    host: str
    sha: str = ""
    image: str = ""
    container_id: str = ""
    started: str = ""
    state: str = ""
    verdict: str = verdicts.OK
    found: str = ""
    remedy: str = ""

    def to_dict(self) -> dict[str, str]:
        """As a documented return value."""
        return {name: str(getattr(self, name)) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class Scene:
    """Everything known of one host at one moment.

    :param hosts: all hosts of the fleet; a registration from any other is an extra. None to leave those to
        another host's proof.
    :param malformed: index members that are no registrations, each with the reason.
    :param now: by the host's clock, as the times at which the engine started its containers.
    """

    host: str
    project: str
    wanted: Mapping[str, Wanted]
    containers: Sequence[Container]
    registrations: Sequence[Registration]
    hosts: Optional[Sequence[str]] = None
    malformed: Sequence[str] = field(default=())
    now: datetime = field(default_factory=lambda: datetime.now(timezone.utc))


def prove(scene: Scene) -> list[Row]:
    """Judge one host.

    :returns: a row per instance that is there or should be, and per registration that stands for none.
    """
    known = _by_container(scene.registrations)
    rows: list[Row] = []
    for service in sorted(scene.wanted):
        own = [container for container in scene.containers if _is_instance(scene, container, service)]
        rows += _service_rows(scene, scene.wanted[service], own, known)
    for container in scene.containers:
        if not any(_is_instance(scene, container, service) for service in scene.wanted):
            rows.append(_extra(scene, container, known))
    present = {container.id for container in scene.containers if container.status == "running"}
    rows += [
        _orphan(scene, registration) for registration in scene.registrations if _is_orphan(scene, registration, present)
    ]
    rows += _duplicates(scene, known)
    remedy = "find out who writes to the fleet's keys in Redis, and remove the key"
    rows += [
        Row("-", "registration", scene.host, verdict=verdicts.EXTRA, found=text, remedy=remedy)
        for text in scene.malformed
    ]
    return rows


def is_proved(rows: Iterable[Row]) -> bool:
    """Whether every row is fine, and there is at least one."""
    listed = list(rows)
    return bool(listed) and all(row.verdict == verdicts.OK for row in listed)


def may_pass(rows: Iterable[Row]) -> bool:
    """Whether what is wrong may pass by itself, so that waiting makes sense."""
    return all(
        row.verdict == verdicts.OK
        or row.verdict in verdicts.PASSING
        or (row.verdict == verdicts.CRASHING and row.state == _RESTARTED)
        or (row.verdict == verdicts.EXTRA and not row.container_id and row.state == "expiring")
        for row in rows
    )


def _is_instance(scene: Scene, container: Container, service: str) -> bool:
    return container.project == scene.project and container.service == service and not container.one_off


def _service_rows(
    scene: Scene,
    wanted: Wanted,
    own: Sequence[Container],
    known: Mapping[str, Sequence[Registration]],
) -> list[Row]:
    rows = [_instance(scene, wanted, container, known.get(container.id, ())) for container in own]
    surplus = len(own) - wanted.replicas
    for index in range(surplus):
        place = len(rows) - 1 - index
        if rows[place].verdict == verdicts.OK:
            rows[place] = _judged(
                rows[place],
                Problem(
                    verdicts.EXTRA,
                    f"{len(own)} instances, {wanted.replicas} wanted",
                    f"docker rm -f {rows[place].instance}; or deploy again",
                ),
            )
    for number in range(-surplus):
        rows.append(
            Row(
                wanted.service,
                f"{wanted.service} ({len(own) + number + 1} of {wanted.replicas})",
                scene.host,
                verdict=verdicts.MISSING,
                found=f"{len(own)} of {wanted.replicas} instances",
                remedy="deploy again: ansible-playbook playbooks/deploy-workers.yml",
            )
        )
    return rows


def _instance(scene: Scene, wanted: Wanted, container: Container, registrations: Sequence[Registration]) -> Row:
    registration = registrations[0] if registrations else None
    row = _row(scene, container, registration)
    problem = container_problem(container, wanted)
    if problem is not None:
        return _judged(row, problem)
    problem = _registration_problem(scene, wanted, container, registration)
    # Silence or a state of its own may come of the restart; registered as something else it is wrong either way.
    restarted = _restarted(scene, container) if problem is None or problem.verdict in verdicts.PASSING else None
    return _judged(replace(row, state=_RESTARTED), restarted) if restarted else _judged(row, problem)


def _restarted(scene: Scene, container: Container) -> Optional[Problem]:
    """Of the proof only: the planner must not recreate a worker because it was restarted a moment ago."""
    seconds = uptime(container, scene.now)
    if not container.restart_count or seconds >= SETTLED_SECONDS:
        return None
    times = "once" if container.restart_count == 1 else f"{container.restart_count} times"
    return Problem(
        verdicts.CRASHING,
        f"restarted {times}, last time {seconds:.0f} s ago",
        f"read its log: docker logs --tail 50 {container.name}",
    )


def _registration_problem(
    scene: Scene,
    wanted: Wanted,
    container: Container,
    registration: Optional[Registration],
) -> Optional[Problem]:
    if registration is None:
        return Problem(
            verdicts.UNREGISTERED,
            "runs, but no live registration in Redis",
            f"read its log: docker logs --tail 50 {container.name}; check that it reaches Redis",
        )
    if registration.git_sha != wanted.sha or registration.release_id != wanted.release_id:
        return Problem(
            verdicts.STALE,
            f"registered {registration.git_sha[:7] or 'no SHA'} ({registration.release_id or 'no release'})",
            f"deploy again: ansible-playbook playbooks/deploy-workers.yml -e worker_services={wanted.service}",
        )
    if registration.problems:
        return Problem(verdicts.MISMATCH, "; ".join(registration.problems), "find out who writes this registration")
    if (registration.service, registration.host) != (wanted.service, scene.host):
        return Problem(
            verdicts.MISMATCH,
            f"registered as {registration.service} on {registration.host}",
            "find out who writes this registration",
        )
    state = {"starting": verdicts.STARTING, "draining": verdicts.DRAINING, "fenced": verdicts.FENCED}.get(
        registration.state
    )
    if state == verdicts.FENCED:
        return Problem(
            state, "stopped taking jobs: its release isn't allowed", "deploy again, or roll back to its release"
        )
    log = f"read its log: docker logs --tail 50 {container.name}"
    return Problem(state, f"is {registration.state}", log) if state else None


def _row(scene: Scene, container: Container, registration: Optional[Registration]) -> Row:
    sha = (
        registration.git_sha
        if registration and registration.git_sha
        else (container.image.sha if container.image else "")
    )
    return Row(
        service=container.service or "-",
        instance=container.name,
        host=scene.host,
        sha=sha,
        image=container.image_id,
        container_id=container.id,
        started=container.started_at,
        state=registration.state if registration else container.status,
    )


def _judged(row: Row, problem: Optional[Problem]) -> Row:
    if problem is None:
        return row
    return replace(row, verdict=problem.verdict, found=problem.found, remedy=problem.remedy)


def _extra(scene: Scene, container: Container, known: Mapping[str, Sequence[Registration]]) -> Row:
    origin = (
        f"project {container.project}"
        if container.project and container.project != scene.project
        else "no service that is placed here"
    )
    sha = container.image.sha[:7] if container.image and container.image.sha else "an unstamped image"
    registrations = known.get(container.id, ())
    return _judged(
        _row(scene, container, registrations[0] if registrations else None),
        Problem(
            verdicts.EXTRA,
            f"{container.status} container of the fleet ({origin}, {sha})",
            f"docker rm -f {container.name}; or deploy with -e worker_prune=true",
        ),
    )


def _is_orphan(scene: Scene, registration: Registration, present: set[str]) -> bool:
    if registration.host == scene.host or (not registration.host and scene.hosts is not None):
        return registration.container_id not in present
    return scene.hosts is not None and registration.host not in scene.hosts


def _orphan(scene: Scene, registration: Registration) -> Row:
    expires = registration.ttl_ms >= 0
    elsewhere = registration.host != scene.host
    wait = (
        f"it expires in {registration.ttl_ms / 1000:.0f} s unless something renews it"
        if expires
        else "it never expires: remove the key"
    )
    return Row(
        registration.service,
        registration.member,
        registration.host or "unknown",
        sha=registration.git_sha,
        started=registration.started_at,
        state="expiring" if expires else registration.state,
        verdict=verdicts.EXTRA if elsewhere or not expires else verdicts.DEAD,
        found=f"registered from {registration.host or 'an unknown host'}, which isn't the fleet's"
        if elsewhere
        else "registered, but no such container runs here",
        remedy=f"find that worker and stop it; {wait}" if elsewhere else wait,
    )


def _duplicates(scene: Scene, known: Mapping[str, Sequence[Registration]]) -> list[Row]:
    return [
        Row(
            extra.service, extra.member, scene.host, sha=extra.git_sha, started=extra.started_at, state=extra.state,
            verdict=verdicts.EXTRA, found="a second registration of the same container",
            remedy="find out who writes this registration",
        )
        for container in scene.containers
        for extra in known.get(container.id, ())[1:]
    ]


def _by_container(registrations: Iterable[Registration]) -> dict[str, list[Registration]]:
    found: dict[str, list[Registration]] = {}
    for registration in sorted(registrations, key=lambda one: bool(one.problems)):
        if registration.container_id:
            found.setdefault(registration.container_id, []).append(registration)
    return found
