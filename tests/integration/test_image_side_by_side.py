# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds on an engine on which others build and remove images at the same time."""

from __future__ import annotations

import io
import threading
import time
from pathlib import Path
from typing import Any, Iterator

import docker
import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.engine_images import ImageEngine
from ansible_collections.driftguard.workers.plugins.module_utils.image_plan import LABEL_PROBE
from support.image_app import App

#: Nothing in it depends on the commit, so that two fleets' images are the same but for their stamps.
SAME = 'ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nRUN echo same >/same\nENTRYPOINT ["python3"]\nCMD ["/app/worker.py"]\n'
TEMPORARY = "driftguard.local/build:"


@pytest.fixture
def apps(tmp_path: Path, base_reference: str) -> Iterator[list[App]]:
    made = [App(tmp_path, base_reference) for _ in range(2)]
    yield made
    for each in made:
        each.close()


def unnamed(engine: Any, since: float, fleet: str) -> set[str]:
    """Images of a fleet's that were built and lost their temporary name since then."""
    events = engine.events(
        since=since, until=time.time(), decode=True, filters={"type": "image", "event": "untag"})
    actors = [event["Actor"] for event in events]
    return {
        str(actor["ID"]) for actor in actors if actor["Attributes"].get(LABEL_PROBE, "").startswith(TEMPORARY + fleet)}


@pytest.mark.parametrize("builder", ["buildx", "classic"])
def test_what_two_fleets_build_of_the_same_content_is_never_one_image(apps: list[App], builder: str) -> None:
    # One image would go with the temporary name of the fleet that is done first, while the other's is being named.
    since = time.time()
    for app in apps:
        app.commit(SAME)
        app.build(builder=builder).must_pass()
    first, second = (unnamed(app.engine, since, app.fleet) for app in apps)
    assert len(first) == len(second) == 1
    assert first != second


class Churn:
    """Somebody makes images upon nothing, and removes them."""

    def __init__(self) -> None:
        self.rounds = 0
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(2)]

    def __enter__(self) -> Churn:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_unused: object) -> None:
        self._ends.set()
        for each in self._threads:
            each.join()

    def _run(self) -> None:
        engine = docker.from_env()
        while not self._ends.is_set():
            image, _log = engine.images.build(
                fileobj=io.BytesIO(b"FROM scratch\nLABEL churn=1\n"), nocache=True, rm=True, forcerm=True)
            engine.images.remove(str(image.id), force=True)
            self.rounds += 1
        engine.close()


def test_images_that_the_cache_is_looked_for_in_are_removed_meanwhile() -> None:
    engine = ImageEngine.connect()
    with Churn() as churn:
        for number in range(40):
            image = engine.build(fileobj=io.BytesIO(f"FROM scratch\nCMD [\"{number}\"]\n".encode()), timeout=60)
            engine.remove_image(image)
    assert churn.rounds
