# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A handful of the model's scripts on real hosts: after each run both are in the same state.

What the model says of thousands of cases is worth what it has in common with these.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Callable, Iterator, NamedTuple, Optional

import pytest
from model.claims import result_of
from model.engine import Badness
from model.fleet import Deploy, Policy, Rollback
from model.interpreter import Ending
from model.making import NewModel, models
from model.world import SERVICES, Fault, Model, Release
from support.fleet import Run

from lab.faults import inside
from lab.fleet import LabFleet
from lab.state import Lab

pytestmark = [pytest.mark.timeout(2400), pytest.mark.long]

HOSTS = {"h1": "host1", "h2": "host2", "h3": "host3"}
BEHAVIOUR: dict[str, Callable[[Badness], dict[str, Any]]] = {
    "": lambda _badness: {},
    "crash": lambda badness: {"crash_after": badness.after},
    "silent": lambda _badness: {"mute": True},
}
A, B, C = Release("a"), Release("b"), Release("c")
SCRIPTS: dict[str, tuple[Deploy | Rollback, ...]] = {
    "one service bad on the second host": (
        Deploy(A), Deploy(Release("bad", Badness("crash", 0.0, "ocr", "h2"))), Deploy(B)),
    "published first, and bad in the last batch": (
        Deploy(A), Deploy(Release("bad", Badness("crash", 0.0, "", "h3")), policy=Policy(worker_publish="before"))),
    "a host left behind, then stopped where it is silent": (
        Deploy(A), Deploy(B, (Fault("cut", 0, "h3"),), policy=Policy(worker_unreachable="continue")),
        Deploy(Release("bad", Badness("silent", 0.0, "", "h2")), (Fault("mend", 0, "h3"),),
               policy=Policy(worker_on_failure="stop")),
        Deploy(C)),
    "an engine dead, and back for a rollback": (
        Deploy(A), Deploy(B), Deploy(C, (Fault("engine", 0, "h2"),)), Rollback((Fault("revive", 0, "h2"),))),
}
LOOK = (
    "docker ps -a --filter label=io.driftguard.fleet={0} "
    "--format '{{{{.Label \"io.driftguard.service\"}}}} {{{{.Label \"org.opencontainers.image.revision\"}}}}'")
FAULTS = {"cut": ("cut", {"ssh_only": True}), "mend": ("mend", {}), "engine": ("kill-engine", {}),
          "revive": ("start-engine", {})}


class State(NamedTuple):
    """What a run came to: whether it went well, its result, the fleet's record, and releases by host and service."""

    ok: bool
    result: str
    phase: str
    target: str
    allowed: frozenset[str]
    runs: dict[str, dict[str, list[str]]]


@pytest.fixture(scope="module")
def foretold(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[State]]:
    """What the model comes to, after each run of each script."""
    with models(tmp_path_factory.mktemp("model")) as new_model:
        return {name: modelled(new_model, script) for name, script in SCRIPTS.items()}


def modelled(new_model: NewModel, script: tuple[Deploy | Rollback, ...]) -> list[State]:
    """The states of a model, one after each run."""
    model, endings = new_model(3), list[Optional[Ending]]()
    run = model.run

    def kept(*arguments: Any, **options: Any) -> Any:
        endings.append(run(*arguments, **options))
        return endings[-1]

    model.run = kept  # type: ignore[method-assign]
    states = []
    for deed in script:
        deed.do(model)
        ending = endings[-1]
        assert ending is not None
        states.append(model_state(model, ending))
    assert len(endings) == len(script)
    return states


def model_state(model: Model, ending: Ending) -> State:
    """How the model is after a run; of a dead engine nobody knows anything."""
    names = {image.sha: image.badness.kind and "bad" for image in model.images.values()}
    names.update({release.sha: release.name for release in (A, B, C)})
    runs: dict[str, dict[str, list[str]]] = {}
    for host, engine in model.engines.items():
        for one in () if engine.dead else engine.containers.values():
            runs.setdefault(HOSTS[host], {}).setdefault(one.service, []).append(names[one.image.sha])
    return state(ending.status, result_of(ending), model.record() or {}, names, runs)


def state(status: int, result: str, record: dict[str, Any], names: dict[str, str], runs: dict[str, Any]) -> State:
    """The same of either."""
    return State(
        status == 0, result, record["phase"], names[record["target"]["sha"]],
        frozenset(names[release["sha"]] for release in record["allowed"]),
        {host: {service: sorted(found) for service, found in services.items()} for host, services in runs.items()})


@pytest.fixture
def fleet(lab: Lab, lab_fleet: LabFleet) -> Iterator[LabFleet]:
    """A fleet with the model's services and policy, all of it on every host."""
    services = {name: {key: value for key, value in spec.items() if key != "memory"} for name, spec in SERVICES.items()}
    lab_fleet.variables["worker_fleet_services"] = services
    lab_fleet.placement = {host: list(SERVICES) for host in lab.hosts}
    del lab_fleet.variables["worker_batches"]
    try:
        yield lab_fleet
    finally:
        for host in lab.hosts:
            lab_fleet.fault("mend", host)
            lab_fleet.fault("start-engine", host)


class Replay:
    """A script on real hosts."""

    def __init__(self, fleet: LabFleet) -> None:
        self._fleet = fleet
        self._shas: dict[str, str] = {}
        self._broken: set[tuple[str, str]] = set()

    def do(self, deed: Deploy | Rollback) -> State:
        """One run, with the faults that are there when it begins; what it came to."""
        for fault in deed.faults:
            name, more = FAULTS[fault.kind]
            self._fleet.fault(name, HOSTS[fault.host], **more)
            self._broken = {one for one in self._broken if one[1] != HOSTS[fault.host]} | {(name, HOSTS[fault.host])}
        if isinstance(deed, Rollback):
            return self._now(self._fleet.play("rollback-workers.yml"))
        self._go_to(deed.release)
        policy = [f"--extra-vars={key}={value}" for key, value in asdict(deed.policy).items()]
        return self._now(self._fleet.deploy(*policy))

    def _go_to(self, release: Release) -> None:
        badness = release.badness
        behaviour = BEHAVIOUR[badness.kind](badness)
        where = {"on": HOSTS.get(badness.host), "of": badness.service}
        sha = self._fleet.commit(obey=True, **behaviour, **{key: value for key, value in where.items() if value})
        self._shas[sha] = release.name

    def _now(self, run: Run) -> State:
        assert "Traceback" not in run.output, run.output
        runs: dict[str, dict[str, list[str]]] = {}
        for host in self._fleet.lab.hosts:
            if ("kill-engine", host) in self._broken:
                continue
            # Not over SSH, which may be cut.
            for line in inside(self._fleet.outer, self._fleet.lab, host, LOOK.format(self._fleet.name)).splitlines():
                service, sha = line.split()
                runs.setdefault(host, {}).setdefault(service, []).append(self._shas[sha])
        return state(run.status, self._fleet.evidence()[-1]["result"], self._fleet.record(), self._shas, runs)


@pytest.mark.parametrize("name", SCRIPTS)
def test_real_hosts_come_to_what_the_model_does(
    fleet: LabFleet, foretold: dict[str, list[State]], name: str,
) -> None:
    replay = Replay(fleet)
    for number, (deed, wanted) in enumerate(zip(SCRIPTS[name], foretold[name], strict=True)):
        found = replay.do(deed)
        assert found == wanted, f"after run {number + 1}, {deed}:\n{fleet.log.read_text()[-3000:]}"
