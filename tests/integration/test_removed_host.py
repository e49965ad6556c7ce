# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that left the inventory while its workers go on: told before anything is touched, never a success."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Iterator

import pytest
from support.fleet import Fleet, FleetRedis, some_fleet

SHA = "f" * 40


@pytest.fixture
def alone(tmp_path: Path, fleet_redis: FleetRedis, base_reference: str) -> Iterator[Fleet]:
    with some_fleet(tmp_path, fleet_redis, base_reference, {"alpha": None}) as made:
        yield made


def register(fleet: Fleet, host: str, state: str = "running") -> str:
    """A worker of service beta on a host that no play reaches; its key."""
    client, key = fleet.redis.client, f"{fleet.name}:worker:beta:0123456789ab:version"
    client.hset(key, mapping={
        "gitSha": SHA, "buildDate": "2026-01-02T03:04:05Z", "startedAt": "2026-01-02T03:04:05Z", "pid": "1",
        "host": host, "service": "beta", "containerId": "0123456789ab" + "c" * 52,
        "releaseId": f"{SHA[:12]}.{SHA[:12]}", "state": state, "heartbeatAt": "2026-01-02T03:04:05Z"})
    client.pexpire(key, 3_600_000)
    client.zadd(f"{fleet.name}:workers", {"beta:0123456789ab": 1.5})
    return key


@pytest.mark.timeout(900)
def test_a_host_that_left_the_inventory(alone: Fleet) -> None:
    alone.deploy().must_pass()
    ids = alone.ids()
    key = register(alone, "old-host")
    sha = alone.commit()
    told = ("old-host: service beta, beta:0123456789ab, commit fffffff, running", "nothing was touched")
    alone.deploy("-e", "worker_registration_timeout=1").must_fail(*told)
    assert alone.ids() == ids
    assert alone.evidence()[-1]["result"] == "failed"
    alone.deploy("--check").must_fail(*told)
    alone.verify().must_fail("[EXTRA]", "registered from old-host, which isn't the fleet's")

    run = alone.deploy("-e", "worker_prune=true", "-e", "worker_registration_timeout=3").must_fail(
        "old-host: service beta", "those that are fenced start no job")
    assert alone.shas() == {sha}, run.output
    assert alone.evidence()[-1]["result"] == "unsettled"
    record = json.loads(alone.redis.client.get(f"{alone.name}:release"))
    assert (record["phase"], len(record["allowed"])) == ("settled", 1), "what old-host runs is fenced"
    assert record["target"]["sha" if "sha" in record["target"] else "gitSha"] == sha

    alone.redis.client.delete(key)
    assert alone.deploy().must_pass().changed == 0
