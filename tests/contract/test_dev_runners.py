# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The renderer refuses the same development runners as the guards."""

from __future__ import annotations

import json
from pathlib import Path

from ansible_collections.driftguard.workers.plugins.module_utils import dev_runners

CONTRACT = json.loads((Path(__file__).resolve().parents[2] / "files" / "guard" / "contract.json").read_text())[
    "devRunners"
]


def test_names_and_separators_are_the_contracts() -> None:
    assert list(dev_runners.DEV_RUNNERS) == CONTRACT["names"]
    assert CONTRACT["separators"] == dev_runners.SEPARATORS


def test_each_runner_is_found_and_a_built_program_is_not() -> None:
    for name in CONTRACT["names"]:
        assert dev_runners.find_runner(["sh", "-c", f"exec {name} worker"]) in CONTRACT["names"]
    assert dev_runners.find_runner(["node", "dist/worker.js", "--name=extsx", "/data/tsxfiles"]) is None
