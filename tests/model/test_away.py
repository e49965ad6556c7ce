# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that can't be reached, in a run that leaves such hosts behind: when they went decides what they are."""

from __future__ import annotations

from typing import Any

import pytest
from model import actions
from model.claims import result_of
from model.making import NewModel
from model.test_parts import allowed, went
from model.world import Fault, Release

A, B = Release("a"), Release("b")
STEPS = "Take the steps on this host"


def cut(number: int, host: str = "h1") -> tuple[Fault, ...]:
    """A host that is away from its so-many-th call of steps on: the preflight's is the first."""
    return tuple(Fault("flaky", 0, host, more=one, task=STEPS) for one in range(number, number + 3))


def test_a_canary_that_is_lost_in_its_roll_ends_the_run(new_model: NewModel) -> None:
    model = new_model(3)
    assert went(model, A).status == 0
    before = {host: sorted(engine.containers) for host, engine in model.engines.items()}
    ending = went(model, B, worker_unreachable="continue", faults=cut(2))
    said = "\n".join(ending.said)
    assert (result_of(ending), allowed(model)) == ("mixed", {A.release_id}), said
    assert "h1: may run either release" in said
    for host in ("h2", "h3"):
        assert sorted(model.engines[host].containers) == before[host]
    assert went(model, B).status == 0


def test_one_that_was_away_when_its_turn_came_is_left_behind(
    new_model: NewModel, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the action of a rollout says of a call that it could not even begin."""
    real = actions.module

    def called(run: Any, task: Any, *rest: Any) -> Any:
        result = real(run, task, *rest)
        return {**result, "by_step": {}} if result.get("unreachable") and task.name == STEPS else result

    monkeypatch.setattr("model.interpreter.module", called)
    model = new_model(3)
    assert went(model, A).status == 0
    ending = went(model, B, worker_unreachable="continue", faults=cut(2, "h3"))
    assert (result_of(ending), allowed(model)) == ("unsettled", {B.release_id}), "\n".join(ending.said)
    assert [set(model.running(host)) for host in model.hosts] == [{B.release_id}, {B.release_id}, {A.release_id}]
    assert went(model, B).status == 0


def test_one_that_was_through_by_then_keeps_nothing_from_being_published(new_model: NewModel) -> None:
    model = new_model(3)
    assert went(model, A).status == 0
    ending = went(model, B, worker_unreachable="continue", faults=cut(3))
    assert (result_of(ending), allowed(model)) == ("unsettled", {B.release_id}), "\n".join(ending.said)
    assert [set(model.running(host)) for host in model.hosts] == [{B.release_id}] * 3
    assert went(model, B).status == 0
