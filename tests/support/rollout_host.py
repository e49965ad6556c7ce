# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host with a revision on disk and an engine that answers what a test gave it, for worker_rollout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.module_base import Result
from ansible_collections.driftguard.workers.plugins.module_utils.revisions import Revisions, release_json
from ansible_collections.driftguard.workers.plugins.module_utils.rollout_keep import bring_or_keep

from .containers import IMAGE_ID, RELEASE_ID, SHA, FakeEngine, image, inspected_below
from .release_data import release_data

__all__ = ["DESIRED", "PREDICTED", "SERVICE", "Host"]

SERVICE: dict[str, Any] = {
    "variant": "base", "replicas": 1, "image": IMAGE_ID, "spec": "spec1", "grace": 30, "memory": 2**26,
    "networks": ["common"], "paths": []}
DESIRED = {"release": release_data(), "services": {"extractor": SERVICE}}
PREDICTED = {
    "release": {"release_id": RELEASE_ID, "sha": SHA},
    "services": {"extractor": {**SERVICE, "image": None, "spec": None}}
}


class Host:
    """A host with revision 7 on disk, and an engine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.revisions = Revisions(root / "demo")
        self.write(7, DESIRED["services"])
        self.engine = FakeEngine([inspected_below(root)], [image()])
        self.engine.networks = {"common"}
        self.options: dict[str, Any] = {
            "fleet": "demo", "root": str(root), "host": "host1", "state": "present", "revision": "7", "desired": None,
            "services": [], "prune": "none", "generation": 9, "run": "me", "wait_timeout": 0.1, "stabilize": 0.0,
            "lock_wait": 1.0, "published": None, "fenced": [], "bake": 0.0, "max_restarts": 0, "max_failed_jobs": None,
            "min_jobs": 20, "proof": None}

    def write(self, number: int, services: dict[str, Any]) -> None:
        self.revisions.write(number, "# compose\n", release_json(release_data(), services))

    def rollout(self, check_mode: bool = False, **options: Any) -> Result:
        engine: Any = self.engine
        return bring_or_keep(engine, {**self.options, **options}, check_mode)

    def refused(self, check_mode: bool = False, **options: Any) -> DriftguardError:
        """The error; no container was touched."""
        before = dict(self.engine.containers)
        with pytest.raises(DriftguardError) as error:
            self.rollout(check_mode, **options)
        assert (self.engine.containers, self.engine.stopped) == (before, [])
        return error.value
