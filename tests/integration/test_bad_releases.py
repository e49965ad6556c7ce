# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases that are bad in every way a worker can be: the deploy fails, says why, leaves the old release or nothing."""

from __future__ import annotations

import json
from typing import Any, Iterator

import pytest
from support.extent import some
from support.fleet import Fleet, FleetRedis, some_fleet

BAD: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "crashes at start": ({"crash_after": 0}, ("exit status 3", "boom")),
    "crashes after 4 s": ({"crash_after": 4}, ("exit status 3", "boom")),
    "hangs in starting": ({"hang": True, "say": "still loading"}, ("not healthy within", "still loading")),
    "registers another SHA": ({"lie": "f" * 40}, ("[STALE]", "fffffff")),
    "never registers": ({"mute": True}, ("[UNREGISTERED]",)),
}
QUICK = ("-e", "worker_stabilize=6", "-e", "worker_wait_timeout=30", "-e", "worker_registration_timeout=25")


@pytest.fixture(scope="module")
def good(module_fleet: Fleet) -> str:
    """The SHA that the module's fleet runs and goes back to."""
    module_fleet.deploy().must_pass()
    return module_fleet.git("rev-parse", "HEAD")


@pytest.mark.parametrize("name", some(BAD, "crashes after 4 s", "registers another SHA"))
def test_a_bad_release_is_rolled_back(module_fleet: Fleet, good: str, name: str) -> None:
    fleet, (behaviour, said) = module_fleet, BAD[name]
    bad = fleet.commit(**behaviour)
    run = fleet.deploy(*QUICK).must_fail(*said)
    assert "back on what it ran before" in run.output
    record = fleet.evidence()[-1]
    assert (record["result"], record["published"]) == ("rolled back", False)
    assert fleet.shas() == {good}
    fleet.verify("-e", f"worker_expected_sha={good}").must_pass()
    fleet.verify("-e", f"worker_expected_sha={bad}").must_fail()


def test_a_failed_rollout_names_container_and_service(module_fleet: Fleet, good: str) -> None:
    """And it leaves the bad release no way back: the host's record allows the old one alone."""
    fleet = module_fleet
    fleet.commit(crash_after=0)
    fleet.deploy(*QUICK).must_fail()
    failures = fleet.evidence()[-1]["hosts"]["here"]["rollout"]["failures"]
    assert {failure["service"] for failure in failures} <= {"alpha", "beta"}
    assert failures
    assert all(failure["exit_code"] == 3 and "boom" in failure["log"] for failure in failures)
    record = json.loads((fleet.root / fleet.name / "guard" / "guard.json").read_text())
    assert (record["phase"], [release["sha"] for release in record["allowed"]]) == ("settled", [good])


def test_a_good_release_after_bad_ones(module_fleet: Fleet, good: str) -> None:
    fleet = module_fleet
    sha = fleet.commit()
    fleet.deploy().must_pass()
    assert fleet.shas() == {sha} != {good}


@pytest.fixture(scope="module")
def nothing(tmp_path_factory: pytest.TempPathFactory, fleet_redis: FleetRedis, base_reference: str) -> Iterator[Fleet]:
    """A fleet that was never deployed, as a bad first release leaves it."""
    with some_fleet(tmp_path_factory.mktemp("nothing"), fleet_redis, base_reference) as made:
        yield made


@pytest.mark.parametrize("name", some(BAD, "crashes at start", "never registers"))
def test_a_bad_first_release_leaves_nothing_running(nothing: Fleet, name: str) -> None:
    behaviour, said = BAD[name]
    nothing.commit(**behaviour)
    nothing.deploy(*QUICK).must_fail(*said)
    assert nothing.containers() == []
    assert nothing.evidence()[-1]["result"] == "rolled back"


def test_a_good_first_release_after_bad_ones(nothing: Fleet) -> None:
    nothing.commit()
    nothing.deploy().must_pass()


def test_another_release_of_the_same_commit_is_rolled_back(fleet: Fleet) -> None:
    """It took over the tags that name the commit; the old release is its images and not their tags."""
    fleet.deploy().must_pass()
    images = {container.image.id for container in fleet.containers()}
    fleet.variables["worker_image_build_args"] = {"NOTE": "another"}
    fleet.variables["worker_service_defaults"]["healthcheck"]["test"] = ["false"]
    fleet.deploy(*QUICK).must_fail("not healthy within", "back on what it ran before")
    assert {container.image.id for container in fleet.containers()} == images
    assert not images & {image.id for image in fleet.engine.images.list(name=f"{fleet.name}-worker")}
    fleet.verify().must_pass()


def test_the_default_window_sees_a_crash_after_12_seconds(fleet: Fleet) -> None:
    """In a loop, with a restart policy that hides it: compose's own --wait calls such a worker healthy."""
    for name in ("worker_stabilize", "worker_wait_timeout"):
        del fleet.variables[name]
    fleet.commit(crash_after=12)
    fleet.deploy().must_fail("boom", "exit status 3")
    assert fleet.containers() == []


def test_the_longer_grace_of_old_and_new_counts(fleet: Fleet) -> None:
    """What is being stopped is the old worker: a new, shorter grace doesn't cut it off."""
    fleet.variables["worker_service_defaults"]["stop_grace_period"] = "5s"
    fleet.commit(ignore_sigterm=True)
    fleet.deploy().must_pass()
    old = set(fleet.ids().values())
    fleet.variables["worker_service_defaults"]["stop_grace_period"] = "1s"
    fleet.commit()
    fleet.deploy().must_pass()
    recreate = fleet.evidence()[-1]["hosts"]["here"]["rollout"]["durations"]["recreate"]
    assert recreate >= 5
    assert old.isdisjoint(fleet.ids().values())


def test_a_host_that_moved_more_than_planned_says_so(fleet: Fleet) -> None:
    """The plan found nothing to do; then Redis and a container died, and the container was replaced in vain."""
    fleet.deploy().must_pass()
    old = fleet.ids()
    guard = fleet.root / fleet.name / "guard" / "version_guard.sh"
    guard.unlink()
    died = fleet.directory / "died"
    # The rolling puts the guards back, so they are the mark that it has begun.
    deaths = [
        f"test -e {guard}", f"test ! -e {died}", f"touch {died}", f"kill -9 {fleet.redis.pid}",
        f"docker rm -f {fleet.project}-alpha-1"]
    die = f"{{ {' && '.join(deaths)}; }} >&2; echo 2"
    fleet.variables["worker_stabilize"] = f"{{{{ lookup('ansible.builtin.pipe', '{die}') }}}}"
    try:
        run = fleet.deploy()
    finally:
        fleet.redis.stop()
        fleet.redis.start()
    assert run.status != 0, run.output
    assert died.exists()
    assert fleet.ids() != old
    assert "before it touched any container" not in run.output
    assert fleet.evidence()[-1]["hosts"]["here"]["moved"] is True
