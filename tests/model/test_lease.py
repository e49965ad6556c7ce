# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The deployment lease stays with a run that is well, however long what it waits for takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from model.claims import result_of
from model.engine import Badness, SimEngine
from model.fleet import run
from model.interpreter import Ending
from model.making import NewModel
from model.world import Fault, Model, Release

A, B, C = Release("a"), Release("b"), Release("c")
BAD = Release("bad on h2", Badness("crash", 5.0, host="h2"))
ROLLING = 120  # worker_lease_rolling


@contextmanager
def slow_pulls(model: Model, seconds: float, after: list[Ending]) -> Iterator[None]:
    """Each pull takes so long; after the first another run is tried."""
    real = SimEngine.pull

    def pull(engine: SimEngine, what: str, reference: str, timeout: float) -> None:
        model.clock.move(seconds)
        real(engine, what, reference, timeout)
        if not after:
            ending = model.run(C)
            assert ending is not None
            after.append(ending)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SimEngine, "pull", pull)
        yield


def test_nobody_takes_over_while_hosts_pull_what_they_go_back_to(new_model: NewModel) -> None:
    model = new_model(2)
    others: list[Ending] = []
    assert run(model, A, False)
    model.built.add(BAD.release_id)
    model.images[BAD.image.reference] = model.images[BAD.image.id] = BAD.image
    for engine in model.engines.values():  # somebody pruned
        engine.local = {BAD.image.id}
    with slow_pulls(model, ROLLING + 10, others):
        ending = run(model, BAD, False)
    assert ending is not None
    assert [other.status != 0 and "held by" in "\n".join(other.said) for other in others] == [True]
    assert result_of(ending) == "rolled back", ending.said


def test_nobody_takes_over_while_the_whole_fleet_is_proved(new_model: NewModel) -> None:
    """Each host was proved; then a worker hangs, and its registration is waited for."""
    model = new_model(2)
    others: list[Ending] = []

    def hang() -> None:
        one = next(iter(model.engines["h2"].containers.values()))
        one.image = replace(one.image, badness=Badness("silent"))
        model.workers.left(one.id)

    def try_another() -> None:
        ending = model.run(C)
        assert ending is not None
        others.append(ending)

    assert run(model, A, False)
    ending = model.run(
        B, faults=(Fault("other", 0, task="Prove this host as part of the fleet"), Fault("other", 0, task="Decide")),
        others=(hang, try_another), worker_registration_timeout=ROLLING + 10)
    assert ending is not None
    assert [other.status != 0 and "held by" in "\n".join(other.said) for other in others] == [True]
    assert result_of(ending) == "rolled back", ending.said


@pytest.mark.parametrize("release", [B, BAD], ids=["published", "gone back"])
def test_it_outlasts_the_drain_of_who_has_lost_its_user(new_model: NewModel, release: Release) -> None:
    model = new_model(2)
    assert run(model, A, False)
    model.drain = ROLLING + 10
    ending = run(model, release, False, worker_redis_user_per_release="true")
    assert ending is not None
    assert result_of(ending) == ("ok" if release == B else "rolled back"), ending.said
    assert not model.lease.lapsed


def test_hosts_go_back_although_it_could_not_be_renewed(new_model: NewModel) -> None:
    model = new_model(2)
    assert run(model, A, False)
    # Its include and itself: after the build, before the rollout, before going back.
    away = Fault("flaky", 0, "h1", more=6, task="Renew the deployment lease")
    ending = run(model, BAD, False, faults=(away,))
    assert ending is not None
    said = "\n".join(ending.said)
    assert "expected the deployment lease to be renewed for 900 s; found Failed to connect" in said
    assert result_of(ending) == "rolled back", said


@pytest.mark.parametrize("again", [True, False])
@pytest.mark.parametrize("task", ["Close the run", "Give the lease back"])
def test_what_redis_has_lost_before_the_end_is_no_success(new_model: NewModel, again: bool, task: str) -> None:
    """All is proved, and published or found to be; then Redis loses it."""
    model = new_model(2)
    assert run(model, A, False)
    ending = run(model, A if again else B, False, faults=(Fault("empty", 0, task=task),))
    assert ending is not None
    said = "\n".join(ending.said)
    assert ending.status != 0, said
    assert "found number 0, as Redis lost data while this run was at work; remedy: run again" in said
    ending = run(model, A if again else B, False)
    assert ending is not None
    assert ending.status == 0, "\n".join(ending.said)
