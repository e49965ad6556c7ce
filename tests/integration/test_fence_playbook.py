# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fence through its playbook: a release is stopped where it runs, its deploy fails, and a good one is reached."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.fleet import Fleet, Run, wait_for

pytestmark = pytest.mark.timeout(600)


def fence(fleet: Fleet, release: str, *arguments: str) -> Run:
    return fleet.play(
        "fence-workers.yml", "-e", f"worker_fence_release={release}", "-e", "worker_fence_timeout=6", *arguments)


def host_record(fleet: Fleet) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((fleet.root / fleet.name / "guard" / "guard.json").read_text())
    return found


def fleet_record(fleet: Fleet) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(fleet.redis.client.get(f"{fleet.name}:release"))
    return found


def allowed(record: dict[str, Any]) -> list[str]:
    return [release["sha"] for release in record["allowed"]]


def test_stopped_rolled_back_and_deployed_again(module_fleet: Fleet) -> None:
    fleet = module_fleet
    good = fleet.commit(obey=True)
    fleet.deploy().must_pass()
    bad = fleet.commit(obey="alpha")
    fleet.deploy().must_pass()
    ids, before = fleet.ids(), fleet_record(fleet)

    check = fence(fleet, bad[:7], "--check", "--diff").must_pass()
    assert "3 instances would be fenced" in check.output
    assert re.search(rf'^-\s+"sha": "{bad}"', check.output, re.MULTILINE)
    assert (fleet_record(fleet), allowed(host_record(fleet))) == (before, [bad])

    run = fence(fleet, bad[:7], "-e", "worker_fence_reason=loses_pages").must_fail("not everything has confirmed")
    assert (run.output.count("[FENCED]"), run.output.count("  [RUNNING]\n")) == (1, 2)
    assert "not confirmed: beta:" in run.output
    assert allowed(fleet_record(fleet)) == allowed(host_record(fleet)) == [good]
    assert fleet.ids() == ids, "nothing is recreated"
    evidence = fleet.evidence()[-1]
    assert (evidence["result"], evidence["run"]["reason"]) == ("not confirmed", "loses_pages")
    assert len(evidence["hosts"]["here"]["fence"]["unconfirmed"]) == 2
    assert fence(fleet, bad[:7], "-e", "worker_fence_timeout=0").must_fail("[RUNNING]").changed == 0

    fleet.play("rollback-workers.yml").must_pass()
    assert fleet.shas() == {good}
    fleet.prove().must_pass()


def test_a_deploy_that_is_under_way_is_overtaken(module_fleet: Fleet) -> None:
    """It brings what was fenced, and is warned; fenced again its next step fails, and a good commit converges."""
    fleet = module_fleet
    (good,) = fleet.shas()
    bad = fleet.git("rev-parse", "HEAD")
    assert bad != good
    process = fleet.start("deploy-workers.yml", "-e", "worker_stabilize=60")
    log = fleet.log
    wait_for(lambda: bad in fleet.shas() and len(fleet.containers()) == 3, "the bad release to come", 90)
    wait_for(lambda: bad in str(fleet.redis.client.get(f"{fleet.name}:release")), "it to be allowed", 30)
    run = fence(fleet, bad).must_fail("not everything has confirmed", "[RUNNING]", "docker stop")
    assert "not confirmed: beta:" in run.output
    assert process.wait(timeout=1200) != 0
    said = log.read_text()
    assert "was fenced" in said
    assert "a later deploy has overtaken this one" in said
    assert "Traceback" not in said
    assert allowed(fleet_record(fleet)) == allowed(host_record(fleet)) == [good]
    better = fleet.commit(obey=True)
    fleet.deploy().must_pass()
    assert fleet.shas() == {better}
    fleet.prove().must_pass()


def test_an_unreachable_host_is_named_and_keeps_nobody_from_being_fenced(
    module_fleet: Fleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:
    fleet = module_fleet
    (bad,) = fleet.shas()
    away = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    path = tmp_path / "two.yml"
    path.write_text(yaml.safe_dump(
        {"all": {"children": {"workers": {"hosts": {"away": away, "here": here}, "vars": fleet.variables}}}},
        sort_keys=False))
    monkeypatch.setattr(fleet, "inventory", lambda: path)
    run = fence(fleet, "").must_fail("away: begin: ", "not everything has confirmed")
    assert "[OK] All 3 instances are fenced or gone" in run.output
    assert bad not in allowed(fleet_record(fleet))
    assert bad not in allowed(host_record(fleet))
    outcomes = fleet.evidence()[-1]["hosts"]
    assert {host: outcome["status"] for host, outcome in outcomes.items()} == {"away": "unreachable", "here": "good"}


def test_a_deploy_that_fails_does_not_bring_back_what_was_fenced(module_fleet: Fleet) -> None:
    """What its host had proved last is fenced since the test before."""
    fleet = module_fleet
    (fenced,) = fleet.shas()
    assert fenced not in allowed(fleet_record(fleet))
    fleet.deploy("-e", "worker_services=alpha").must_fail("worker_services: expected a release that isn't fenced")
    fleet.commit(crash_after=0)
    fleet.deploy().must_fail("expected to go back to a release that isn't fenced")
    assert fenced not in fleet.shas()
    assert fenced not in allowed(fleet_record(fleet))
    fleet.play("rollback-workers.yml").must_pass()
    assert fleet.shas() == set(allowed(fleet_record(fleet))) != {fenced}


@pytest.mark.parametrize("refused", ["here", "there"])
def test_a_host_whose_variables_are_refused_keeps_nobody_from_fencing(
    module_fleet: Fleet, tmp_path: Path, refused: str,
) -> None:
    fleet = module_fleet
    sha = fleet.commit(obey=True)
    fleet.deploy().must_pass()
    second = tmp_path / "second.yml"
    there: dict[str, Any] = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts: dict[str, Any] = {"here": {}, "there": {**there, "worker_root": str(tmp_path / "there")}}
    hosts[refused]["worker_fence_lock_wait"] = "soon"
    second.write_text(yaml.safe_dump({"workers": {"hosts": hosts}}))
    generation = fleet_record(fleet)["generation"]
    run = fence(fleet, sha, "-i", str(second)).must_fail(f"{refused}: begin: its variables were refused")
    assert "has no attribute" not in run.output
    assert sha not in allowed(fleet_record(fleet))
    assert fleet_record(fleet)["generation"] > generation
