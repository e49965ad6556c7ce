# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that waited for the lease: what another one changed meanwhile is what it goes by."""

from __future__ import annotations

from typing import Any, Callable

import pytest
from model.claims import result_of, settled_on
from model.engine import Badness
from model.interpreter import Ending
from model.making import NewModel
from model.test_parts import allowed, went
from model.world import Fault, Model, Release

A, B = Release("a"), Release("b")
BAD = Release("bad", Badness("crash", 5.0))


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Callable[[Model, Callable[[], None]], None]:
    """Has something happen when the next run has looked at its hosts and is about to take the lease."""

    def wait(model: Model, happens: Callable[[], None]) -> None:
        step, left = model.step, [happens]

        def stepped(run: Any, host: str, task: Any) -> None:
            if task.name == "Take the deployment lease" and left:
                left.pop()()
            step(run, host, task)

        monkeypatch.setattr(model, "step", stepped)

    return wait


def gone_on(model: Model, release: Release) -> Ending:
    """The run that waited. What it left as it was isn't what was there when it began."""
    ending = model.run(release)
    assert ending is not None
    return ending


def test_it_goes_back_to_what_another_run_brought_meanwhile(new_model: NewModel, waits: Any) -> None:
    model = new_model(3)
    assert went(model, A).status == 0
    waits(model, lambda: went(model, B))
    ending = gone_on(model, BAD)
    assert result_of(ending) == "rolled back", "\n".join(ending.said)
    assert settled_on(model) == B.release_id


def test_what_one_that_was_killed_meanwhile_left_on_hosts_goes_on(new_model: NewModel, waits: Any) -> None:
    model = new_model(3)
    assert went(model, A).status == 0

    def killed() -> None:
        model.run(B, faults=(Fault("kill in", 1, "h3"),))
        model.redis.delete("demo:lock:deploy")
        assert [set(model.running(host)) for host in model.hosts] == [{B.release_id}, {B.release_id}, {A.release_id}]

    waits(model, killed)
    ending = gone_on(model, BAD)
    assert [set(model.running(host)) for host in model.hosts] == [{A.release_id}, {B.release_id}, {A.release_id}]
    assert allowed(model) >= {A.release_id, B.release_id}, "\n".join(ending.said)
    assert result_of(ending) == "mixed"
    model.repair()
    assert went(model, B).status == 0
