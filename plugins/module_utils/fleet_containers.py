# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The containers of one fleet on one host, as the engine describes them, and which containers those are."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, Iterable, Mapping, Optional

from .engine import Engine
from .names import (
    GUARD_MOUNT,
    LABEL_COMPOSE_NUMBER,
    LABEL_COMPOSE_PROJECT,
    LABEL_COMPOSE_SERVICE,
    LABEL_FLEET,
    LABEL_RELEASE,
    LABEL_REVISION,
    LABEL_SPEC,
    compose_project,
)
from .untrusted import digits

_HUB = "docker.io/"
_BARE_ID = re.compile(r"(?:sha256:[0-9a-f]{64}|[0-9a-f]{12,64})\Z")
ONE_OFF = "com.docker.compose.oneoff"
RUNNING = "running"
ENGINE_STOP_TIMEOUT = 10  # seconds the engine gives a container that names none (docker stop)


@dataclass(frozen=True)
class ImageFacts:
    """What an image says of itself on this engine."""

    id: str
    sha: str
    release_id: str
    environment_sha: str
    working_dir: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Container:
    """One container; ``changes``: paths that differ from its image, ``mounts``: the destinations of its mounts,
    ``guard``: the host's directory that is mounted as the guard, empty for none and for one that it may write;
    ``addresses``: where this host reaches it, on each of its networks.
    """

    id: str
    name: str
    image_id: str
    image_reference: str
    labels: Mapping[str, str]
    status: str
    health: str
    started_at: str
    restart_count: int
    exit_code: int
    oom_killed: bool
    restart_policy: str
    memory: int
    stop_timeout: int
    healthcheck: tuple[str, ...]
    environment: Mapping[str, str]
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    mounts: tuple[str, ...]
    guard: str
    image: Optional[ImageFacts]
    changes: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()

    @property
    def service(self) -> str:
        """Service by its compose label, empty for none."""
        return self.labels.get(LABEL_COMPOSE_SERVICE, "")

    @property
    def project(self) -> str:
        """Compose project, empty for none."""
        return self.labels.get(LABEL_COMPOSE_PROJECT, "")

    @property
    def number(self) -> int:
        """Replica number given by compose, 0 for none."""
        return digits(self.labels.get(LABEL_COMPOSE_NUMBER, "")) or 0

    @property
    def spec(self) -> str:
        """Hash of the rendered service it was made from."""
        return self.labels.get(LABEL_SPEC, "")

    @property
    def one_off(self) -> bool:
        """Whether ``docker compose run`` made it."""
        return self.labels.get(ONE_OFF) == "True"

    @property
    def half_made(self) -> bool:
        """Whether a compose that was killed in mid-recreate left it: named ``<12 hex>_<name>``."""
        prefix, _mark, rest = self.name.partition("_")
        return bool(rest) and len(prefix) == 12 and all(letter in "0123456789abcdef" for letter in prefix)

    @property
    def identity(self) -> tuple[str, str, str]:
        """What must not move between two looks for them to be one snapshot."""
        return (self.id, self.status, self.started_at)


def uptime(container: Container, now: Optional[datetime] = None) -> float:
    """Seconds since the engine started a container, by this host's clock; 0 for none or the future."""
    whole, _point, fraction = container.started_at.rstrip("Z").partition(".")
    try:
        # The engine gives nanoseconds, or fewer digits when the last ones are zeros.
        started = datetime.strptime(f"{whole}.{fraction[:6] or 0}", "%Y-%m-%dT%H:%M:%S.%f").replace(tzinfo=timezone.utc)
    except ValueError:
        return 0.0
    return max(0.0, ((now or datetime.now(timezone.utc)) - started).total_seconds())


def fleet_containers(
    engine: Engine, fleet: str, repositories: Iterable[str], with_changes: bool = True,
) -> list[Container]:
    """All containers of a fleet on this engine, running or not, by name.

    A container is the fleet's when its fleet label or its compose project says so; one without a fleet label of its own
    (started by hand, or from before) when its image is of one of the fleet's repositories, or was when it was started.

    :param with_changes: also ask what differs from the image (``docker diff``); the dearest of the questions.
    :raises DriftguardError: the engine doesn't answer.
    """
    own = {_repository(name) for name in repositories}
    own_images = _images_of(engine, own)
    images: dict[str, Optional[ImageFacts]] = {}
    found = []
    for row in engine.container_rows():
        ours = is_fleets(row, fleet, own_images, own)
        facts = engine.container(str(row["Id"])) if ours or _lost_its_name(row) else None
        if facts is None or not (ours or _repository(_started_from(facts)) in own):
            continue
        image_id = str(facts.get("Image") or "")
        if image_id not in images:
            images[image_id] = image_facts(engine.image(image_id)) if image_id else None
        container = container_of(facts, images[image_id])
        if with_changes and container.status == RUNNING:
            container = replace(container, changes=tuple(engine.changes(facts)))
        found.append(container)
    return sorted(found, key=lambda container: (container.service, container.number, container.name))


def is_fleets(row: Mapping[str, Any], fleet: str, own_images: set[str], repositories: set[str]) -> bool:
    """Whether a row of the engine's container list belongs to a fleet.

    What compose takes for the fleet's project is the fleet's, even if its image's label names another: compose would
    count it as an instance.
    """
    labels = row.get("Labels") or {}
    if labels.get(LABEL_COMPOSE_PROJECT) == compose_project(fleet):
        return True
    if labels.get(LABEL_FLEET):
        return bool(labels[LABEL_FLEET] == fleet)
    return row.get("ImageID") in own_images or _repository(str(row.get("Image") or "")) in repositories


def _lost_its_name(row: Mapping[str, Any]) -> bool:
    """Whether a container without a fleet label is listed by its image's id alone.

    So the engine lists one whose tag was moved or removed since it was started; only its own configuration still has
    the name.
    """
    return not (row.get("Labels") or {}).get(LABEL_FLEET) and bool(_BARE_ID.match(str(row.get("Image") or "")))


def _started_from(facts: Mapping[str, Any]) -> str:
    return str((facts.get("Config") or {}).get("Image") or "")


def container_of(facts: Mapping[str, Any], image: Optional[ImageFacts]) -> Container:
    """A container from ``docker inspect``; what an engine leaves out or gives as null counts as none."""
    state, config, host = (facts.get(part) or {} for part in ("State", "Config", "HostConfig"))
    mounts = [str(mount.get("Destination") or "") for mount in facts.get("Mounts") or ()]
    return Container(
        id=str(facts["Id"]), name=str(facts.get("Name") or facts["Id"]).lstrip("/"),
        image_id=str(facts.get("Image") or ""),
        image_reference=str(config.get("Image") or ""), labels=dict(config.get("Labels") or {}),
        status="restarting" if state.get("Restarting") else str(state.get("Status") or "unknown"),
        health=str((state.get("Health") or {}).get("Status") or "none"), started_at=str(state.get("StartedAt") or ""),
        restart_count=int(facts.get("RestartCount") or 0), exit_code=int(state.get("ExitCode") or 0),
        oom_killed=bool(state.get("OOMKilled")),
        restart_policy=str((host.get("RestartPolicy") or {}).get("Name") or "no"),
        memory=int(host.get("Memory") or 0), stop_timeout=int(config.get("StopTimeout") or ENGINE_STOP_TIMEOUT),
        healthcheck=tuple((config.get("Healthcheck") or {}).get("Test") or ()),
        environment=_environment(config.get("Env")),
        entrypoint=tuple(config.get("Entrypoint") or ()), command=tuple(config.get("Cmd") or ()),
        mounts=(*filter(None, mounts), *(host.get("Tmpfs") or ())), guard=_guard(facts.get("Mounts") or ()),
        image=image, addresses=_addresses(facts))


def _addresses(facts: Mapping[str, Any]) -> tuple[str, ...]:
    networks = (facts.get("NetworkSettings") or {}).get("Networks") or {}
    ends = [network or {} for _name, network in sorted(networks.items())]
    return tuple(str(end[key]) for key in ("IPAddress", "GlobalIPv6Address") for end in ends if end.get(key))


def _guard(mounts: Iterable[Mapping[str, Any]]) -> str:
    own = [mount for mount in mounts if mount.get("Destination") == GUARD_MOUNT]
    return str(own[-1].get("Source") or "") if own and own[-1].get("RW") is False else ""


def image_facts(image: Optional[Mapping[str, Any]]) -> Optional[ImageFacts]:
    """What the verdicts need of ``docker image inspect``; None for an image that is gone."""
    if image is None:
        return None
    config = image.get("Config") or {}
    labels = config.get("Labels") or {}
    return ImageFacts(
        id=str(image["Id"]), sha=str(labels.get(LABEL_REVISION) or ""), release_id=str(labels.get(LABEL_RELEASE) or ""),
        environment_sha=_environment(config.get("Env")).get("GIT_SHA", ""),
        working_dir=str(config.get("WorkingDir") or ""),
        command=tuple(config.get("Entrypoint") or ()) + tuple(config.get("Cmd") or ()))


def _images_of(engine: Engine, repositories: set[str]) -> set[str]:
    found = set()
    for row in engine.images(()):
        names = [*(row.get("RepoTags") or ()), *(row.get("RepoDigests") or ())]
        if any(_repository(name) in repositories for name in names):
            found.add(str(row["Id"]))
    return found


def _repository(reference: str) -> str:
    name = reference.split("@", 1)[0]
    head, _colon, tail = name.rpartition(":")
    # A colon before a slash is a registry's port.
    plain = head if head and "/" not in tail else name
    # The engine shows images of the public hub without its name.
    return plain[len(_HUB):] if plain.startswith(_HUB) else plain


def _environment(lines: Optional[Iterable[str]]) -> dict[str, str]:
    pairs = (line.partition("=") for line in lines or ())
    return {name: value for name, _sign, value in pairs}
