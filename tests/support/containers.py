# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers for tests: as ``docker inspect`` gives them, as the modules read them, and a small engine with some."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, Iterable, Mapping, Optional, Sequence

from ansible_collections.driftguard.workers.plugins.module_utils.engine import End
from ansible_collections.driftguard.workers.plugins.module_utils.fleet_containers import (
    Container,
    container_of,
    image_facts,
)
from ansible_collections.driftguard.workers.plugins.module_utils.registrations import (
    FIELDS,
    Registration,
    parse_registration,
)
from ansible_collections.driftguard.workers.plugins.module_utils.verdicts import Wanted

__all__ = [
    "CONTAINER_ID", "IMAGE_ID", "PROJECT", "RELEASE_ID", "SHA", "FakeEngine", "container", "image", "inspected",
    "registration", "wanted",
]

SHA = "0123456789abcdef0123456789abcdef01234567"
RELEASE_ID = "0123456789ab.89abcdef0123"
IMAGE_ID = "sha256:" + "a" * 64
CONTAINER_ID = "c" * 64
GUARD = "/opt/driftguard/demo/guard"
PROJECT = "demo-workers"


def image(image_id: str = IMAGE_ID, sha: str = SHA, release_id: str = RELEASE_ID, **config: Any) -> dict[str, Any]:
    """``docker image inspect`` of a stamped image.

    :param config: keys of its ``Config`` to replace.
    """
    labels = {
        "org.opencontainers.image.revision": sha, "io.driftguard.release": release_id, "io.driftguard.variant": "base"}
    standard = {
        "Env": [f"GIT_SHA={sha}", "PATH=/usr/bin:/bin"], "WorkingDir": "/work", "Entrypoint": None,
        "Cmd": ["python", "-m", "worker"], "Labels": labels}
    return {"Id": image_id, "Config": {**standard, **config}}


def inspected(
    container_id: str = CONTAINER_ID, service: str = "extractor", number: int = 1, status: str = "running",
    sha: str = SHA, image_id: str = IMAGE_ID, project: str = PROJECT, labels: Optional[Mapping[str, str]] = None,
) -> dict[str, Any]:
    """``docker inspect`` of an instance as worker_rollout makes it."""
    return copy.deepcopy({
        "Id": container_id, "Name": f"/{project}-{service}-{number}", "Image": image_id, "RestartCount": 0,
        "State": {
            "Status": status, "Restarting": status == "restarting", "StartedAt": "2026-01-02T03:04:05.678901234Z",
            "ExitCode": 0, "OOMKilled": False, "Health": {"Status": "healthy"}},
        "Config": {
            "Image": image_id, "Env": [f"GIT_SHA={sha}", "PATH=/usr/bin:/bin", "WORKER_TYPE=extractor"],
            "Entrypoint": ["/usr/bin/python3", "-IS", "/opt/driftguard/guard/version_guard.py", "--"],
            "Cmd": ["python", "-m", "worker"], "Healthcheck": {"Test": ["CMD", "true"]}, "StopTimeout": 30,
            "Labels": {
                "com.docker.compose.project": project, "com.docker.compose.service": service,
                "com.docker.compose.container-number": str(number), "com.docker.compose.oneoff": "False",
                "io.driftguard.fleet": "demo", "io.driftguard.spec": "spec1", **(labels or {})}},
        "HostConfig": {
            "RestartPolicy": {"Name": "always"}, "Memory": 2**26, "Tmpfs": {"/tmp": ""}},
        "Mounts": [{"Type": "bind", "Source": GUARD, "Destination": "/opt/driftguard/guard", "RW": False}],
    })


def inspected_below(root: Path) -> dict[str, Any]:
    """The same on a host whose fleets are below another directory."""
    facts = inspected()
    facts["Mounts"][0]["Source"] = str(root / "demo" / "guard")
    return facts


def container(container_id: str = CONTAINER_ID, **changes: Any) -> Container:
    """A right instance of the service extractor.

    :param changes: fields of :class:`Container` to replace, or arguments of :func:`inspected`.
    """
    named = {name: changes.pop(name) for name in ("service", "number", "project", "labels") if name in changes}
    made = container_of(inspected(container_id, **named), image_facts(image()))
    return replace(made, **changes)


def registration(
    container_id: str = CONTAINER_ID, ttl_ms: int = 9000, instance: str = "", **changes: Any,
) -> Registration:
    """What the instance in a container registers, as it is read from Redis.

    :param changes: fields by their names in Redis.
    """
    values = {
        "gitSha": SHA, "buildDate": "2026-01-02T03:04:05Z", "startedAt": "2026-01-02T03:04:05Z", "pid": "1",
        "host": "host1",
        "service": "extractor", "containerId": container_id, "releaseId": RELEASE_ID, "state": "running",
        "heartbeatAt": "2026-01-02T03:04:05Z", **changes}
    return parse_registration(
        changes.get("service") or "extractor", instance or container_id[:12], [values[name] for name in FIELDS], ttl_ms)


def wanted(service: str = "extractor", replicas: int = 1, **changes: Any) -> Wanted:
    """What :func:`container` is."""
    entrypoint = ("/usr/bin/python3", "-IS", "/opt/driftguard/guard/version_guard.py", "--")
    made = Wanted(
        service, replicas, "base", IMAGE_ID, SHA, RELEASE_ID, memory=2**26, spec="spec1", guard=GUARD,
        entrypoint=entrypoint)
    return replace(made, **changes)


class FakeEngine:
    """The engine's answers about containers and images that a test gave it; counts what is asked.

    :param containers: as ``docker inspect`` gives them.
    :param images: as ``docker image inspect`` gives them, found by id and by the names in ``RepoTags``.
    :param changes: container id → paths that differ.

    ``listed_as``: container id → its image in the list, where that is another than in its configuration.
    """

    def __init__(
        self, containers: Iterable[Mapping[str, Any]] = (), images: Iterable[Mapping[str, Any]] = (),
        changes: Optional[Mapping[str, Iterable[str]]] = None, version: str = "20.10.24",
    ) -> None:
        self.containers = {str(facts["Id"]): facts for facts in containers}
        self.image_list = list(images)
        self.differing = dict(changes or {})
        self.asked: list[tuple[str, str]] = []
        self.said: dict[str, list[str]] = {}
        self.version = version
        self.gone_after_listing: set[str] = set()
        self.ended: dict[str, End] = {}
        self.stopped: list[tuple[str, int]] = []
        self.listed_as: dict[str, str] = {}
        self.networks: set[str] = set()
        self.own_networks: set[str] = set()
        self.probes: dict[str, Any] = {}

    @property
    def has_start_interval(self) -> bool:
        """As the real one."""
        return int(self.version.split(".", 1)[0]) >= 25

    def container_rows(self) -> list[dict[str, Any]]:
        """The list, as the engine's is: labels, image's name and id."""
        return [
            {"Id": key, "Image": self.listed_as.get(key, (facts.get("Config") or {}).get("Image")),
             "ImageID": facts.get("Image"), "Labels": (facts.get("Config") or {}).get("Labels")}
            for key, facts in self.containers.items()]

    def container(self, container_id: str) -> Optional[dict[str, Any]]:
        """One container, None for one that is gone."""
        if container_id in self.gone_after_listing:
            return None
        found = self.containers.get(container_id)
        return dict(found) if found is not None else None

    def changes(self, facts: dict[str, Any]) -> list[str]:
        """What differs."""
        self.asked.append(("changes", str(facts["Id"])))
        return list(self.differing.get(str(facts["Id"]), ()))

    def last_end(self, container_id: str, seconds: int) -> Optional[End]:
        """How it last ended."""
        return self.ended.get(container_id)

    def image(self, reference: str) -> Optional[dict[str, Any]]:
        """One image."""
        self.asked.append(("image", reference))
        for facts in self.image_list:
            if reference in (facts["Id"], *(facts.get("RepoTags") or ()), *(facts.get("RepoDigests") or ())):
                return dict(facts)
        return None

    def images(self, _labels: Iterable[str]) -> list[dict[str, Any]]:
        """All images."""
        return [dict(facts) for facts in self.image_list]

    def logs(self, container_id: str, lines: int, end: Optional[End] = None) -> list[str]:
        """The last lines of a container; a line is said each nanosecond."""
        return self.said.get(container_id, [])[: None if end is None else end.at][-lines:]

    def container_ids(self, labels: Iterable[str] = ()) -> list[str]:
        """Ids of the containers that carry all of the labels."""
        return [
            row["Id"] for row in self.container_rows()
            if all((row["Labels"] or {}).get(label.split("=")[0]) == label.split("=")[1] for label in labels)]

    def volume_names(self) -> set[str]:
        """Names of the volumes that are there."""
        return {"shop_data"}

    def network_names(self, labels: Iterable[str] = ()) -> set[str]:
        """Names of the networks; those with labels are compose's own."""
        return self.own_networks if list(labels) else self.networks

    def stop(self, container_id: str, grace: int) -> None:
        """Note that a container was stopped."""
        self.stopped.append((container_id, grace))

    def remove(self, container_id: str) -> None:
        """Remove a container."""
        self.containers.pop(container_id)

    def execute(self, container_id: str, command: Sequence[str]) -> tuple[int, str]:
        """A container's exit status for a command; a test gives a number, or something to call."""
        self.asked.append((" ".join(command), container_id))
        status = self.probes.get(container_id, 0)
        return (status() if callable(status) else status), ""
