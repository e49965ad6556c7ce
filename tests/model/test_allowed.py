# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the fleet's record allows once a run has failed: what it allowed before it, and nothing more."""

from __future__ import annotations

from typing import Any, Optional

import pytest
from model.claims import result_of, settled_on
from model.engine import Badness
from model.making import NewModel
from model.test_parts import allowed, went
from model.world import Fault, Model, Release

Z, A, B, C = Release("z"), Release("a"), Release("b"), Release("c")
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
    jobs = len(model.workers.judged)
    ending = went(model, bad, worker_publish=publish)
    assert allowed(model) == {bad.release_id}
    assert {job.release for job in model.workers.judged[jobs:]} == {bad.release_id}
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



def between_two(new_model: NewModel) -> Model:
    """A fleet whose first host was brought to another release, alone."""
    model = new_model(3)
    assert went(model, A).status == 0
    assert result_of(went(model, B, limit=("h1",))) == "mixed"
    assert allowed(model) == {A.release_id, B.release_id}
    return model


def said_of(record: Optional[dict[str, Any]]) -> dict[str, Any]:
    """A record but for the number of the deploy that wrote it."""
    assert record is not None
    return {key: value for key, value in record.items() if key != "generation"}


@pytest.mark.parametrize("release", [B, C])
def test_where_nothing_moved_all_that_was_allowed_before_may_run_again(new_model: NewModel, release: Release) -> None:
    model = between_two(new_model)
    before = said_of(model.record())
    # A guard that can't be put there: the host's record hasn't rolled by then.
    guard = model.roots["h1"] / "demo" / "guard" / "version_guard.sh"
    guard.unlink()
    guard.mkdir()
    ending = went(model, release, worker_publish="before")
    assert said_of(model.record()) == before, "\n".join(ending.said)
    assert result_of(ending) == "failed"
    guard.rmdir()
    assert went(model, release).status == 0


def test_a_new_host_that_has_nothing_to_go_back_to_keeps_nothing_from_that(new_model: NewModel) -> None:
    model = between_two(new_model)
    before = said_of(model.record())
    model.add_host("h0")
    model.placement = {"h0": model.placement.pop("h0"), **model.placement}
    ending = went(model, Release("bad on h0", Badness("crash", 5.0, host="h0")), worker_publish="before")
    assert result_of(ending) == "rolled back"
    assert said_of(model.record()) == before, "\n".join(ending.said)
    assert went(model, A).status == 0


def test_nor_does_one_that_was_lost_when_it_had_begun(new_model: NewModel) -> None:
    model = between_two(new_model)
    before = said_of(model.record())
    # In the roll, and when it is to go back.
    lost = tuple(Fault("flaky", 0, "h1", more=number, task="Take the steps on this host") for number in (2, 3))
    ending = went(model, C, worker_publish="before", faults=lost)
    assert result_of(ending) == "mixed"
    assert said_of(model.record()) == before, "\n".join(ending.said)
    assert went(model, A).status == 0
