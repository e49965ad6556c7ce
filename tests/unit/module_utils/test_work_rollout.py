# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rollout takes from the directory where its controller attends it: options with secrets, once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils import work_rollout
from ansible_collections.driftguard.workers.plugins.module_utils.engine import Engine
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.work_rollout import ROLLOUT

PRIVATE = '{"proof": {"redis_url": "redis://bob:hidden@redis:6379/0", "redis_password": "secret", "timeout": 7}}'


@pytest.fixture
def module(tmp_path: Path) -> Any:
    """What the work sees of a module that is attended, and was told nothing of a proof."""
    return SimpleNamespace(
        params={"attendance": str(tmp_path), "proof": None, "state": "present"}, check_mode=False, no_log_values=set())


def brought(module: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The options with which the module brings its host to the revision."""
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(Engine, "connect", lambda: None)
    monkeypatch.setattr(work_rollout, "bring_or_keep", lambda _engine, options, *_: seen.append(options))
    ROLLOUT.action(module)
    return seen[0]


def test_what_was_left_is_taken_once_and_kept_out_of_all_it_says(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "private").write_text(PRIVATE)
    proof = brought(module, monkeypatch)["proof"]
    assert (proof["redis_password"], proof["timeout"], proof["redis_timeout"]) == ("secret", 7.0, 5.0)
    assert {"secret", "hidden"} <= module.no_log_values
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_was_left_the_options_stand(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert brought(module, monkeypatch) == module.params


@pytest.mark.parametrize("text", ["", "[1]", '{"proof": {"redis_password": "x"}}', '{"other": 1}'])
def test_anything_else_is_refused(module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "private").write_text(text)
    with pytest.raises(DriftguardError, match="the run's directory"):
        brought(module, monkeypatch)
