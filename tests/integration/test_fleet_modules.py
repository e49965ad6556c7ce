# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules that look at a fleet as a whole, run as Ansible runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.modules import run_module
from support.redis_server import RedisServer
from support.registration_entries import A, register

SERVICES = {"alpha": None, "beta": {"singleton": True}}
DEFAULTS = {"memory": "64M"}


def test_worker_inventory_puts_hosts_into_batches() -> None:
    hosts = {"one": ["alpha", "beta"], "two": ["alpha"], "three": ["alpha"], "four": ["alpha"], "five": ["alpha"]}
    run = run_module("worker_inventory", fleet="demo", hosts=hosts, services=SERVICES, defaults=DEFAULTS).must_pass()
    assert run["batches"] == [["one"], ["two", "three"], ["four", "five"]]
    assert run["instances"] == 6
    assert not run.changed


@pytest.mark.parametrize(
    ("hosts", "said"),
    [
        ({}, "at least one host"),
        ({"one": None, "two": None}, "singleton"),
        ({"one": ["alpha"]}, "a host that runs it"),
        ({"one": ["alpha", "gamma"]}, "gamma"),
    ],
)
def test_worker_inventory_refuses(hosts: dict[str, list[str] | None], said: str) -> None:
    run = run_module("worker_inventory", fleet="demo", hosts=hosts, services=SERVICES, defaults=DEFAULTS)
    assert said in run.must_fail()["msg"]


def test_worker_version_info_reads_what_workers_say(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        register(client, "extractor", "aaaaaaaaaaaa")
        register(client, "extractor", "bbbbbbbbbbbb", gitSha="nonsense")
        client.zadd("demo:workers", {"extractor:cccccccccccc": 1.0})
    run = run_module(
        "worker_version_info",
        fleet="demo",
        redis_url=f"redis://{redis_server.host}:{redis_server.port}/0",
        redis_password=redis_server.password,
    ).must_pass()
    assert run["versions"] == {A.sha: 1, "unknown": 1}
    assert run["dead"] == ["extractor:cccccccccccc"]
    assert [bool(one["problems"]) for one in run["registrations"]] == [False, True]
    assert run["record"] is None


def test_worker_evidence_decides_and_writes(tmp_path: Path) -> None:
    outcomes = {
        "one": {"status": "good", "stage": "roll", "moved": True, "message": ""},
        "two": {"status": "bad", "stage": "roll", "moved": True, "message": "alpha crashed"},
    }
    decided = run_module("worker_evidence", fleet="demo", outcomes=outcomes, hosts=["one", "two"]).must_pass()
    assert (decided["decision"], decided["bad"], decided["moved"]) == ("rollback", ["two"], ["one", "two"])
    written = run_module(
        "worker_evidence",
        fleet="demo",
        state="written",
        outcomes=outcomes,
        hosts=["one", "two"],
        decision="rollback",
        run={"id": "r1", "action": "deploy"},
        directory=str(tmp_path),
    ).must_pass()
    assert written["run_failed"] is True
    assert any("alpha crashed" in line for line in written["summary"])
    record = json.loads(Path(written["path"]).read_text())
    assert record["result"] == written["result"] == "mixed"


def test_worker_evidence_writes_nothing_in_check_mode(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "outcomes": {"one": {"status": "good", "stage": "roll", "moved": True, "message": ""}},
        "hosts": ["one"],
        "directory": str(tmp_path),
    }
    run = run_module("worker_evidence", check=True, fleet="demo", state="written", **options).must_pass()
    assert (run["result"], run["path"], list(tmp_path.iterdir())) == ("predicted", "", [])
