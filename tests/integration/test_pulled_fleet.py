# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet whose images come from a registry with a password: what was pruned is pulled again before anything stops."""

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
def pulled(tmp_path: Path, fleet_redis: FleetRedis, base_reference: str, registry: Registry) -> Iterator[Fleet]:
    with some_fleet(tmp_path, fleet_redis, base_reference, {"alpha": None}) as made:
        assert registry.closed
        made.variables.update(
            worker_image_push=True, worker_image_repository=f"{registry.name}/shop/{made.name}-worker",
            worker_registry_username=registry.closed.username, worker_registry_password=registry.closed.password)
        yield made


def forget(fleet: Fleet, sha: str) -> None:
    """Remove a commit's images from the engine; its containers too."""
    for container in fleet.containers():
        if container.image.labels["org.opencontainers.image.revision"] == sha:
            container.remove(force=True)
    for image in fleet.engine.images.list(filters={"label": f"org.opencontainers.image.revision={sha}"}):
        fleet.engine.images.remove(str(image.id), force=True)


@pytest.mark.timeout(900)
def test_back_to_a_release_whose_images_are_gone(pulled: Fleet, registry: Registry) -> None:
    old = pulled.git("rev-parse", "HEAD")
    pulled.deploy().must_pass()
    new = pulled.commit()
    pulled.deploy().must_pass()
    assert pulled.shas() == {new}
    forget(pulled, old)

    check = pulled.play("rollback-workers.yml", "--check", "--diff").must_pass()
    assert "@sha256:" in check.output
    assert pulled.shas() == {new}
    with registry.paused():
        failed = pulled.play("rollback-workers.yml", "-e", "worker_pull_timeout=3").must_fail("within the time limit")
        assert pulled.shas() == {new}, "nothing was touched"
    back = pulled.play("rollback-workers.yml").must_pass()
    assert pulled.shas() == {old}
    pulled.verify("-e", f"worker_expected_sha={old}").must_pass()

    # A bad release, while the old one's images are gone: the run pulls them again before it goes back.
    forget(pulled, old)
    pulled.commit(crash_after=0)
    bad = pulled.deploy("-e", "worker_stabilize=1").must_fail("is back on what it ran before")
    assert pulled.shas() == {old}
    assert registry.closed
    secret = registry.closed.password
    assert [run for run in (check, failed, back, bad) if secret in run.output] == []
    files = [path for path in pulled.directory.rglob("*") if path.is_file() and path.name != "inventory.yml"]
    assert [path for path in files if secret.encode() in path.read_bytes()] == []

    # What hosts have needs no registry.
    with registry.paused():
        pulled.play("rollback-workers.yml", "-e", f"worker_revision={old[:7]}").must_pass()
