# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A record of evidence in short, and what is read back from a stream that anybody may have written to."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.evidence import evidence
from ansible_collections.driftguard.workers.plugins.module_utils.run_history import KEYS, entry_of, run_of, table
from ansible_collections.driftguard.workers.plugins.module_utils.run_outcome import End, conclude
from hypothesis import given
from hypothesis import strategies as st

SHA = "0123456789abcdef0123456789abcdef01234567"
RELEASE = f"{SHA[:12]}.89abcdef0123"
DURATIONS = {"recreate": 2.5, "stabilize": 20.0}


def record(**change: Any) -> dict[str, Any]:
    options = {
        "fleet": "demo", "decision": "publish", "published": True, "hosts": ["a", "b", "c"],
        "run": {"id": "1-ab", "action": "deploy", "by": "alice", "started": "2026-01-02T03:04:05Z"},
        "release": {"release_id": RELEASE, "sha": SHA},
        "outcomes": {
            "a": {"status": "good"}, "b": {"status": "bad", "stage": "roll", "moved": True, "message": "boom"}},
        "details": {"a": {"rollout": {"durations": DURATIONS}}, "b": {"rollout": {"durations": {"recreate": 9}}}},
        **change}
    end = conclude(
        options["outcomes"], options["hosts"], End(options["decision"], options["published"]), False)
    return {**evidence(options, end), "ended": "2026-01-02T03:05:06Z"}


def test_a_record_in_short() -> None:
    entry = entry_of(record())
    assert set(entry) == set(KEYS)
    assert {key: entry[key] for key in KEYS if key != "message"} == {
        "run": "1-ab", "by": "alice", "action": "deploy", "release_id": RELEASE, "sha": SHA, "result": "unsettled",
        "seconds": "61", "hosts": "2", "bad": "b", "left_out": "c",
        "durations": '{"recreate":9.0,"stabilize":20.0}'}


@pytest.mark.parametrize("run", [
    {}, {"started": "soon"}, {"started": "2027-01-01T00:00:00Z"}, {"id": None, "by": None}])
def test_a_run_that_says_little_of_itself(run: dict[str, Any]) -> None:
    entry = entry_of(record(run=run, release={}, outcomes={}, details={}))
    assert (entry["seconds"], entry["release_id"], entry["hosts"]) == ("0", "", "0")
    assert all(isinstance(text, str) for text in entry.values())


def test_what_is_no_entry_shows_as_nothing() -> None:
    run = run_of({
        "what": "run", "name": "\x1b[2J", "seconds": "1e9", "hosts": "-1", "to": "../x", "sha": "z", "at": "now",
        "started": "2026-13-99", "bad": ",,\n,h1", "by": "\x1b]0;owned\x07mallory", "reason": "a\nb"})
    assert (run["action"], run["seconds"], run["hosts"], run["release_id"], run["sha"], run["ended"]) == (
        "", 0, 0, "", "", "")
    assert run["bad"][-1] == "h1"
    assert len(table([{**run, "by": "m" * 150}], "demo")[1]) < 150
    assert all(line.isprintable() for line in table([run], "demo"))


@given(st.dictionaries(st.sampled_from(["what", "name", "by", "to", "sha", "seconds", "hosts", "bad", "run", "at",
                                        "started", "result", "reason", "left_out", "x"]), st.text()))
def test_nothing_in_the_stream_makes_a_traceback_or_moves_the_cursor(stored: dict[str, str]) -> None:
    lines = table([run_of(stored)], "demo")
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)


def test_the_table() -> None:
    stored = {
        "what": "run", "name": "deploy", "by": "alice", "to": RELEASE, "sha": SHA, "result": "rolled back",
        "seconds": "61", "hosts": "3", "bad": "h2,h3", "at": "2026-01-02T03:05:06Z", "started": "2026-01-02T03:04:05Z"}
    assert table([run_of(stored)], "demo") == [
        "STARTED               BY     ACTION  RELEASE  RESULT       SECONDS  HOSTS  BAD",
        "2026-01-02T03:04:05Z  alice  deploy  0123456  rolled back  61       3      h2, h3"]
    assert table([], "demo") == ["No run of fleet demo is in the audit"]
