# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A canary bakes: its restarts and its failed jobs decide, and what can't be judged is said so."""

from __future__ import annotations

from typing import Any, Iterator

import pytest
from support.fleet import Fleet, FleetRedis, some_fleet

RATE: dict[str, Any] = {"bake": 6, "max_failed_jobs": 0.1}


@pytest.fixture(scope="module")
def baked(tmp_path_factory: pytest.TempPathFactory, fleet_redis: FleetRedis, base_reference: str) -> Iterator[Fleet]:
    """A fleet of one instance that starts first; each test says what its canary is asked."""
    services: dict[str, Any] = {"alpha": {"order": "start-first"}}
    with some_fleet(tmp_path_factory.mktemp("canary"), fleet_redis, base_reference, services) as made:
        made.deploy().must_pass()
        yield made


def deploy(fleet: Fleet, canary: dict[str, Any], **behaviour: Any) -> Any:
    """Deploy what behaves so, judged so; the run."""
    fleet.commit(**behaviour)
    fleet.variables["worker_canary"] = canary
    return fleet.deploy()


def bake(fleet: Fleet) -> dict[str, Any]:
    """What the last run's evidence says of its bake."""
    found: dict[str, Any] = fleet.evidence()[-1]["hosts"]["here"]["rollout"]["bake"]
    return found


def test_too_many_failed_jobs_are_refused_with_figures(baked: Fleet) -> None:
    """And the old instance, which works on while the new one bakes, is never stopped."""
    old = [(one.id, one.attrs["State"]["StartedAt"]) for one in baked.containers()]
    run = deploy(baked, RATE, jobs={"completed": 20, "failed": 3, "dead": 2, "lost": 50})
    run.must_fail("at most 10.0% failed within 6 s", "failed (20.0%)", "back on what it ran before")
    found = bake(baked)
    assert (found["judged"], found["without_metrics"]) == (True, [])
    assert found["failed"] * 5 == found["jobs"] >= 25
    assert f"{found['failed']} of {found['jobs']} failed" in run.output
    assert [(one.id, one.attrs["State"]["StartedAt"]) for one in baked.containers()] == old


def test_fewer_failed_jobs_pass(baked: Fleet) -> None:
    deploy(baked, RATE, jobs={"completed": 19, "failed": 1}).must_pass()
    found = bake(baked)
    assert (found["judged"], found["failed"] * 20) == (True, found["jobs"])
    assert found["seconds"] >= 6
    # Nothing new, nothing to bake.
    assert baked.deploy().must_pass().changed == 0
    assert "bake" not in baked.evidence()[-1]["hosts"]["here"]["rollout"]


def test_too_few_jobs_and_no_metrics_are_not_judged(baked: Fleet) -> None:
    deploy(baked, {**RATE, "min_jobs": 100_000}, jobs={"failed": 20}).must_pass()
    found = bake(baked)
    assert not found["judged"]
    assert found["not_judged"] == f"{found['jobs']} jobs ended, fewer than 100000"
    deploy(baked, RATE).must_pass()
    assert (bake(baked)["judged"], bake(baked)["not_judged"]) == (False, "no instance has metrics of its jobs")
    assert bake(baked)["without_metrics"] == list(baked.ids())


def test_a_restart_within_the_bake_fails_unless_it_is_allowed(baked: Fleet) -> None:
    """Stable after two seconds, crashed after twenty."""
    deploy(baked, {"bake": 40}, crash_after=20, once=True).must_fail("boom", "at most 0 restarts", "exit status 3")
    assert bake(baked)["restarts"] == 1
    deploy(baked, {"bake": 40, "max_restarts": 1}, crash_after=20, once=True).must_pass()
    assert bake(baked)["restarts"] == 1


@pytest.mark.parametrize(("canary", "said"), [
    ({"max_failed_jobs": 0.1}, "bake is 0"),
    ({"bake": 5, "max_failed_jobs": 1.5}, "a rate from 0 to 1"),
    ({"bake": -1}, "option bake"),
    ({"bake": 5, "min_jobs": 0}, "option min_jobs"),
    ({"bakes": 5}, "bakes"),
    ({"bake": "long"}, "bake"),
])
def test_what_a_canary_cant_be_asked(baked: Fleet, canary: dict[str, Any], said: str) -> None:
    """Refused before anything is touched."""
    ids = baked.ids()
    baked.variables["worker_canary"] = canary
    baked.deploy("--check").must_fail(said)
    assert baked.ids() == ids


def test_a_canary_that_is_given_as_text_is_judged_as_any_other(baked: Fleet) -> None:
    """Such as -e gives it: what was never judged would pass for good."""
    ids = baked.ids()
    del baked.variables["worker_canary"]
    baked.deploy("--check", "-e", 'worker_canary={"max_failed_jobs":0.1}').must_fail("bake is 0")
    assert baked.ids() == ids
