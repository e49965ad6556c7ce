# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replacing start-first, over an engine that a test gives: what goes when, and what is taken back when it fails."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Optional

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils import rollout_change, rollout_proof, rollout_wait
from ansible_collections.driftguard.workers.plugins.module_utils.attendance import SafePoint
from ansible_collections.driftguard.workers.plugins.module_utils.bake_limits import Limits
from ansible_collections.driftguard.workers.plugins.module_utils.engine import Engine
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.fleet_containers import Container, fleet_containers
from ansible_collections.driftguard.workers.plugins.module_utils.rollout_change import Change, Place
from ansible_collections.driftguard.workers.plugins.module_utils.rollout_plan import Plan, plan_rollout
from ansible_collections.driftguard.workers.plugins.module_utils.rollout_proof import NewInstances
from support.containers import PROJECT, FakeEngine, image, inspected, registration, wanted

OLD, NEW, OTHER = "a" * 64, "b" * 64, "d" * 64
SERVICES = {"extractor": {"grace": 30, "order": "start-first"}}
OVERTAKEN = DriftguardError("fence", "number 7", "number 8", "start a new deploy")


class Host:
    """One old instance, which a compose that a test stands for puts a new one next to."""

    def __init__(self, note: Path) -> None:
        self.note = note
        self.engine = FakeEngine([inspected(OLD)], [image()], version="25.0.0")
        self.engine.containers[OLD] = self.instance(OLD, 1, memory=1)
        self.real: Engine = self.engine  # type: ignore[assignment]
        self.points = 0
        self.at_point: Callable[[int], None] = lambda _point: None
        self.comes: list[dict[str, Any]] = [self.instance(NEW, 2)]
        self.times: dict[str, float] = {}
        # What is registered at each look at Redis, and from the last one on.
        self.registered: list[list[Any]] = [[registration(OLD, gitSha="f" * 40), registration(NEW)]]
        self.asked = 0

    @staticmethod
    def instance(key: str, number: int, memory: int = 2**26, health: str = "healthy") -> dict[str, Any]:
        facts = inspected(key, number=number)
        facts["HostConfig"]["Memory"] = memory
        facts["State"]["Health"]["Status"] = health
        return facts

    def compose(self, *_: Any) -> None:
        self.engine.containers.update({one["Id"]: one for one in self.comes})

    def look(self) -> list[Container]:
        return fleet_containers(self.real, "demo", ())

    def plan_for(self, containers: Any) -> Plan:
        return plan_rollout(PROJECT, {"extractor": wanted()}, containers, start_first=["extractor"])

    def safe_point(self) -> None:
        self.points += 1
        self.at_point(self.points)

    def registrations(self, _fleet: str) -> Any:
        self.asked += 1
        return SimpleNamespace(registrations=self.registered[min(self.asked, len(self.registered)) - 1])

    def make(self, limits: Optional[Limits] = None) -> Change:
        redis: Any = SimpleNamespace(registrations=self.registrations)
        place = Place(self.real, "demo", "host1", PROJECT, self.note, SafePoint([self.safe_point]), -1, self.times)
        change = Change(
            place, self.plan_for(self.look()), SERVICES, {"extractor": wanted()}, self.look, self.plan_for,
            NewInstances({"timeout": 0.2}, "demo", "host1", PROJECT, self.safe_point, lambda _options: redis))
        change.make(Path("/none"), 0.3, 0.0, limits)
        return change

    def fails(self, match: str, **options: Any) -> None:
        with pytest.raises(DriftguardError, match=match):
            self.make(**options)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path / "leaving")
    monkeypatch.setattr(rollout_wait, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(rollout_proof, "POLL_SECONDS", 0.01)

    def carry_out(engine: Any, plan: Plan, *_: Any) -> None:
        for container in plan.leaving():
            engine.remove(container.id)
        if plan.services_to_start():
            made.compose()

    monkeypatch.setattr(rollout_change, "carry_out", carry_out)
    return made


def test_the_old_one_goes_once_the_new_one_stands(host: Host) -> None:
    assert host.make().baked is None
    assert (sorted(host.engine.containers), host.engine.stopped) == ([NEW], [(OLD, 30)])
    assert set(host.times) == {"recreate", "stabilize", "prove", "drain"}
    assert not host.note.exists()


@pytest.mark.parametrize("health", ["starting", "unhealthy"])
def test_a_new_one_that_fails_is_taken_back(host: Host, health: str) -> None:
    host.comes = [host.instance(NEW, 2, health=health)]
    host.fails("healthy")
    assert (sorted(host.engine.containers), host.engine.stopped) == ([OLD], [(NEW, 30)])
    assert not host.note.exists()


def test_one_that_fails_while_it_bakes_is_taken_back(host: Host) -> None:
    def happens(point: int) -> None:
        if point == 3:
            host.engine.containers[NEW]["State"].update({"Status": "exited", "ExitCode": 3})

    host.at_point = happens
    host.fails("exited with exit status 3", limits=Limits(60.0))
    assert sorted(host.engine.containers) == [OLD]


def test_what_isnt_the_revisions_doesnt_replace_the_old_one(host: Host) -> None:
    """It is healthy, but somebody changed it meanwhile."""
    host.comes = [host.instance(NEW, 2, memory=5)]
    host.fails("memory limit is 5 bytes")
    assert (sorted(host.engine.containers), host.engine.stopped) == ([OLD], [(NEW, 30)])


@pytest.mark.parametrize(("registered", "match"), [
    ([[]], "UNREGISTERED"), ([[registration(OLD)]], "UNREGISTERED"), ([[registration(NEW, gitSha="e" * 40)]], "STALE"),
    ([[registration(NEW, state="fenced")]], "FENCED"), ([[registration(NEW, host="host2")]], "MISMATCH"),
    ([[registration(NEW, state="starting")]], "STARTING"),
])
def test_what_isnt_registered_as_the_revisions_doesnt_replace_the_old_one(
    host: Host, registered: list[list[Any]], match: str,
) -> None:
    """It is healthy, and by the engine it is right."""
    host.registered = registered
    host.fails(match)
    assert (sorted(host.engine.containers), host.engine.stopped) == ([OLD], [(NEW, 30)])
    # What may pass is waited for.
    assert (host.asked > 1) == (match not in ("STALE", "MISMATCH"))


def test_a_late_registration_is_waited_for(host: Host) -> None:
    host.registered = [[], [registration(NEW, state="starting")], [registration(NEW)]]
    host.make()
    assert (sorted(host.engine.containers), host.asked) == ([NEW], 3)


def test_without_old_instances_redis_isnt_asked(host: Host) -> None:
    host.engine.containers.clear()
    host.make()
    assert (sorted(host.engine.containers), host.asked) == ([NEW], 0)


def test_what_somebody_else_started_before_is_left_alone(host: Host) -> None:
    host.engine.containers[OTHER] = host.instance(OTHER, 3, memory=1)
    host.comes = [host.instance(NEW, 4, health="unhealthy")]
    host.fails("health check fails")
    assert sorted(host.engine.containers) == [OLD, OTHER]


def test_an_overtaken_deployment_takes_nothing_back(host: Host) -> None:
    """The one that took over may want what is there; nothing is noted as leaving either."""
    def happens(point: int) -> None:
        raise OVERTAKEN

    host.at_point = happens
    host.fails("number 8")
    assert (sorted(host.engine.containers), host.engine.stopped) == ([OLD, NEW], [])
    assert not host.note.exists()


def test_an_engine_that_fails_in_taking_back_doesnt_hide_why(host: Host) -> None:
    host.comes = [host.instance(NEW, 2, health="unhealthy")]

    def broken(*_: Any) -> None:
        raise DriftguardError("Docker Engine", "an answer", "none", "see its log")

    host.engine.stop = broken  # type: ignore[method-assign,assignment]
    host.fails("health check fails")


def test_after_the_engine_came_back_the_next_run_goes_on(host: Host) -> None:
    """All are started again, one half-made; nobody knows any more who was watched."""
    host.compose()
    for facts in host.engine.containers.values():
        facts["State"]["StartedAt"] = "2026-01-02T03:05:00Z"
    half = host.instance(OTHER, 3)
    half["State"]["Status"], half["Name"] = "created", f"/{'0' * 12}_{PROJECT}-extractor-3"
    host.engine.containers[OTHER] = half
    host.comes = []
    host.make()
    assert sorted(host.engine.containers) == [NEW]


def test_a_new_one_that_dies_while_the_old_one_drains_is_found(host: Host) -> None:
    """The old one is gone by then: it is for the way back to recreate it."""
    removed = host.engine.remove

    def dies(container_id: str) -> None:
        removed(container_id)
        host.engine.containers[NEW] = {**host.engine.containers[NEW], "RestartCount": 1}

    host.engine.remove = dies  # type: ignore[method-assign]
    host.fails("restarted")


@pytest.mark.parametrize("left", [[NEW], [NEW, OLD]])
def test_a_second_run_goes_on_where_a_killed_one_was(host: Host, left: list[str]) -> None:
    """New ones were there already, so compose isn't asked; whatever is left of the old ones goes."""
    host.compose()
    for gone in {OLD, NEW} - set(left):
        host.engine.containers.pop(gone)
    host.comes = []
    host.make()
    assert sorted(host.engine.containers) == [NEW]
    before = list(host.engine.stopped)
    assert host.plan_for(host.look()).changes == []
    host.make()
    assert host.engine.stopped == before
