# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The containers of one fleet on one host, as the engine describes them, and which containers those are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Optional

from .engine import Engine
from .names import (
    LABEL_COMPOSE_NUMBER, LABEL_COMPOSE_PROJECT, LABEL_COMPOSE_SERVICE, LABEL_FLEET, LABEL_RELEASE, LABEL_REVISION, LABEL_SPEC,
    compose_project)

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
    """One container. ``changes`` are the paths that differ from its image; ``mounts`` the destinations of its mounts."""

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
    mounts: tuple[str, ...]
    image: Optional[ImageFacts]
    changes: tuple[str, ...] = ()

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
        text = self.labels.get(LABEL_COMPOSE_NUMBER, "")
        return int(text) if text.isascii() and text.isdigit() else 0

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
        prefix, _, rest = self.name.partition("_")
        return bool(rest) and len(prefix) == 12 and all(letter in "0123456789abcdef" for letter in prefix)

    @property
    def identity(self) -> tuple[str, str, str]:
        """What must not move between two looks for them to be one snapshot."""
        return (self.id, self.status, self.started_at)


def fleet_containers(engine: Engine, fleet: str, repositories: Iterable[str], with_changes: bool = True) -> list[Container]:
    """All containers of a fleet on this engine, running or not, by name.

    A container is the fleet's when its fleet label or its compose project says so; one without a fleet label of its own
    (started by hand, or from before) when its image is of one of the fleet's repositories.

    :param with_changes: also ask what differs from the image (``docker diff``); the dearest of the questions.
    :raises DriftguardError: the engine doesn't answer.
    """
    own_images = _images_of(engine, set(repositories))
    images: dict[str, Optional[ImageFacts]] = {}
    found = []
    for row in engine.container_rows():
        if not is_fleets(row, fleet, own_images, set(repositories)):
            continue
        facts = engine.container(str(row["Id"]))
        if facts is None:
            continue
        image_id = str(facts["Image"])
        if image_id not in images:
            images[image_id] = image_facts(engine.image(image_id))
        running = facts["State"]["Status"] == RUNNING
        changes = tuple(path for path, _kind in engine.changes(str(row["Id"]))) if with_changes and running else ()
        found.append(container_of(facts, images[image_id], changes))
    return sorted(found, key=lambda container: (container.service, container.number, container.name))


def is_fleets(row: Mapping[str, Any], fleet: str, own_images: set[str], repositories: set[str]) -> bool:
    """Whether a row of the engine's container list belongs to a fleet."""
    labels = row.get("Labels") or {}
    if labels.get(LABEL_FLEET):
        return bool(labels[LABEL_FLEET] == fleet)
    if labels.get(LABEL_COMPOSE_PROJECT) == compose_project(fleet):
        return True
    return row.get("ImageID") in own_images or _repository(str(row.get("Image", ""))) in repositories


def container_of(facts: Mapping[str, Any], image: Optional[ImageFacts], changes: tuple[str, ...] = ()) -> Container:
    """A container from ``docker inspect``."""
    state, config, host = facts["State"], facts["Config"], facts.get("HostConfig") or {}
    return Container(
        id=str(facts["Id"]), name=str(facts["Name"]).lstrip("/"), image_id=str(facts["Image"]),
        image_reference=str(config.get("Image") or ""), labels=dict(config.get("Labels") or {}),
        status="restarting" if state.get("Restarting") else str(state["Status"]),
        health=str((state.get("Health") or {}).get("Status") or "none"), started_at=str(state.get("StartedAt") or ""),
        restart_count=int(facts.get("RestartCount") or 0), exit_code=int(state.get("ExitCode") or 0),
        oom_killed=bool(state.get("OOMKilled")), restart_policy=str((host.get("RestartPolicy") or {}).get("Name") or "no"),
        memory=int(host.get("Memory") or 0), stop_timeout=int(config.get("StopTimeout") or ENGINE_STOP_TIMEOUT),
        healthcheck=tuple((config.get("Healthcheck") or {}).get("Test") or ()), environment=_environment(config.get("Env")),
        entrypoint=tuple(config.get("Entrypoint") or ()),
        mounts=tuple(str(mount["Destination"]) for mount in facts.get("Mounts") or ()) + tuple(host.get("Tmpfs") or ()),
        image=image, changes=changes)


def image_facts(image: Optional[Mapping[str, Any]]) -> Optional[ImageFacts]:
    """What the verdicts need of ``docker image inspect``; None for an image that is gone."""
    if image is None:
        return None
    config = image.get("Config") or {}
    labels = config.get("Labels") or {}
    return ImageFacts(
        id=str(image["Id"]), sha=str(labels.get(LABEL_REVISION) or ""), release_id=str(labels.get(LABEL_RELEASE) or ""),
        environment_sha=_environment(config.get("Env")).get("GIT_SHA", ""), working_dir=str(config.get("WorkingDir") or ""),
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
    head, _, tail = name.rpartition(":")
    # A colon before a slash is a registry's port.
    return head if head and "/" not in tail else name


def _environment(lines: Optional[Iterable[str]]) -> dict[str, str]:
    pairs = (line.partition("=") for line in lines or ())
    return {name: value for name, _, value in pairs}
