# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Killed between two steps: the next run takes up what was published, and goes back from what was not."""

from __future__ import annotations

import os
import signal

from support.fleet import Fleet, wait_for


def killed_with_all_recreated(fleet: Fleet) -> None:
    """A deployment that was killed when all its containers ran, and before it said what it thinks of them."""
    old = set(fleet.ids().values())
    process = fleet.start("deploy-workers.yml", "-e", "worker_stabilize=30")

    def all_new() -> bool:
        running = {container.id for container in fleet.containers() if container.status == "running"}
        return len(running) == 3 and not running & old

    wait_for(all_new, "all containers to be recreated", 60)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


IMPATIENT = ("-e", "worker_registration_timeout=5")


def runs(fleet: Fleet) -> str:
    """The one commit that its containers are of."""
    (sha,) = fleet.shas()
    return sha


def test_a_bad_release_that_a_killed_run_left_is_rolled_back(whole: Fleet) -> None:
    """The next run finds nothing to change, and has to go back all the same."""
    good = runs(whole)
    whole.commit(mute=True)
    killed_with_all_recreated(whole)
    run = whole.deploy(*IMPATIENT).must_fail("[UNREGISTERED]", "back on what it ran before")
    assert whole.evidence()[-1]["result"] == "rolled back", run.output
    assert runs(whole) == good
    whole.verify().must_pass()


def test_a_bad_first_release_that_a_killed_run_left_is_removed(fleet: Fleet) -> None:
    fleet.commit(mute=True)
    killed_with_all_recreated(fleet)
    fleet.deploy(*IMPATIENT).must_fail("[UNREGISTERED]")
    assert fleet.containers() == []


def published_and_killed(fleet: Fleet) -> tuple[str, str]:
    """Two commits, the second published by a run that was killed before it made that revision the host's current."""
    first = runs(fleet)
    link, history = (fleet.root / fleet.name / part for part in ("current", "state/history.json"))
    target, told = os.readlink(link), history.read_text()
    second = fleet.commit()
    fleet.deploy().must_pass()
    link.unlink()
    link.symlink_to(target)
    history.write_text(told)
    return first, second


def test_a_rollback_goes_back_to_what_was_published_before_the_kill(whole: Fleet) -> None:
    _, second = published_and_killed(whole)
    whole.commit(crash_after=0)
    whole.deploy().must_fail("exit status 3", "back on what it ran before")
    assert runs(whole) == second
    whole.verify("-e", f"worker_expected_sha={second}").must_pass()


def test_previous_is_what_was_before_the_published_one(whole: Fleet) -> None:
    first, _ = published_and_killed(whole)
    whole.play("rollback-workers.yml").must_pass()
    assert runs(whole) == first
    whole.verify().must_pass()


def test_previous_is_the_proved_one_when_a_killed_run_left_another(whole: Fleet) -> None:
    good = runs(whole)
    whole.commit(mute=True)
    killed_with_all_recreated(whole)
    whole.play("rollback-workers.yml").must_pass()
    assert runs(whole) == good
