# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Guards are live in every container of a host: a deploy that was overtaken puts none there."""

from __future__ import annotations

from typing import Any

import pytest
from model.interpreter import Run
from model.making import NewModel
from model.world import Release

A, B, C = Release("a"), Release("b"), Release("c")


def test_a_deploy_that_is_suspended_before_its_guards_leaves_those_of_the_later_one(
    new_model: NewModel, monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = new_model(1)
    guard = model.roots["h1"] / "demo" / "guard" / "version_guard.sh"
    module, ends = model.modules.run, [model.run(A)]
    guard.write_text("edited, so that the next deploy puts it back\n")

    def overtake() -> None:
        model.redis.delete("demo:lock:deploy")
        ends.append(model.run(C))
        guard.write_text("of a later collection\n")

    def suspended(under: Run, host: str, name: str, arguments: dict[str, Any], check_mode: bool) -> dict[str, Any]:
        if name == "worker_guard":
            monkeypatch.setattr(model.modules, "run", module)
            overtake()
        return module(under, host, name, arguments, check_mode)

    monkeypatch.setattr(model.modules, "run", suspended)
    ends.append(model.run(B))
    assert [end is not None and end.status == 0 for end in ends] == [True, True, False]
    assert guard.read_text() == "of a later collection\n"
