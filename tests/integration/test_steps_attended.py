# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""worker_steps with a rollout among them: what comes after it is attended too, and ends with its playbook."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
import yaml
from support.fleet import Fleet, wait_for
from support.registration_entries import register
from support.rollouts import LONG, SHORT, Rollouts, holding, send, whole_session

MARK = "made by the last step\n"


@pytest.fixture(scope="module")
def deployed(module_fleet: Fleet) -> Fleet:
    module_fleet.deploy().must_pass()
    return module_fleet


@pytest.fixture
def steps(deployed: Fleet) -> Iterator[Rollouts]:
    """A rollout of all services, its proof with time to wait, and a step that leaves a mark."""
    made = Rollouts(deployed)
    made.fleet.redis.client.delete(f"{deployed.name}:lock:deploy")
    place = {"fleet": deployed.name, "root": str(deployed.root)}
    proof = {**place, **made.redis, "host": "here", "hosts": ["here"], "timeout": LONG, "check_record": False}
    made.after = [
        {"name": "proof", "module": "worker_version_assert", "options": proof},
        {"name": "mark", "module": "worker_guard", "options": {**place, "files": {"mark": MARK}}}]
    mark(deployed).unlink(missing_ok=True)
    yield made
    wait_for(lambda: not made.modules(), "steps of the test before to end", 60)


def mark(fleet: Fleet) -> Path:
    return fleet.root / fleet.name / "guard" / "mark"


def stranger(fleet: Fleet) -> str:
    """A registration that no proof gets over before it has expired; its key."""
    register(fleet.redis.client, "alpha", "stranger", LONG * 1000, host="elsewhere", fleet=fleet.name)
    return f"{fleet.name}:worker:alpha:stranger:version"


def test_all_of_it_is_done_in_one_call_and_shown(steps: Rollouts) -> None:
    old = set(steps.fleet.ids().values())
    run = steps.fleet.play(str(steps.playbook(progress="always")), "-vvv").must_pass()
    assert not old & set(steps.fleet.ids().values())
    assert run.output.count(" verified ") == len(old)
    assert mark(steps.fleet).read_text() == MARK
    assert steps.fleet.redis.password not in run.output
    assert list(steps.fleet.root.glob("*/state/attended-*")) == []


def edited(path: Path, change: Callable[[list[dict[str, Any]]], None]) -> str:
    """A playbook of :class:`Rollouts` with other tasks; its path."""
    book = yaml.safe_load(path.read_text())
    change(book[0]["tasks"])
    path.write_text(yaml.safe_dump(book))
    return str(path)


def test_check_mode_only_foretells(steps: Rollouts) -> None:
    before = steps.fleet.ids()
    steps.after = steps.after[1:]  # what is only foretold can't be proved

    def without_the_end(tasks: list[dict[str, Any]]) -> None:
        tasks[2:] = [{"ansible.builtin.debug": {"msg": "CHANGED {{ steps is changed }}"}}]

    run = steps.fleet.play(edited(steps.playbook(progress="always"), without_the_end), "--check").must_pass()
    assert "CHANGED True" in run.output
    assert (steps.fleet.ids(), mark(steps.fleet).exists(), " starting " in run.output) == (before, False, False)


@pytest.mark.parametrize("how", ["interrupted", "killed with its tasks"])
def test_a_proof_that_nobody_waits_for_ends_and_nothing_comes_after_it(steps: Rollouts, how: str) -> None:
    key = stranger(steps.fleet)
    old = len(steps.fleet.ids())
    process = steps.start(progress="always", heartbeat=SHORT if how == "killed with its tasks" else LONG)
    try:
        wait_for(lambda: steps.fleet.log.read_text().count(" verified ") == old, "the rollout to end", 120)
        pids, number = ([process.pid], signal.SIGINT) if how == "interrupted" else (
            whole_session(process), signal.SIGKILL)
        assert steps.modules(), steps.fleet.log.read_text()
        assert holding(steps.fleet, steps.fleet.redis.password) == []
        send(pids, number)
        assert process.wait(600) != 0
        wait_for(steps.all_ended, "the proof to end by itself", 60)
        assert not mark(steps.fleet).exists()
    finally:
        steps.fleet.redis.client.delete(key)
    steps.fleet.prove(timeout=60).must_pass()


def test_a_lease_that_another_has_starts_nothing(steps: Rollouts) -> None:
    """The result says that no step was taken: a host that wasn't touched has nothing to go back to."""
    before = steps.fleet.ids()

    def of_another(tasks: list[dict[str, Any]]) -> None:
        call = tasks[1]["driftguard.workers.worker_steps"]
        call["steps"][0]["options"]["lease"]["token"] = "another"
        tasks[1]["ignore_errors"] = True
        tasks[2:] = [{"ansible.builtin.debug": {"msg": "DONE {{ steps.by_step }} FAILED {{ steps is failed }}"}}]

    run = steps.fleet.play(edited(steps.playbook(), of_another)).must_pass()
    assert "DONE {} FAILED True" in run.output, run.output
    assert (steps.fleet.ids(), mark(steps.fleet).exists()) == (before, False)
