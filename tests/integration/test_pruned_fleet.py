# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet is pruned as the playbook does it, and every revision that was kept can still be gone back to."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest
from support.fleet import Fleet, FleetRedis, some_fleet
from support.registry import Registry, closed_registry


@pytest.fixture(scope="module")
def registry(base_reference: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with closed_registry(base_reference, tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def pushed(tmp_path: Path, fleet_redis: FleetRedis, base_reference: str, registry: Registry) -> Iterator[Fleet]:
    with some_fleet(tmp_path, fleet_redis, base_reference, {"alpha": None}) as made:
        assert registry.closed
        made.variables.update(
            worker_image_push=True, worker_image_repository=f"{registry.name}/shop/{made.name}-worker",
            worker_registry_username=registry.closed.username, worker_registry_password=registry.closed.password,
            worker_keep_revisions=2)
        yield made


def state(fleet: Fleet) -> tuple[set[str], set[str]]:
    """Revisions, and commits of which the engine has an image."""
    images = fleet.engine.images.list(filters={"label": f"io.driftguard.fleet={fleet.name}"})
    kept = {path.name for path in (fleet.root / fleet.name / "revisions").iterdir()}
    return kept, {image.labels["org.opencontainers.image.revision"] for image in images}


@pytest.mark.timeout(1500)
def test_prune_and_go_back_to_each_kept_revision(pushed: Fleet) -> None:
    shas = [pushed.git("rev-parse", "HEAD")]
    pushed.deploy().must_pass()
    for _ in range(2):
        shas.append(pushed.commit())
        pushed.deploy().must_pass()
    whole = state(pushed)
    assert (len(whole[0]), whole[1]) == (3, set(shas))

    check = pushed.play("prune-workers.yml", "--check", "--diff").must_pass()
    assert state(pushed) == whole
    assert f"({shas[0][:7]}" in check.output
    done = pushed.play("prune-workers.yml").must_pass()
    assert (check.changed, done.changed) == (1, 1)
    kept, images = state(pushed)
    # The publications that the fleet's history names last are as many as the proved revisions that stay.
    assert (len(kept), images) == (2, set(shas[1:]))
    assert pushed.play("prune-workers.yml").must_pass().changed == 0
    record = pushed.evidence()[-1]
    assert (record["run"]["action"], record["result"], record["decision"]) == ("prune", "pruned", "prune")
    assert pushed.evidence()[-2]["hosts"]["here"]["prune"]["images"]
    pushed.verify("-e", f"worker_expected_sha={shas[2]}").must_pass()

    # Somebody else's pruning of the engine.
    for image in pushed.engine.images.list(filters={"label": f"org.opencontainers.image.revision={shas[1]}"}):
        pushed.engine.images.remove(str(image.id), force=True)
    for sha in (shas[1], shas[2]):
        pushed.play("rollback-workers.yml", "-e", f"worker_revision={sha[:7]}").must_pass()
        assert pushed.shas() == {sha}
    pushed.play("rollback-workers.yml", "-e", f"worker_revision={shas[0][:7]}").must_fail("exactly one proved revision")


@pytest.mark.timeout(600)
def test_a_deploy_that_runs_and_a_host_that_refuses(pushed: Fleet) -> None:
    pushed.deploy().must_pass()
    pushed.redis.client.set(f"{pushed.name}:lock:deploy", "somebody")
    pushed.play("prune-workers.yml").must_fail("lock:deploy")
    pushed.redis.client.delete(f"{pushed.name}:lock:deploy")
    pushed.play("prune-workers.yml", "-e", "worker_keep_revisions=0").must_fail("option keep")
    assert pushed.evidence()[-1]["result"] == "failed"
    pushed.play("prune-workers.yml").must_pass()
