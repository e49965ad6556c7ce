# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs that are about a part of a fleet: some hosts, or some services."""

from __future__ import annotations

from typing import Any

import pytest
from model.claims import result_of
from model.engine import Badness
from model.fleet import run
from model.interpreter import Ending
from model.making import NewModel
from model.world import Fault, Model, Release

A, B, C = Release("a"), Release("b"), Release("c")
SETTLING = "Make the revision this host's proved one"


def went(model: Model, release: Release, **options: Any) -> Ending:
    """A run that went to its end, well or not."""
    ending = run(model, release, "limit" in options, **options)
    assert ending is not None
    return ending


def allowed(model: Model) -> set[str]:
    """The releases that the fleet's record lets run."""
    return {release["releaseId"] for release in (model.record() or {})["allowed"]}


def test_a_host_that_is_left_out_goes_on_with_what_it_was_given_when_another_goes_back(new_model: NewModel) -> None:
    model = new_model(2)
    bad = Release("bad on h2", Badness("crash", 5.0, host="h2"))
    assert went(model, A).status == 0
    assert result_of(went(model, bad, limit=("h1",))) == "mixed"
    assert went(model, bad, limit=("h2",)).status != 0
    assert set(model.running("h1")) == {bad.release_id}
    assert set(model.running("h2")) == {A.release_id}
    assert allowed(model) == {A.release_id, bad.release_id}
    assert went(model, B).status == 0


def test_alone_it_goes_back_to_what_alone_was_allowed(new_model: NewModel) -> None:
    model = new_model(2)
    assert went(model, A).status == 0
    assert result_of(went(model, Release("bad", Badness("crash", 5.0)), limit=("h2",))) == "rolled back"
    assert allowed(model) == {A.release_id}


def test_what_a_host_that_is_left_out_runs_goes_on_while_another_gets_a_third_release(new_model: NewModel) -> None:
    model = new_model(2)
    assert went(model, A).status == 0
    assert result_of(went(model, B, limit=("h1",))) == "mixed"
    assert result_of(went(model, C, limit=("h2",))) == "mixed"
    assert allowed(model) == {A.release_id, B.release_id, C.release_id}


@pytest.mark.parametrize("services", ["extractor", "ocr", "extractor,ocr"])
def test_some_services_are_recreated_where_they_are(new_model: NewModel, services: str) -> None:
    model = new_model(2)
    model.placement["h2"] = ("ocr",)
    assert went(model, A).status == 0
    before = {host: set(engine.containers) for host, engine in model.engines.items()}
    ending = went(model, A, worker_services=services)
    assert ending.status == 0, ending.said
    kept = {host: len(before[host] & set(engine.containers)) for host, engine in model.engines.items()}
    asked = services.split(",")
    assert kept == {"h1": 3 - ("extractor" in asked) - 2 * ("ocr" in asked), "h2": 2 - 2 * ("ocr" in asked)}


def test_some_services_never_take_the_fleet_to_another_release_than_it_is_settled_on(new_model: NewModel) -> None:
    """B was published, and its hosts couldn't keep it as what is proved any more; a kill there leaves the same."""
    model = new_model(2)
    assert went(model, A).status == 0
    away = tuple(Fault("flaky", 0, host, task=SETTLING) for host in model.hosts)
    assert result_of(went(model, B, faults=away)) == "unsettled"
    before = model.picture()["containers"]
    ending = went(model, B, worker_services="extractor,ocr")
    assert ending.status != 0
    said = "\n".join(ending.said)
    assert f"last here, {A.release_id}, to be the one that the fleet runs; found {B.release_id}" in said
    assert (model.picture()["containers"], allowed(model)) == (before, {B.release_id})
    assert went(model, B).status == 0
    assert went(model, B, worker_services="extractor,ocr").status == 0


def test_a_revision_that_recreates_nothing_is_foretold(new_model: NewModel) -> None:
    model = new_model(2)
    assert went(model, A).status == 0
    model.order = "start-first"
    before = model.picture()
    check = model.run(A, check_mode=True)
    assert check is not None
    assert check.status == 0, check.said
    assert model.picture() == before
    assert check.changed > 0
    assert went(model, A).changed > 0


def test_published_first_two_releases_never_work_side_by_side(new_model: NewModel) -> None:
    """A host goes back, another one stays: what it runs there is fenced, and the run says so."""
    model = new_model(2)
    bad = Release("bad on h2", Badness("crash", 5.0, host="h2"))
    assert went(model, A).status == 0
    ending = went(model, bad, worker_publish="before", worker_on_failure="host")
    assert result_of(ending) == "mixed"
    assert (set(model.running("h1")), set(model.running("h2"))) == ({bad.release_id}, {A.release_id})
    assert allowed(model) == {A.release_id}
    said = "\n".join(ending.said)
    assert "nothing was published" in said
    assert f"h1: runs the new release; what isn't {A.sha[:7]}" in said
    assert went(model, B).status == 0


def test_a_host_that_a_run_did_not_come_to_goes_on_when_another_goes_back(new_model: NewModel) -> None:
    """It was brought to the release before, alone, and has something else to change by now."""
    model = new_model(2)
    bad = Release("bad on h1", Badness("crash", 5.0, host="h1"))
    assert went(model, A).status == 0
    assert result_of(went(model, bad, limit=("h2",))) == "mixed"
    model.memory = "128M"
    ending = went(model, bad)
    assert (set(model.running("h1")), set(model.running("h2"))) == ({A.release_id}, {bad.release_id})
    assert result_of(ending) == "mixed"
    assert allowed(model) == {A.release_id, bad.release_id}
    assert went(model, B).status == 0
