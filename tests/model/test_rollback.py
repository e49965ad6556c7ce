# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollback over hosts that don't have the same revisions, or to what is fenced meanwhile."""

from __future__ import annotations

import pytest
from model.claims import last_word_on, result_of
from model.fleet import run
from model.making import NewModel
from model.world import Fault, Model, Release

A, B = Release("a"), Release("b")


def test_hosts_that_would_go_back_to_different_releases_are_left_as_they_are(new_model: NewModel) -> None:
    model = new_model(2)
    run(model, A, False)
    run(model, B, False)
    model.placement["h2"] = ("ocr",)
    moved = run(model, B, False, worker_prune="true")
    assert moved is not None
    assert moved.status == 0, moved.said
    before = model.picture()["containers"]
    refused = run(model, None, False, playbook="rollback")
    assert refused is not None
    assert refused.status != 0
    assert f"found h1: {A.release_id}, h2: {B.release_id}; remedy: name a commit" in "\n".join(refused.said)
    assert model.picture()["containers"] == before
    # With what ran there then, which the inventory no longer asks for.
    back = model.run(playbook="rollback", worker_revision=A.sha)
    assert back is not None
    assert back.status == 0, back.said
    assert {release for host in model.hosts for release in model.running(host)} == {A.release_id}


def fence(model: Model, release: Release) -> None:
    """An operator stops a release."""
    ending = model.run(playbook="fence", worker_fence_release=release.release_id, worker_fence_timeout=0)
    assert ending is not None
    assert ending.status == 0, ending.said


def test_a_rollback_does_not_go_to_what_is_fenced_after_it_has_begun(new_model: NewModel) -> None:
    model = new_model(2)
    run(model, A, False)
    run(model, B, False)
    before = model.picture()["containers"]
    refused = model.run(
        playbook="rollback", faults=(Fault("other", 0, task="Take the steps on this host"),),
        others=(lambda: fence(model, A),))
    assert refused is not None
    assert (refused.status != 0, result_of(refused)) == (True, "failed"), refused.said
    assert "expected a target that nobody fenced since deploy number 3 began" in "\n".join(refused.said)
    assert model.picture()["containers"] == before
    assert last_word_on(model, A) == "past"
    assert (model.record() or {})["target"]["releaseId"] == B.release_id
    # One that begins after the fence knows of it, and goes there since it is named.
    named = model.run(playbook="rollback", worker_revision=A.sha)
    assert named is not None
    assert (named.status, last_word_on(model, A)) == (0, ""), named.said


@pytest.mark.parametrize("before", [False, True], ids=["", "and before"])
def test_a_deploy_does_not_go_to_what_is_fenced_after_it_has_begun(new_model: NewModel, before: bool) -> None:
    model = new_model(2)
    run(model, A, False)
    run(model, B, False)
    if before:  # a deploy of it lifts that
        fence(model, A)
    refused = model.run(
        A, faults=(Fault("other", 0, task="Take the steps on this host"),), others=(lambda: fence(model, A),))
    assert refused is not None
    assert (refused.status != 0, last_word_on(model, A)) == (True, "past"), refused.said
