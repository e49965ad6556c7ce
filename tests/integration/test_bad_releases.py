# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases that are bad in every way a worker can be: the deploy fails, says why, leaves the old release or nothing."""

from __future__ import annotations

import time
from typing import Any

import pytest
from support.fleet import Fleet, wait_for

BAD: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "crashes at start": ({"crash_after": 0}, ("exit status 3", "boom")),
    "crashes after 4 s": ({"crash_after": 4}, ("exit status 3", "boom")),
    "hangs in starting": ({"hang": True, "say": "still loading"}, ("not healthy within", "still loading")),
    "registers another SHA": ({"lie": "f" * 40}, ("[STALE]", "fffffff")),
    "never registers": ({"mute": True}, ("[UNREGISTERED]",)),
}
QUICK = ("-e", "worker_stabilize=6", "-e", "worker_wait_timeout=15", "-e", "worker_registration_timeout=12")


@pytest.mark.parametrize("name", BAD)
def test_a_bad_release_is_rolled_back(fleet: Fleet, name: str) -> None:
    behaviour, said = BAD[name]
    good = fleet.git("rev-parse", "HEAD")
    fleet.deploy().must_pass()
    bad = fleet.commit(**behaviour)
    run = fleet.deploy(*QUICK).must_fail(*said)
    assert "back on what it ran before" in run.output
    assert fleet.shas() == {good}
    fleet.verify("-e", f"worker_expected_sha={good}").must_pass()
    fleet.verify("-e", f"worker_expected_sha={bad}").must_fail()
    record = fleet.evidence()[1]
    assert (record["result"], record["published"]) == ("rolled back", False)
    fleet.commit()
    fleet.deploy().must_pass()


@pytest.mark.parametrize("name", BAD)
def test_a_bad_first_release_leaves_nothing_running(fleet: Fleet, name: str) -> None:
    behaviour, said = BAD[name]
    fleet.commit(**behaviour)
    fleet.deploy(*QUICK).must_fail(*said)
    assert fleet.containers() == []
    assert fleet.evidence()[-1]["result"] == "rolled back"
    fleet.commit()
    fleet.deploy().must_pass()


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


def test_a_worker_that_ignores_sigterm_gets_its_grace_and_no_more(fleet: Fleet) -> None:
    fleet.variables["worker_service_defaults"]["stop_grace_period"] = "4s"
    fleet.commit(ignore_sigterm=True)
    fleet.deploy().must_pass()
    old = set(fleet.ids().values())
    fleet.commit()
    started = time.monotonic()
    fleet.deploy().must_pass()
    recreate = fleet.evidence()[-1]["hosts"]["here"]["rollout"]["durations"]["recreate"]
    assert 4 <= recreate < time.monotonic() - started
    assert old.isdisjoint(fleet.ids().values())


def test_the_longer_grace_of_old_and_new_counts(fleet: Fleet) -> None:
    """What is being stopped is the old worker: a new, shorter grace must not cut it off."""
    fleet.variables["worker_service_defaults"]["stop_grace_period"] = "5s"
    fleet.commit(ignore_sigterm=True)
    fleet.deploy().must_pass()
    fleet.variables["worker_service_defaults"]["stop_grace_period"] = "1s"
    fleet.commit()
    fleet.deploy().must_pass()
    assert fleet.evidence()[-1]["hosts"]["here"]["rollout"]["durations"]["recreate"] >= 5


def test_a_failed_rollout_names_container_and_service(fleet: Fleet) -> None:
    fleet.deploy().must_pass()
    fleet.commit(crash_after=0)
    fleet.deploy(*QUICK)
    failures = fleet.evidence()[-1]["hosts"]["here"]["rollout"]["failures"]
    assert {failure["service"] for failure in failures} <= {"alpha", "beta"}
    assert all(failure["exit_code"] == 3 and "boom" in failure["log"] for failure in failures)


def test_a_rollback_leaves_no_window_for_the_bad_release(fleet: Fleet) -> None:
    """Once rolled back, the host's record allows the old release alone, so a bad container can't come back."""
    fleet.deploy().must_pass()
    good = fleet.git("rev-parse", "HEAD")
    fleet.commit(crash_after=0)
    fleet.deploy(*QUICK).must_fail()
    record = wait_for((fleet.root / fleet.name / "guard" / "guard.json").read_text, "the record")
    assert good in record
    assert '"phase": "settled"' in record
