# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every run of the playbooks is in the fleet's history; Redis being away hides no result."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest
from support.fleet import Fleet, FleetRedis, some_fleet


@pytest.fixture
def alone(tmp_path: Path, fleet_redis: FleetRedis, base_reference: str) -> Iterator[Fleet]:
    with some_fleet(tmp_path, fleet_redis, base_reference, {"alpha": None}) as made:
        yield made


def runs(fleet: Fleet) -> list[tuple[str, str, str]]:
    """Action, result and commit of each run in the stream, oldest first."""
    entries = [entry for _id, entry in fleet.redis.client.xrange(f"{fleet.name}:audit") if entry["what"] == "run"]
    return [(entry["name"], entry["result"], entry["sha"]) for entry in entries]


@pytest.mark.timeout(1200)
def test_who_did_what_with_which_result(alone: Fleet) -> None:
    sha = alone.git("rev-parse", "HEAD")
    alone.verify().must_fail("[MISSING]")
    alone.play("deploy-workers.yml", "--check").must_pass()
    alone.deploy().must_pass()
    alone.play("rollback-workers.yml").must_fail("exactly one proved revision")
    alone.verify("-e", f"worker_expected_sha={sha}").must_pass()
    alone.play("prune-workers.yml").must_pass()
    alone.play("fence-workers.yml", "-e", f"worker_fence_release={sha[:7]}")
    assert [row[:2] for row in runs(alone)] == [
        ("verify", "not proved"), ("deploy", "ok"), ("rollback", "failed"), ("verify", "ok"), ("prune", "pruned"),
        ("fence", alone.evidence()[-1]["result"])]
    assert runs(alone)[1][2] == runs(alone)[3][2] == sha

    shown = alone.play("history-workers.yml", "-e", "worker_history_last=5").must_pass()
    assert shown.changed == 0
    rows = [line.split() for line in shown.output.splitlines() if "Z  " in line]
    assert [row[2] for row in rows] == ["fence", "prune", "verify", "rollback", "deploy"]
    assert rows[-1][3:5] == [sha[:7], "ok"]
    assert int(rows[-1][5]) > 0
    assert rows[3][-1] == "here"

    away = alone.verify("-e", "worker_redis_control_url=redis://127.0.0.1:1/0").must_fail(
        "Not every worker of the fleet is proved", "This run is not in the audit of the fleet")
    assert "127.0.0.1:1" in away.output
    assert alone.evidence()[-1]["result"] == "not proved"
