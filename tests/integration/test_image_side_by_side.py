# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds on an engine on which others build and remove images at the same time."""

from __future__ import annotations

import io
import threading
import time
from pathlib import Path
from typing import Iterator

import docker
import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.engine_images import ImageEngine
from ansible_collections.driftguard.workers.plugins.module_utils.image_plan import LABEL_PROBE
from support.image_app import App
from support.redis_server import wait_until

#: Nothing in it depends on the commit, so that two fleets' images are the same but for their stamps.
SAME = 'ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nRUN echo same >/same\nENTRYPOINT ["python3"]\nCMD ["/app/worker.py"]\n'
TEMPORARY = "driftguard.local/build:"


@pytest.fixture
def apps(tmp_path: Path, base_reference: str) -> Iterator[list[App]]:
    made = [App(tmp_path, base_reference) for _ in range(2)]
    yield made
    for each in made:
        each.close()


@pytest.mark.parametrize("builder", ["buildx", "classic"])
def test_what_two_fleets_build_of_the_same_content_is_never_one_image(apps: list[App], builder: str) -> None:
    # One image would go with the temporary name of the fleet that is done first, while the other's is being named.
    lost: dict[str, str] = {}
    # As they come: an engine remembers its last 256 events only, and others work on it too.
    stream = apps[0].engine.events(since=int(time.time()), decode=True, filters={"type": "image", "event": "untag"})

    def follow() -> None:
        for event in stream:
            lost[event["Actor"]["Attributes"].get(LABEL_PROBE, "")] = event["Actor"]["ID"]

    threading.Thread(target=follow, daemon=True).start()
    try:
        for app in apps:
            app.commit(SAME)
            app.build(builder=builder).must_pass()
        names = [f"{TEMPORARY}{app.fleet}-" for app in apps]
        wait_until(lambda: all(any(tag.startswith(name) for tag in [*lost]) for name in names), "both to be unnamed", 2)
    finally:
        stream.close()
    images = [image for tag, image in lost.items() if tag.startswith(tuple(names))]
    assert len(images) == len(set(images)) == len(apps)


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
