# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the fleet's record allows once a run has failed: what it allowed before it, and nothing more."""

from __future__ import annotations

import pytest
from model.claims import result_of, settled_on
from model.engine import Badness
from model.making import NewModel
from model.test_parts import allowed, went
from model.world import Fault, Model, Release

Z, A, B = Release("z"), Release("a"), Release("b")
AWAY = Fault("cut", 0, "h1")


def with_a_straggler(new_model: NewModel, newer: Release) -> Model:
    """A fleet that went on to a release while its first host was away, and that host is back with the one before."""
    model = new_model(3)
    assert went(model, Z).status == 0
    assert result_of(went(model, newer, faults=(AWAY,), worker_unreachable="continue")) == "unsettled"
    assert (set(model.running("h1")), allowed(model)) == ({Z.release_id}, {newer.release_id})
    model.repair()
    return model


@pytest.mark.parametrize("publish", ["before", "after"])
def test_a_straggler_never_takes_the_fleet_back_to_what_it_runs_itself(new_model: NewModel, publish: str) -> None:
    bad = Release("bad on h1", Badness("crash", 5.0, host="h1"))
    model = with_a_straggler(new_model, bad)
    jobs = len(model.workers.jobs)
    ending = went(model, bad, worker_publish=publish)
    assert allowed(model) == {bad.release_id}
    assert {job.release for job in model.workers.jobs[jobs:]} == {bad.release_id}
    assert (model.running("h1"), set(model.running("h2"))) == ([], {bad.release_id})
    said = "\n".join(ending.said)
    assert result_of(ending) == "mixed", said
    assert "h1: runs nothing" in said
    assert f"{Z.release_id}, which the fleet's record didn't allow before this run" in said
    assert went(model, B).status == 0


@pytest.mark.parametrize("publish", ["before", "after"])
def test_nor_keeps_it_the_others_from_going_back(new_model: NewModel, publish: str) -> None:
    model = with_a_straggler(new_model, A)
    ending = went(model, Release("bad", Badness("crash", 5.0)), worker_publish=publish)
    assert allowed(model) == {A.release_id}
    assert (model.running("h1"), set(model.running("h2"))) == ([], {A.release_id})
    assert result_of(ending) == "mixed", "\n".join(ending.said)
    assert went(model, A).status == 0
    assert settled_on(model) == A.release_id


@pytest.mark.parametrize("at", [56, 62, 70, 80])
def test_what_was_proved_before_a_killed_run_published_another_first_may_run_again(
    new_model: NewModel, at: int,
) -> None:
    model = new_model(3)
    bad = Release("bad", Badness("crash", 5.0))
    assert went(model, A).status == 0
    model.run(bad, faults=(Fault("kill", at),), worker_publish="before")
    model.repair()
    assert result_of(went(model, bad, worker_publish="before")) == "rolled back"
    assert settled_on(model) == A.release_id
