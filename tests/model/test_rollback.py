# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollback over hosts that don't have the same revisions."""

from __future__ import annotations

from model.fleet import run
from model.making import NewModel
from model.world import Release

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
