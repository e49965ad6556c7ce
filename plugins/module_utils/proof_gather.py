# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks at a host for the proof: containers, registrations, containers again, until the three are one snapshot."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Callable, Iterable, Mapping, Optional, Sequence

from . import proof
from .engine import Engine
from .fleet_containers import Container, fleet_containers, image_facts
from .fleet_spec import Service
from .guard_command import NODE, entrypoint_of
from .names import compose_project, repository_of
from .redis_gateway import RedisGateway
from .registrations import Snapshot
from .release_info import Release, VariantImage
from .verdicts import UNKNOWN, Wanted

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Place:
    """Where the proof looks.

    :param host: the inventory's name of the host.
    :param hosts: all hosts of the fleet, None when this host's proof isn't the one that looks for strangers.
    """

    engine: Engine
    redis: RedisGateway
    fleet: str
    host: str
    hosts: Optional[Sequence[str]]
    repositories: frozenset[str]


def repositories_of(fleet: str, services: Mapping[str, Service], release: Optional[Release]) -> frozenset[str]:
    """Repositories whose images count as the fleet's, also in containers that somebody started by hand."""
    variants = {service.variant for service in services.values()}
    named = {image.repository for image in release.variants.values()} if release else set()
    return frozenset(named | {repository_of(f"{fleet}-worker", variant) for variant in variants | {"base"}})


def wanted_services(
    engine: Engine, services: Mapping[str, Service], release: Optional[Release], sha: str, guard: str = "",
    with_tags: bool = True,
) -> dict[str, Wanted]:
    """What each service's instances should be on this engine.

    :param release: the release of the revision this host should run; None, or another commit's, when there is none for
        sha.
    :param guard: directory of the fleet's guards on this host.
    :param with_tags: also look whether somebody moved the release's tags.
    """
    fits = release if release is not None and release.sha == sha else None
    variants = {service.variant for service in services.values()}
    images = {name: fits.variants.get(name) if fits else None for name in variants}
    ids = {name: _engine_id(engine, image) for name, image in images.items()}
    moved = {name: _moved_tag(engine, image, ids[name], sha) if with_tags else "" for name, image in images.items()}
    return {
        name: Wanted(
            name, service.replicas, service.variant, ids[service.variant], sha, fits.release_id if fits else "",
            retagged=moved[service.variant], guard=guard, node=service.guard == NODE,
            entrypoint=entrypoint_of(fits, service.variant, service.guard))
        for name, service in services.items()}


def _engine_id(engine: Engine, image: Optional[VariantImage]) -> Optional[str]:
    facts = engine.image(image.image) if image else None
    return str(facts["Id"]) if facts else None


def _moved_tag(engine: Engine, image: Optional[VariantImage], own_id: Optional[str], sha: str) -> str:
    """Which tag of a release names another commit's image by now.

    The same commit built anew, with another base say, takes its tags over; ``latest`` names no commit.
    """
    for tag in image.tags if image and own_id else ():
        facts = image_facts(engine.image(tag)) if not tag.endswith(":latest") else None
        if facts is not None and facts.id != own_id and (facts.sha, facts.environment_sha) != (sha, sha):
            return f"tag {tag} was moved to another image ({facts.id[7:19]})"
    return ""


def look(place: Place) -> tuple[list[Container], Snapshot, bool]:
    """One look: containers, the registrations, and whether the containers were the same before and after."""
    before = fleet_containers(place.engine, place.fleet, place.repositories)
    snapshot = place.redis.registrations(place.fleet)
    after = fleet_containers(place.engine, place.fleet, place.repositories, with_changes=False)
    return before, snapshot, [one.identity for one in before] == [one.identity for one in after]


def prove_host(
    place: Place, wanted: Mapping[str, Wanted], timeout: float, safe_point: Callable[[], None] = lambda: None,
) -> list[proof.Row]:
    """Prove one host, waiting for what may still pass by itself.

    :param safe_point: called between two looks; what it raises ends the proof.
    :param timeout: seconds to wait for late registrations and for those of stopped workers to expire.
    :returns: the rows of the last look.
    """
    deadline = time.monotonic() + timeout
    while True:
        rows, consistent = _prove_once(place, wanted)
        # What was seen while containers came or went is neither a proof nor a verdict.
        final = consistent and (proof.is_proved(rows) or not proof.may_pass(rows))
        if final or time.monotonic() >= deadline:
            return rows
        safe_point()
        time.sleep(POLL_SECONDS)  # registrations expire and appear by heartbeats; Redis announces neither by default


def _prove_once(place: Place, wanted: Mapping[str, Wanted]) -> tuple[list[proof.Row], bool]:
    now = datetime.now(timezone.utc)  # before the look: a slow one must not make a container older than it was seen
    containers, snapshot, consistent = look(place)
    rows = proof.prove(proof.Scene(
        host=place.host, project=compose_project(place.fleet), wanted=wanted, containers=containers,
        registrations=snapshot.registrations, hosts=place.hosts,
        malformed=snapshot.malformed if place.hosts is not None else (), now=now))
    return (rows if consistent else [_unproved(row) for row in rows]), consistent


def _unproved(row: proof.Row) -> proof.Row:
    if row.verdict != "OK":
        return row
    return replace(
        row, verdict=UNKNOWN, found="containers came or went while they were being looked at",
        remedy="wait for the other deployment to end, then verify again")


def failing(rows: Iterable[proof.Row]) -> list[proof.Row]:
    """The rows that aren't fine."""
    return [row for row in rows if row.verdict != "OK"]
