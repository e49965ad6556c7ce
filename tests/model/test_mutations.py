# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The model finds what it is for: with a line of the role or of a module spoiled, a script ends in a failed claim."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Callable

import pytest
from model import playbook, workers
from model.engine import Badness
from model.fleet import AddHost, Deed, Deploy, Overlap, Policy, Repair, play
from model.interpreter import Chance
from model.machine import PACKAGE
from model.world import Fault, Model, Release

from driftguard_worker.decision import Decision, Standing

NewModel = Callable[..., Model]
A, B = Release("a"), Release("b")
LATE_CRASH = Release("bad", Badness("crash", 5.0, host="h2"))
# Silent is what only the proof finds: healthy, stable, and never registered.
SILENT = Release("bad", Badness("silent"))
HOST_SETTLED = Fault("flaky", 0, "h1", more=1, task="Make the revision this host's proved one")
FLEET_RECORD = Fault("flaky", 0, "h1", more=1, task="Change the fleet's record")
ROLE = "roles/worker_fleet/"
PROVED = "(__worker_fleet_done.by_step.proof | default({})).proved | default(false)"
FIRST = Policy(worker_publish="before")


@dataclass(frozen=True)
class Spoiled:
    """A file of the repository with a text replaced, and what then befalls a fleet.

    :param hosts: how many.
    """

    what: str
    file: str
    old: str
    new: str
    script: tuple[Deed, ...]
    hosts: int = 2


FILES = [
    Spoiled("publish in spite of a bad host", ROLE + "vars/main.yml",
            "__worker_fleet_leader.__worker_fleet_decision.decision | default('') == 'publish'", "true",
            (Deploy(A), Deploy(LATE_CRASH))),
    Spoiled("one moved host doesn't go back", ROLE + "tasks/settle.yml",
            "- inventory_hostname in __worker_fleet_leader.__worker_fleet_decision.back",
            "- inventory_hostname in __worker_fleet_leader.__worker_fleet_decision.back | reject('eq', 'h1')",
            (Deploy(A), Deploy(LATE_CRASH))),
    Spoiled("a host is through without a proof", ROLE + "tasks/roll.yml",
            "+ [__worker_fleet_settled_step] }}", "* 0 + [__worker_fleet_settled_step] }}",
            (Deploy(A), Deploy(SILENT))),
    Spoiled("an unreachable host counts as settled", ROLE + "tasks/settle_host.yml",
            "when: __worker_fleet_settled is unreachable", "when: false", (Deploy(A), Deploy(B, (HOST_SETTLED,)))),
    Spoiled("what couldn't be published counts as published", ROLE + "tasks/publish.yml",
            "delegate_to:", "failed_when: false\n  delegate_to:", (Deploy(A), Deploy(B, (FLEET_RECORD,)))),
    Spoiled("the old release isn't settled again", ROLE + "tasks/settle_back.yml",
            "__worker_fleet_record_target: \"{{ __worker_fleet_back }}\"",
            "__worker_fleet_record_target: \"{{ __worker_fleet_target }}\"", (Deploy(A), Deploy(LATE_CRASH))),
    Spoiled("a host's failure is forgotten", ROLE + "tasks/failed.yml", "else 'bad'", "else 'good'",
            (Deploy(A), Deploy(LATE_CRASH))),
    Spoiled("a batch is included by its own hosts alone", ROLE + "tasks/rounds.yml",
            "label: \"{{ worker_batch | join(', ') }}\"",
            "label: \"{{ worker_batch | join(', ') }}\"\n  when: inventory_hostname in worker_batch",
            (Deploy(A), Deploy(SILENT, chance=Chance(backwards=True)))),
    Spoiled("preflight does what it should only look at", ROLE + "tasks/preflight.yml",
            "looks: true", "looks: false", (Deploy(A), Deploy(LATE_CRASH, (Fault("cut", 50, "h2"),)))),
    Spoiled("every host counts as kept", ROLE + "tasks/preflight.yml",
            PROVED, "true",
            (Deploy(A), Deploy(B))),
    Spoiled("what is kept was published so", ROLE + "vars/main.yml",
            "and __worker_fleet_leader.__worker_fleet_rolling.record.phase == 'settled'", "",
            tuple(deed for at in range(46, 56, 2) for deed in (
                Deploy(A), Deploy(B, (Fault("kill", at),)), Repair(), Deploy(A, (Fault("kill", at),)), Repair(),
                Deploy(A)))),
    # What was published first parks all workers; only a record that rolls again lets them go on, and be proved.
    Spoiled("who isn't proved at once is given up", ROLE + "tasks/preflight.yml", "may_fail: true", "may_fail: false",
            tuple(deed for at in range(50, 66, 2) for deed in (
                Deploy(A), Deploy(B, (Fault("kill", at),), policy=FIRST), Repair(), Deploy(A)))),
    Spoiled("one host that is kept stands for all", ROLE + "vars/main.yml",
            "default=false) | reject | length == 0", "default=false) | select | length > 0",
            (Deploy(A), AddHost("h3"), Deploy(A))),
    Spoiled("a rollback leaves out the records", ROLE + "tasks/rollback.yml",
            "__worker_fleet_proof_step, __worker_fleet_settled_step]", "__worker_fleet_proof_step]",
            (Deploy(A), Deploy(LATE_CRASH))),
    Spoiled("the proved revision isn't kept", ROLE + "tasks/settle.yml",
            "- __worker_fleet_rollout.revision != __worker_fleet_rollout.previous", "- false", (Deploy(A), Deploy(B))),
]


@contextmanager
def spoiled(case: Spoiled) -> Iterator[None]:
    """The role as it would be with the text replaced; nothing is written."""
    path = playbook.PROJECT / case.file
    text = path.read_text(encoding="utf-8")
    assert case.old in text, f"{case.file} has no {case.old!r} any more: spoil it otherwise"
    real = playbook._text

    def read(asked: Any) -> str:
        return text.replace(case.old, case.new) if asked == path else real(asked)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(playbook, "_text", read)
        _forget()
        try:
            yield
        finally:
            _forget()


def _forget() -> None:
    playbook.task_file.cache_clear()
    playbook._role.cache_clear()


@dataclass(frozen=True)
class Broken:
    """A function of the collection's modules that does something else, and what then befalls a fleet."""

    what: str
    place: str
    stand_in: Callable[..., Any]
    script: tuple[Deed, ...]
    hosts: int = 2


def _not_left_out(real: Callable[..., Any]) -> Callable[..., Any]:
    return lambda outcomes, _hosts, *rest: real(outcomes, list(outcomes), *rest)


def _keeps_the_old(_real: Callable[..., Any]) -> Callable[..., Any]:
    rolling: Callable[..., Any] = importlib.import_module(f"{PACKAGE}.module_utils.record").rolling
    return rolling


OVERTAKEN: tuple[Deed, ...] = (
    Deploy(A), *(Overlap(B, A, at, lease_ends=True, blind=True) for at in range(54, 70, 2)))
BROKEN = [
    Broken("no fencing number is compared on a host", "host_record.HostRecords.check",
           lambda _real: lambda *_all: None, OVERTAKEN),
    Broken("everything is as wanted", "rollout_plan._reason", lambda _real: lambda *_all: "", (Deploy(A), Deploy(B))),
    Broken("images aren't compared, nor what was registered", "proof._instance",
           lambda _real: lambda scene, _wanted, container, _all: _fine(scene, container),
           (Deploy(A), Deploy(Release("bad", Badness("liar"))))),
    Broken("every proof is one", "version_check.is_proved", lambda _real: lambda _rows: True,
           (Deploy(A), Deploy(SILENT))),
    Broken("nobody waits for what was started", "rollout_change.Watch.wait", lambda _real: lambda _watch: [],
           (Deploy(A), Deploy(Release("bad", Badness("crash", 12.0, host="h2"))))),
    Broken("a host that is kept lets an earlier run go on", "work_rollout.bring_or_keep",
           lambda real: lambda engine, options, check, *more: real(
               engine, options, check or options["state"] == "kept", *more),
           OVERTAKEN),
    Broken("the current revision doesn't move", "revisions.Revisions._point_to", lambda _real: lambda *_all: None,
           (Deploy(A),)),
    Broken("a host's record isn't written", "host_record.HostRecords.write", lambda _real: lambda *_all: None,
           (Deploy(A),)),
    Broken("what is settled keeps the old release", "release_change.settled", _keeps_the_old,
           (Deploy(A), Deploy(B, policy=FIRST))),
    Broken("a part of the fleet counts as the whole", "evidence.decide", _not_left_out,
           (Deploy(A), Deploy(B, limit="h1"))),
]


def _fine(scene: Any, container: Any) -> Any:
    return importlib.import_module(f"{PACKAGE}.module_utils.proof").Row(container.service, container.name, scene.host)


def _fails(model: Model, script: tuple[Deed, ...]) -> str:
    try:
        play(model, script, A)
    except AssertionError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("case", FILES, ids=lambda case: case.what)
def test_a_spoiled_role_is_found(new_model: NewModel, case: Spoiled) -> None:
    assert not _fails(new_model(case.hosts), case.script), "it fails as it is"
    with spoiled(case):
        assert _fails(new_model(case.hosts), case.script), "nothing was found"


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.what)
def test_a_broken_module_is_found(new_model: NewModel, case: Broken) -> None:
    assert not _fails(new_model(case.hosts), case.script), "it fails as it is"
    module, *path, name = case.place.split(".")
    owner: Any = importlib.import_module(f"{PACKAGE}.module_utils.{module}")
    for part in path:
        owner = getattr(owner, part)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, case.stand_in(getattr(owner, name)))
        assert _fails(new_model(case.hosts), case.script), "nothing was found"


def test_a_worker_that_asks_nobody_is_found(new_model: NewModel) -> None:
    script: tuple[Deed, ...] = (Deploy(A), Deploy(B, policy=FIRST))
    silent: tuple[Deed, ...] = (Deploy(A), Deploy(A, (Fault("deaf", 0, more=30),)))
    for played in (script, silent):
        assert not _fails(new_model(2), played), "it fails as it is"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(workers, "decide", lambda *_all: Decision(Standing.RUN, ()))
            assert "a job started on" in _fails(new_model(2), played)


HUNG = "every worker that the inventory demands"


def _deployed_again_with_a_hung_worker(new_model: NewModel) -> tuple[int, list[str]]:
    """The status and the words of a deploy of what runs already, while a worker hangs that its engine calls healthy."""
    model = new_model(2)
    model.run(A)
    one = next(iter(model.engines["h2"].containers.values()))
    one.image = replace(one.image, badness=Badness("silent"))
    model.workers.left(one.id)
    model.write_registrations()
    before = model.picture()["containers"]
    ending = model.run(A)
    assert ending is not None
    assert model.picture()["containers"] == before
    return ending.status, list(ending.said)


def test_a_host_that_is_kept_is_proved(new_model: NewModel) -> None:
    status, said = _deployed_again_with_a_hung_worker(new_model)
    assert status != 0
    assert any(HUNG in line and "h2" in line for line in said), said
    kept = "__worker_fleet_done.by_step.keep.kept | default(false)"
    unproved = Spoiled("", ROLE + "tasks/preflight.yml", PROVED, kept, ())
    with spoiled(unproved):
        assert _deployed_again_with_a_hung_worker(new_model)[0] == 0


def test_a_run_that_kept_everything_and_is_not_told_that_it_was_the_last_fails(new_model: NewModel) -> None:
    def deployed_again() -> tuple[int, str]:
        model = new_model(2)
        model.run(A)
        ending = model.run(A, faults=(Fault("flaky", 0, "h1", more=1, task="Give the lease back"),))
        assert ending is not None
        return ending.status, "\n".join(ending.said)

    status, said = deployed_again()
    assert status != 0
    assert "expected Redis to say that no deploy came after" in said, said
    asked = "__worker_fleet_lease_end.generation_next is not defined"
    trusting = Spoiled("", ROLE + "tasks/close.yml", asked, "false", ())
    with spoiled(trusting):
        assert deployed_again()[0] == 0
