# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ordinary life of a fleet on three hosts, in order: each test is the next chapter of the same fleet's.

What runs is asked of the hosts' engines over SSH. Each change is foretold by a check first, in which nothing happens.
"""

from __future__ import annotations

import json
import time

import pytest
from support.fleet import PROJECT, Run
from support.redis_server import wait_until

from lab.fleet import LabFleet
from lab.judge import rows_of, states

pytestmark = pytest.mark.timeout(1800)

# Both answers of each container on a host, by its name.
ASK = """
import json, subprocess
def ask(*command):
    return subprocess.run(["docker", *command], check=True, capture_output=True, text=True).stdout
found = json.loads(ask("inspect", *ask("ps", "-q").split()))
print(json.dumps({
    one["Name"]: [own_paths(one), sorted(line[2:] for line in ask("diff", one["Id"]).splitlines())] for one in found}))
"""

DEPLOY, ROLLBACK = "deploy-workers.yml", "rollback-workers.yml"


def foretold(fleet: LabFleet, *arguments: str, playbook: str = DEPLOY) -> Run:
    """A check with diff, which leaves every host, image, file and record as it was; not even an engine notices it."""
    before, since = fleet.state(), time.time()
    run = fleet.play(playbook, "--check", "--diff", *arguments)
    assert fleet.events(since, time.time()) == {host: [] for host in fleet.lab.hosts}
    assert fleet.state() == before
    return run


def ids(fleet: LabFleet, host: str) -> list[str]:
    """Ids of the fleet's containers on a host."""
    return [container["Id"] for container in fleet.there(host)]


def head(fleet: LabFleet) -> str:
    """The commit that a deploy builds."""
    return fleet.git("rev-parse", "HEAD")


def test_a_first_deploy_to_two_hosts(life: LabFleet) -> None:
    life.placement = {"host1": ["alpha"], "host2": ["alpha", "beta"]}
    check = foretold(life).must_pass()
    run = life.deploy().must_pass()
    assert life.everywhere() == life.wanted(head(life))
    table = rows_of(run)
    assert {verdict for *_row, verdict in table} == {"OK"}, run.output
    assert sorted((name, host, sha) for _service, name, host, sha, _verdict in table) == sorted(
        (one["Name"].lstrip("/"), host, head(life)[:7]) for host in life.placement for one in life.there(host))
    (evidence,) = life.evidence()
    assert (evidence["result"], set(evidence["hosts"])) == ("ok", set(life.placement))
    assert (check.changed > 0, run.changed > 0) == (True, True)
    assert (life.record()["phase"], life.record()["target"]["sha"]) == ("settled", head(life))


def test_what_containers_wrote_is_read_as_their_engine_says_it(life: LabFleet) -> None:
    """One engine keeps images as ever, the other in containerd's store, where it takes long to answer."""
    source = (PROJECT / "plugins" / "module_utils" / "container_files.py").read_text()
    for host in ("host1", "host2"):
        said: dict[str, list[list[str]]] = json.loads(life.on(host, "python3", "-c", source + ASK))
        assert len(said) == len(life.there(host))
        for name, (read, engine) in said.items():
            assert read == engine != [], f"{name} on {host}"


def test_a_second_run_changes_nothing(life: LabFleet) -> None:
    before = {host: ids(life, host) for host in life.lab.hosts}
    assert foretold(life).must_pass().changed == 0
    assert life.deploy().must_pass().changed == 0
    assert {host: ids(life, host) for host in life.lab.hosts} == before


def test_a_host_is_added_and_the_others_are_left_alone(life: LabFleet) -> None:
    life.placement["host3"] = ["beta"]
    before = [ids(life, host) for host in ("host1", "host2")]
    assert foretold(life).must_pass().changed > 0
    life.deploy().must_pass()
    assert life.everywhere() == life.wanted(head(life))
    assert [ids(life, host) for host in ("host1", "host2")] == before


def test_a_new_release_reaches_every_host(life: LabFleet) -> None:
    sha = life.commit(say="second")
    assert foretold(life).must_pass().changed > 0
    life.deploy().must_pass()
    assert life.everywhere() == life.wanted(sha)
    assert life.record()["target"]["sha"] == sha


def test_a_rollback_brings_every_host_back(life: LabFleet) -> None:
    old = life.git("rev-parse", "HEAD~1")
    assert foretold(life, playbook=ROLLBACK).must_pass().changed > 0
    life.play(ROLLBACK).must_pass()
    assert life.everywhere() == life.wanted(old)
    assert (life.record()["phase"], life.record()["target"]["sha"]) == ("settled", old)
    life.git("checkout", "-q", old)


def test_a_service_is_moved_to_another_host(life: LabFleet) -> None:
    life.placement = {"host1": ["alpha"], "host2": ["beta"], "host3": ["alpha", "beta"]}
    foretold(life).must_fail("alpha", "worker_prune")
    assert foretold(life, "-e", "worker_prune=true").must_pass().changed > 0
    life.deploy("-e", "worker_prune=true").must_pass()
    assert life.everywhere() == life.wanted(head(life))


def test_one_host_alone_is_rolled_and_the_fleet_is_mixed_until_the_rest_follows(life: LabFleet) -> None:
    old, sha = head(life), life.commit(say="third", obey=True)
    check = foretold(life, "--limit", "host1").must_pass()
    assert "host2: was left out of this run" in check.output
    assert "host3: was left out of this run" in check.output
    # That it rolls is foretold, and no publication, which it won't come to.
    assert check.output.count(f"+++ after: {life.name}:release") == 1
    life.deploy("--limit", "host1").must_fail(
        "may be on more than one release: nothing was published", "host1: runs the new release",
        "host2: was left out of this run", "host3: was left out of this run")
    assert life.everywhere() == {**life.wanted(old), "host1": {"alpha": [sha]}}
    record = life.record()
    assert (record["phase"], {release["sha"] for release in record["allowed"]}) == ("rolling", {old, sha})
    assert foretold(life).must_pass().changed > 0
    life.deploy().must_pass()
    assert life.everywhere() == life.wanted(sha)
    assert (life.record()["phase"], life.record()["target"]["sha"]) == ("settled", sha)


def test_a_removed_host_that_still_works_is_named(life: LabFleet) -> None:
    old = head(life)
    del life.placement["host3"]
    before = {host: ids(life, host) for host in life.lab.hosts}
    foretold(life).must_fail("host3", "alpha", "beta", old[:7])
    life.deploy().must_fail("host3", "alpha", "beta", old[:7])
    assert {host: ids(life, host) for host in life.lab.hosts} == before
    new = life.commit(obey=True)
    # No play reaches it. Its workers are fenced by what is published, and nobody calls that a success.
    life.deploy("-e", "worker_prune=true").must_fail("host3: service", "those that are fenced start no job")
    assert life.everywhere() == {**life.wanted(new), "host3": {"alpha": [old], "beta": [old, old]}}
    wait_until(lambda: states(life, old) == {"fenced"}, "the workers that were left behind to be fenced", 60)
    life.on("host3", "docker", "rm", "--force", *before["host3"])
    life.deploy().must_pass()
    assert life.everywhere() == life.wanted(new)
