# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""worker_history: runs in the audit stream, between what others write there."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.run_history import KEYS
from contract.guard_cases import CONTRACT
from support.modules import ModuleRun, run_module
from support.redis_server import RedisServer

SHA = "0123456789abcdef0123456789abcdef01234567"
ENTRY = {
    **dict.fromkeys(KEYS, ""), "run": "run1", "by": "alice", "action": "deploy", "sha": SHA, "result": "ok",
    "release_id": f"{SHA[:12]}.89abcdef0123", "message": "All is well", "seconds": "61", "hosts": "3", "bad": "h1,h2"}


class History:
    """The module with the connection's options filled in."""

    def __init__(self, server: RedisServer) -> None:
        self.redis = {"fleet": "demo", "redis_url": server.bare_url, "redis_password": server.password}

    def run(self, check: bool = False, **options: Any) -> ModuleRun:
        return run_module("worker_history", check, **{**self.redis, **options})

    def add(self, **changed: str) -> ModuleRun:
        return self.run(state="appended", entry={**ENTRY, **changed})


@pytest.fixture
def history(server: RedisServer) -> History:
    return History(server)


def test_runs_come_back_newest_first_with_rediss_times(history: History, raw: Any) -> None:
    assert history.run().must_pass()["table"] == ["No run of fleet demo is in the audit"]
    at = history.add().must_pass()["at"]
    history.add(run="run2", action="verify", result="not proved", seconds="0").must_pass()
    assert list(raw.xrange("demo:audit")[0][1]) == [
        *CONTRACT["names"]["audit"]["fields"], *CONTRACT["names"]["audit"]["runFields"]]
    newest, oldest = history.run().must_pass()["runs"]
    assert (newest["run"], newest["action"], newest["result"]) == ("run2", "verify", "not proved")
    assert newest["started"] == newest["ended"]
    kept = ("run", "by", "action", "sha", "result", "message", "seconds", "hosts", "bad")
    assert {key: oldest[key] for key in kept} == {
        "run": "run1", "by": "alice", "action": "deploy", "sha": SHA, "result": "ok", "message": "All is well",
        "seconds": 61, "hosts": 3, "bad": ["h1", "h2"]}
    assert oldest["ended"] == at > oldest["started"]
    assert history.run(last=1).must_pass()["runs"] == [newest]


def test_a_run_that_is_told_twice_is_one(history: History, raw: Any) -> None:
    """As when a connection broke after the first time; what somebody else said of the run doesn't count."""
    raw.xadd("demo:audit", {"what": "run", "name": "deploy", "run": "run1", "result": "rolled back", "at": "never"})
    raw.xadd("demo:audit", {"what": "run"})
    first = history.add().must_pass()["at"]
    assert (history.add().must_pass()["at"], raw.xlen("demo:audit")) == (first, 3)
    history.add(run="run2").must_pass()
    assert raw.xlen("demo:audit") == 4


def test_check_mode_adds_nothing(history: History, raw: Any) -> None:
    assert history.run(check=True, state="appended", entry=ENTRY).must_pass().changed
    assert raw.exists("demo:audit") == 0


def test_other_entries_are_passed_over(history: History, raw: Any) -> None:
    history.add().must_pass()
    with raw.pipeline() as pipeline:
        for number in range(1000):
            pipeline.xadd("demo:audit", {"what": "flag", "name": f"f{number}", "by": "x" * 2000})
        pipeline.execute()
    assert [run["run"] for run in history.run().must_pass()["runs"]] == ["run1"]


def test_what_strangers_write_is_shown_as_one_line(history: History, raw: Any) -> None:
    strange = {"what": "run", "by": "\x1b[2Jmallory\r\n", "seconds": "many", "bad": "h" * 9000, b"\xff": b"\xfe"}
    raw.xadd("demo:audit", strange)
    raw.xadd("demo:audit", {"what": "run"})
    done = history.run().must_pass()
    assert len(done["runs"]) == 2
    assert len(done["table"]) == 3
    assert all(line.isprintable() and len(line) < 300 for line in done["table"])


def test_a_key_that_is_none_of_ours(history: History, raw: Any) -> None:
    raw.set("demo:audit", "mine")
    history.run().must_fail("demo:audit")
    history.add().must_fail("demo:audit")
    assert raw.get("demo:audit") == "mine"


@pytest.mark.parametrize("entry", [{}, {"run": 1}, {**ENTRY, "seconds": "1; x"}, {**ENTRY, "bad": ["h1"]}])
def test_an_entry_that_is_none(history: History, raw: Any, entry: dict[str, Any]) -> None:
    history.run(state="appended", entry=entry).must_fail("option entry")
    assert raw.exists("demo:audit") == 0


@pytest.mark.parametrize("last", [0, 1001])
def test_how_many_can_be_shown(history: History, last: int) -> None:
    history.run(last=last).must_fail("option last")
