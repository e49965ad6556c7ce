# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways of a team with a fleet on several hosts: one build for two environments, new instances first, a canary that
bakes, what is kept and what is told of it. Each test is the next chapter of the same fleet's.
"""

from __future__ import annotations

import getpass
import time
from typing import Any

import pytest

from lab.fleet import LabFleet

pytestmark = pytest.mark.timeout(1800)


def digests(fleet: LabFleet, host: str) -> set[str]:
    """What the containers of a host were made from, by the registry's names."""
    return {str(one["Config"]["Image"]) for one in fleet.there(host)}


def happened(fleet: LabFleet, host: str, since: float) -> list[tuple[str, str]]:
    """What happened to containers on a host, and to which."""
    said = fleet.on(
        host, "docker", "events", f"--since={since:.3f}", f"--until={time.time():.3f}", "--filter=type=container",
        "--format={{.Action}}|{{.Actor.ID}}")
    pairs = [line.partition("|") for line in said.splitlines()]
    return [(action, one) for action, _bar, one in pairs]


def test_what_is_built_once_is_what_each_environment_runs(life: LabFleet) -> None:
    """As a pipeline does it, which names the commit; the branch has gone on by then."""
    sha = life.git("rev-parse", "HEAD")
    named = ("-e", f"worker_revision={sha}")
    life.placement = {"host1": ["alpha", "beta"]}
    life.play("build-workers.yml", *named).must_pass()
    life.commit(say="later")
    life.deploy(*named).must_pass()
    staged = digests(life, "host1")
    assert life.runs("host1") == life.wanted(sha)["host1"]
    # Another inventory, with a Redis of its own.
    life.placement = {"host2": ["alpha"], "host3": ["beta"]}
    redis = str(life.variables["worker_redis_url"])
    assert redis.endswith("/0")
    production = (*named, "-e", f"worker_redis_url={redis[:-1]}1", "-e", "worker_environment=production")
    check = life.deploy("--check", *production).must_pass()
    life.deploy(*production).must_pass()
    assert check.changed > 0
    # Each build is stamped with its time: built again it would have another digest.
    assert staged == digests(life, "host2") == digests(life, "host3")
    assert all("@sha256:" in one for one in staged)
    assert life.record()["target"]["sha"] == sha
    life.verify("-e", f"worker_expected_sha={sha}", *production[2:]).must_pass()


def test_new_instances_are_up_before_old_ones_go_and_the_canary_bakes(life: LabFleet) -> None:
    life.placement = {"host1": ["alpha", "beta"], "host2": ["alpha", "beta"]}
    life.variables["worker_service_defaults"].update(order="start-first", stop_grace_period="6s")
    life.variables.update(worker_batches=["1", "100%"], worker_canary={"bake": 5})
    life.deploy().must_pass()
    old = {host: {one["Id"] for one in life.there(host)} for host in life.placement}
    sha, since = life.commit(say="first"), time.time()
    life.deploy().must_pass()
    assert life.everywhere() == {**life.wanted(sha), "host3": life.runs("host3")}
    for host in life.placement:
        new = {one["Id"] for one in life.there(host)}
        events = happened(life, host, since)
        healthy = [at for at, (action, one) in enumerate(events) if action == "health_status: healthy" and one in new]
        killed = [at for at, (action, one) in enumerate(events) if action == "kill" and one in old[host]]
        assert len({one for at, (_action, one) in enumerate(events) if at in healthy}) == len(new) == 3
        # No old one of any service is touched before all new ones of the host stand.
        assert min(killed) > max(healthy)
        assert not new & old[host]
    hosts = life.evidence()[-1]["hosts"]
    assert {host: "bake" in hosts[host]["rollout"] for host in life.placement} == {"host1": True, "host2": False}


def test_every_host_keeps_what_a_rollback_needs_and_loses_the_rest(life: LabFleet) -> None:
    kept = ("-e", "worker_keep_revisions=1")

    def revisions() -> dict[str, list[str]]:
        return {host: life.on(host, "ls", f"/opt/driftguard/{life.name}/revisions").split() for host in life.placement}

    before, state = revisions(), life.state()
    check = life.play("prune-workers.yml", "--check", "--diff", *kept).must_pass()
    assert (life.state(), revisions()) == (state, before)
    done = life.play("prune-workers.yml", *kept).must_pass()
    assert check.changed == done.changed > 0
    after = revisions()
    for host in life.placement:
        assert set(after[host]) < set(before[host])
    assert life.play("prune-workers.yml", *kept).must_pass().changed == 0
    sha = life.git("rev-parse", "HEAD")
    life.verify("-e", f"worker_expected_sha={sha}").must_pass()
    # Nothing may have to be pulled again for it.
    life.fault("pause-registry")
    try:
        life.play("rollback-workers.yml").must_pass()
    finally:
        life.fault("resume-registry")
    assert life.record()["target"]["sha"] != sha
    assert {found for host in life.placement for each in life.runs(host).values() for found in each} == {
        life.record()["target"]["sha"]}


def test_the_last_runs_are_told_with_who_what_and_how_it_went(life: LabFleet) -> None:
    shown = life.play("history-workers.yml", "-e", "worker_history_last=5").must_pass()
    assert shown.changed == 0
    rows: list[list[Any]] = [line.split() for line in shown.output.splitlines() if "Z  " in line]
    assert [row[2] for row in rows] == ["rollback", "verify", "prune", "prune", "deploy"]
    assert {row[6] for row in rows} == {"2"}
    assert {row[1] for row in rows} == {getpass.getuser()}
    assert [rows[0][4], rows[-1][4]] == ["ok", "ok"]
