# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine that the model simulates behaves as the real one: the same operations, the same observations."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml
from ansible_collections.driftguard.workers.plugins.module_utils import rollout_run
from ansible_collections.driftguard.workers.plugins.module_utils.attendance import SafePoint
from ansible_collections.driftguard.workers.plugins.module_utils.engine import Engine
from ansible_collections.driftguard.workers.plugins.module_utils.fleet_containers import Container, container_of
from ansible_collections.driftguard.workers.plugins.module_utils.names import LABEL_COMPOSE_PROJECT
from model.engine import Badness, Clock, Image, SimEngine
from support.fleet import wait_for

CALM = "import signal, time; signal.signal(15, lambda *a: exit(0)); time.sleep(600)"
CRASH = "import time; time.sleep(1); exit(1)"
OWN = "io.driftguard.test"


class Place(Protocol):
    """An engine with compose, real or simulated."""

    engine: Any

    def compose(self, *words: str) -> None:
        """``docker compose`` on the test's file."""

    def until_restarted(self, service: str) -> None:
        """Wait until a service's instance was started again."""


class Real:
    def __init__(self, project: str, file: Path) -> None:
        self.engine, self._project, self._file = Engine.connect(), project, file

    def compose(self, *words: str) -> None:
        rollout_run.compose(self._project, self._file, words, "none", (), SafePoint())

    def until_restarted(self, service: str) -> None:
        wait_for(lambda: _one(self, self._project, service).restart_count, f"{service} to be restarted", 60)


class Simulated:
    def __init__(self, project: str, file: Path, reference: str) -> None:
        self._clock = Clock()
        calm = Image(reference, "sha256:1", "", "", Badness("crash", 1.0, service="crashing"))
        self.engine = SimEngine("here", self._clock, {reference: calm}, lambda _one: True)
        self.engine.local.add(calm.id)
        self._clock.moved = self.engine.settle
        self._project, self._file = project, file

    def compose(self, *words: str) -> None:
        found = self.engine.compose(["--project-name", self._project, "--file", str(self._file), *words])
        assert found is None, found

    def until_restarted(self, service: str) -> None:
        self._clock.move(1.5)


def _all(place: Place, project: str) -> list[Container]:
    ids = place.engine.container_ids([f"{LABEL_COMPOSE_PROJECT}={project}"])
    found = [container_of(place.engine.container(one), None) for one in ids]
    return sorted(found, key=lambda one: (one.service, one.number))


def _one(place: Place, project: str, service: str) -> Container:
    return next(one for one in _all(place, project) if one.service == service)


def _seen(place: Place, project: str) -> list[tuple[Any, ...]]:
    return [
        (one.name, one.service, one.number, one.status, one.restart_count > 0, one.restart_policy, one.memory,
         one.stop_timeout, one.entrypoint, one.command, one.mounts, one.guard, one.one_off, one.half_made,
         one.environment["OWN"], one.labels["io.driftguard.spec"])
        for one in _all(place, project) if one.service != "crashing"]


def _play(place: Place, project: str) -> Iterator[tuple[str, Any]]:
    """The operations of a rollout; yields what is seen after each."""
    up = ("up", "--detach", "--no-recreate", "--no-deps", "--pull", "never")
    place.compose("config", "--quiet")
    place.compose(*up, "calm", "other")
    yield "up", _seen(place, project)
    first = [one.id for one in _all(place, project)]
    place.compose(*up, "calm", "other")
    yield "up again", [one.id for one in _all(place, project)] == first
    gone = _one(place, project, "calm")
    place.engine.stop(gone.id, 5)
    yield "one stopped", _seen(place, project)
    place.engine.remove(gone.id)
    yield "one removed", (_seen(place, project), place.engine.container(gone.id))
    place.engine.remove(gone.id)
    place.compose(*up, "calm")
    yield "the missing one", (_seen(place, project), gone.id in [one.id for one in _all(place, project)])
    place.compose(*up, "--scale", "calm=4", "calm")
    yield "more of them", _seen(place, project)
    place.compose(*up, "crashing")
    place.until_restarted("crashing")
    crashing = _one(place, project, "crashing")
    yield "restarted", (crashing.restart_count > 0, crashing.status in ("running", "restarting"))
    end = place.engine.last_end(crashing.id, 3600)
    yield "its last exit status", end and end.status
    yield "networks", len(place.engine.network_names([f"{LABEL_COMPOSE_PROJECT}={project}"]))
    for one in _all(place, project):
        place.engine.stop(one.id, 5)
        place.engine.remove(one.id)
    place.compose("down")
    yield "nothing", (_seen(place, project), len(place.engine.network_names([f"{LABEL_COMPOSE_PROJECT}={project}"])))


def _service(reference: str, guard: Path, program: str, replicas: int) -> dict[str, Any]:
    return {
        "image": reference, "pull_policy": "never",
        "entrypoint": ["/usr/bin/python3", "-IS"], "command": ["-c", program],
        "environment": {"OWN": "value"}, "restart": "always", "init": True, "stop_grace_period": "7s",
        "volumes": [{"type": "bind", "source": str(guard), "target": "/opt/driftguard/guard", "read_only": True}],
        "deploy": {"resources": {"limits": {"memory": "64m"}}, "replicas": replicas},
        "labels": {OWN: "model", "io.driftguard.spec": "s"}}


@pytest.fixture
def project() -> Iterator[str]:
    name = f"model{uuid.uuid4().hex[:8]}-workers"
    yield name
    engine = Engine.connect()
    for one in engine.container_ids([f"{LABEL_COMPOSE_PROJECT}={name}"]):
        engine.remove(one)
    rollout_run.remove_project(name, (), SafePoint())


def test_the_simulated_engine_is_like_the_real_one(tmp_path: Path, project: str, base_reference: str) -> None:
    guard = tmp_path / "guard"
    guard.mkdir()
    services = {
        "calm": _service(base_reference, guard, CALM, 2), "other": _service(base_reference, guard, CALM, 1),
        "crashing": _service(base_reference, guard, CRASH, 1)}
    file = tmp_path / "compose.yml"
    file.write_text(yaml.safe_dump(
        {"name": project, "services": services, "networks": {"default": {"labels": {OWN: "model"}}}}))
    simulated, real = Simulated(project, file, base_reference), Real(project, file)
    for (what, model), (_what, world) in zip(_play(simulated, project), _play(real, project), strict=True):
        assert model == world, what
