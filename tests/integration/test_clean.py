# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""make clean on the real engine: what a fleet of the tests made goes, what others made stays."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Iterator
from uuid import uuid4

import docker
import docker.errors
import pytest

from tools.owned import MADE_FOR
from tools.paths import ROOT

FLEET_LABEL = "io.driftguard.fleet"
OPT = Path("/opt/driftguard")


class Made:
    """An image, a container, a network, a volume and a directory of one fleet."""

    def __init__(self, engine: docker.DockerClient, fleet: str, base: str) -> None:
        self.engine = engine
        self.fleet = fleet
        self.labels = {FLEET_LABEL: fleet}
        marks = {MADE_FOR: fleet}
        self.tag = f"{fleet}-worker:test"
        self.image = self._image(base)
        self.network = engine.networks.create(f"{fleet}-net", labels=marks)
        self.volume = engine.volumes.create(f"{fleet}-data", labels=marks)
        self.container = engine.containers.create(
            self.image, ["sleep", "60"], name=f"{fleet}-workers-x-1", network=f"{fleet}-net",
            volumes={f"{fleet}-data": {"bind": "/data"}})
        self.container.start()
        self.directory = OPT / fleet / "guard"
        self.directory.mkdir(parents=True)

    def _image(self, base: str) -> Any:
        made = self.engine.containers.create(base, ["true"])
        try:
            changes = [f"LABEL {key}={value}" for key, value in self.labels.items()]
            return made.commit(*self.tag.split(":"), changes=changes)
        finally:
            made.remove()

    def left(self) -> set[str]:
        """What is still there of it."""
        kinds: dict[str, tuple[Any, str]] = {
            "image": (self.engine.images, self.tag),
            "container": (self.engine.containers, str(self.container.id)),
            "network": (self.engine.networks, str(self.network.id)),
            "volume": (self.engine.volumes, str(self.volume.name)),
        }
        found = {kind for kind, (collection, name) in kinds.items() if _is_there(collection, name)}
        return found | ({"directory"} if self.directory.parent.exists() else set())

    def remove(self) -> None:
        """Remove what is left, as no test may leave anything."""
        if "container" in self.left():
            self.container.remove(force=True)
        for kind, thing in (("network", self.network), ("volume", self.volume)):
            if kind in self.left():
                thing.remove()
        if "image" in self.left():
            self.engine.images.remove(self.tag)
        if self.directory.exists():
            self.directory.rmdir()
            self.directory.parent.rmdir()


ALL = {"image", "container", "network", "volume", "directory"}


def _is_there(collection: Any, name: str) -> bool:
    try:
        collection.get(name)
    except docker.errors.NotFound:
        return False
    return True


@pytest.fixture
def engine() -> Iterator[docker.DockerClient]:
    """This machine's engine."""
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture
def ours(engine: docker.DockerClient, base_reference: str) -> Iterator[Made]:
    """A fleet named as tests name theirs."""
    made = Made(engine, f"t{uuid4().hex[:8]}", base_reference)
    yield made
    made.remove()


@pytest.fixture
def others(engine: docker.DockerClient, base_reference: str) -> Iterator[Made]:
    """A fleet of somebody else."""
    made = Made(engine, f"shop-{uuid4().hex[:6]}", base_reference)
    yield made
    made.remove()


def clean(fleet: str) -> subprocess.CompletedProcess[str]:
    """Run it for one fleet: other tests have theirs on the same engine."""
    return subprocess.run(
        [ROOT / "tools" / "python", "tools.clean", "--fleet", fleet], capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL)


def test_a_fleet_goes_with_everything_it_made(ours: Made, others: Made) -> None:
    assert (ours.left(), others.left()) == (ALL, ALL)
    done = clean(ours.fleet)
    assert (done.returncode, done.stderr) == (0, "")
    assert (ours.left(), others.left()) == (set(), ALL)
    assert done.stdout.count("removed") == len(ALL)


def test_nothing_to_remove_is_fine(engine: docker.DockerClient) -> None:
    done = clean(f"t{uuid4().hex[:8]}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_image_that_somebody_else_uses_stays(engine: docker.DockerClient, ours: Made) -> None:
    user = engine.containers.create(ours.tag, ["true"], labels={FLEET_LABEL: "shop"})
    try:
        done = clean(ours.fleet)
        assert done.returncode == 0
        assert ours.left() == {"image"}
        assert f"kept     image {ours.tag}" in done.stdout
    finally:
        user.remove()
