# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deploys through the playbooks: exactly what differs is recreated, and check mode foretells it in silence."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from support.fleet import PROJECT, Fleet, Run


class Silence:
    """Collects what the engine did between entering and leaving."""

    # Looking at containers is not doing: a health check of a running worker is the engine's own.
    IGNORED = ("exec_create", "exec_start", "exec_die", "health_status")

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.events: list[str] = []

    def __enter__(self) -> Silence:
        self._since = time.time()
        return self

    def __exit__(self, *_: Any) -> None:
        own = [self._fleet.name, *self._fleet.ids().values()]
        window: Any = {"since": self._since, "until": time.time()}
        for event in self._fleet.engine.events(**window, decode=True):
            if any(mark in str(event) for mark in own) and not event["Action"].startswith(self.IGNORED):
                self.events.append(f"{event['Type']} {event['Action']} {event['Actor']}")


def foretold(fleet: Fleet, *arguments: str) -> Run:
    """A check run with diff; the engine must not have done anything."""
    with Silence(fleet) as silence:
        run = fleet.deploy("--check", "--diff", *arguments).must_pass()
    assert silence.events == []
    return run


def actions(run: Run) -> set[tuple[str, str]]:
    """What a check run's diff says of containers: name and action."""
    return set(re.findall(r"^\+\s*([\w.-]+): (create|recreate|remove) \(", run.output, re.MULTILINE))


def done(fleet: Fleet, before: dict[str, str]) -> set[str]:
    """Names of the containers that are new since before."""
    return {name for name, container_id in fleet.ids().items() if before.get(name) != container_id}


def step_kinds(fleet: Fleet) -> dict[str, int]:
    """What the last run says it did, by action."""
    steps = fleet.evidence()[-1]["hosts"]["here"]["rollout"]["steps"]
    kinds: dict[str, int] = {}
    for step in steps:
        kinds[step["action"]] = kinds.get(step["action"], 0) + 1
    return kinds


@pytest.mark.timeout(1500)
def test_a_fleets_life(fleet: Fleet) -> None:
    """First deploy, nothing new, a new commit, a limit, a replica more and less, some services, and back."""
    first = foretold(fleet)
    assert {action for _, action in actions(first)} == {"create"}
    fleet.deploy().must_pass()
    assert step_kinds(fleet) == {"create": 3}
    assert len(fleet.containers()) == 3

    check = foretold(fleet)
    run = fleet.deploy().must_pass()
    assert (check.changed, run.changed) == (0, 0), run.output
    ids = fleet.ids()

    fleet.commit()
    check = foretold(fleet)
    assert actions(check) == {(name, "recreate") for name in ids}
    fleet.deploy().must_pass()
    assert done(fleet, ids)
    assert set(ids.values()).isdisjoint(fleet.ids().values())
    assert step_kinds(fleet) == {"recreate": 3}

    ids, release = fleet.ids(), fleet.evidence()[-1]["release"]["release_id"]
    fleet.variables["worker_fleet_services"]["alpha"] = {"memory": "96M"}
    check = foretold(fleet)
    assert actions(check) == {(name, "recreate") for name in ids if "alpha" in name}
    fleet.deploy().must_pass()
    assert {name.split("-")[2] for name in done(fleet, ids)} == {"alpha"}
    assert fleet.evidence()[-1]["release"]["release_id"] == release
    assert fleet.containers(service="alpha")[0].attrs["HostConfig"]["Memory"] == 96 * 1024**2

    ids = fleet.ids()
    fleet.variables["worker_fleet_services"]["beta"] = {"replicas": 3}
    assert {action for _, action in actions(foretold(fleet))} == {"create"}
    fleet.deploy().must_pass()
    assert len(done(fleet, ids)) == 1
    assert set(ids.items()) <= set(fleet.ids().items())

    ids = fleet.ids()
    fleet.variables["worker_fleet_services"]["beta"] = {"replicas": 1}
    assert {action for _, action in actions(foretold(fleet))} == {"remove"}
    fleet.deploy().must_pass()
    assert done(fleet, ids) == set()
    assert len(fleet.containers()) == 2

    ids = fleet.ids()
    fleet.commit()
    fleet.deploy("-e", "worker_services=alpha").must_pass()
    assert {name.split("-")[2] for name in done(fleet, ids)} == {"alpha"}
    assert fleet.evidence()[-1]["release"]["release_id"] == release

    check = fleet.play("rollback-workers.yml", "--check", "--diff").must_pass()
    fleet.play("rollback-workers.yml").must_pass()
    assert len(fleet.containers()) == 4, "the previous revision had three instances of beta"


def test_one_stale_replica_is_recreated_and_not_its_siblings(whole: Fleet) -> None:
    ids = whole.ids()
    victim = whole.containers(service="beta")[0]
    victim.stop(timeout=0)
    assert actions(foretold(whole)) == {(victim.name, "recreate")}
    whole.deploy().must_pass()
    kept = {name: container_id for name, container_id in ids.items() if name != victim.name}
    assert kept.items() <= whole.ids().items()


def test_rollback_to_previous_and_to_a_named_commit(fleet: Fleet) -> None:
    shas = [fleet.git("rev-parse", "HEAD")]
    fleet.deploy().must_pass()
    for _ in range(2):
        shas.append(fleet.commit())
        fleet.deploy().must_pass()
    fleet.play("rollback-workers.yml").must_pass()
    fleet.verify("-e", f"worker_expected_sha={shas[1]}").must_pass()
    fleet.play("rollback-workers.yml").must_pass()
    fleet.verify("-e", f"worker_expected_sha={shas[0][:10]}").must_pass()
    fleet.play("rollback-workers.yml", "-e", f"worker_revision={shas[2][:7]}").must_pass()
    fleet.verify("-e", f"worker_expected_sha={shas[2]}").must_pass()
    fleet.play("rollback-workers.yml", "-e", "worker_revision=99").must_fail(
        "revision 99", "exactly one proved revision"
    )
    fleet.deploy().must_pass()


def test_verify_says_who_expects_the_commit(whole: Fleet) -> None:
    sha = whole.git("rev-parse", "HEAD")
    assert "Expected by the fleet's record in Redis" in whole.verify().must_pass().output
    assert "Expected by option expected_sha" in whole.verify("-e", f"worker_expected_sha={sha[:7]}").must_pass().output
    whole.commit()
    assert f"Expected GIT_SHA: {sha}" in whole.verify().must_pass().output, (
        "the checkout's HEAD says nothing about the fleet"
    )
    whole.verify("-e", "worker_expected_sha=0000000").must_fail("prefix of exactly one")


def test_verify_before_the_first_deploy_fails(fleet: Fleet) -> None:
    fleet.verify().must_fail("[MISSING]", "there is no release record")


def test_extras_stop_a_deploy_before_it_touches_anything(whole: Fleet) -> None:
    ids = whole.ids()
    image = whole.containers()[0].image
    stray = whole.engine.containers.run(
        image.id, ["-c", "import time; time.sleep(600)"], entrypoint="python3", name=f"{whole.name}-stray", detach=True
    )
    whole.commit()
    whole.deploy().must_fail(f"{whole.name}-stray", "worker_prune=true", "nothing was touched")
    assert whole.ids() == ids
    whole.deploy("-e", "worker_prune=true").must_pass()
    assert stray.id not in {container.id for container in whole.engine.containers.list(all=True, ignore_removed=True)}


def test_evidence_follows_its_schema(whole: Fleet) -> None:
    schema = json.loads((PROJECT / "files" / "evidence.schema.json").read_text())
    whole.commit(crash_after=0)
    whole.deploy("-e", "worker_stabilize=1").must_fail()
    whole.verify().must_pass()
    records = whole.evidence()
    assert [record["result"] for record in records[-2:]] == ["rolled back", "ok"]
    for record in records:
        jsonschema.validate(record, schema)
    deployed = [record for record in records if (record["run"]["action"], record["result"]) == ("deploy", "ok")][-1]
    image = deployed["release"]["variants"]["base"]
    assert image["size"] > 0
    assert image["id"] == whole.containers()[0].image.id
    assert {row["verdict"] for row in deployed["hosts"]["here"]["proof"]["rows"]} == {"OK"}


@pytest.mark.parametrize("playbook", ["deploy-workers.yml", "verify-workers.yml", "fence-workers.yml"])
def test_a_run_that_is_for_none_of_the_groups_hosts_fails(fleet: Fleet, tmp_path: Path, playbook: str) -> None:
    """It would do nothing, and end well: limited to another host, or the group named where no play sees it."""
    other = tmp_path / "other.yml"
    other.write_text(yaml.safe_dump({"others": {"hosts": {"elsewhere": {"ansible_connection": "local"}}}}))
    fleet.play(playbook, "-i", str(other), "--limit", "elsewhere").must_fail(
        "inventory group workers: expected at least one host", "none of its hosts was chosen")
    other.write_text(yaml.safe_dump({"shop": {"hosts": {"here": None}}, "all": {"vars": {"worker_group": "shop"}}}))
    # The plays are for the group that their own default names.
    fleet.group = "staff"
    fleet.play(playbook, "-i", str(other)).must_fail(
        "inventory group shop: expected at least one host", "-e worker_group=NAME")
    assert fleet.containers() == []


@pytest.mark.parametrize("group", ["nobody", "wrokers"])
def test_an_empty_or_mistyped_group_fails(fleet: Fleet, group: str) -> None:
    fleet.deploy("-e", f"worker_group={group}").must_fail("expected at least one host")
    assert fleet.containers() == []
