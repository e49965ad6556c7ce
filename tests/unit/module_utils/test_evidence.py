# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every run leaves a record as its schema says: whole, without secrets, and never outside its directory."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils import verdicts
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.evidence import decide_or_write
from ansible_collections.driftguard.workers.plugins.module_utils.proof import Row
from ansible_collections.driftguard.workers.plugins.module_utils.rollout_plan import Step
from ansible_collections.driftguard.workers.plugins.module_utils.rollout_wait import Failure
from ansible_collections.driftguard.workers.plugins.module_utils.run_outcome import SENTENCES, UNPUBLISHED
from hypothesis import given
from hypothesis import strategies as st
from support.containers import RELEASE_ID, SHA, container
from support.evidence_schema import SCHEMA, checked
from support.release_data import release_data

GOOD = {"status": "good", "stage": "roll", "moved": True, "message": ""}
BAD = {"status": "bad", "stage": "roll", "moved": True, "message": "service extractor crashed"}
STEPS = [Step("recreate", "extractor", "STALE: old", container()).to_dict(), Step("create", "ocr", "missing").to_dict()]
ROLLOUT = {
    "revision": 7, "previous": None, "release": {"release_id": RELEASE_ID, "sha": SHA}, "steps": STEPS,
    "extras": STEPS[:1],
    "durations": {"recreate": 1.25, "stabilize": 20}, "changed": True, "moved": True}
FAILED = {
    **ROLLOUT, "release": None, "failed": True, "msg": "crashed",
    "failures": [asdict(Failure("extractor", "demo-workers-extractor-1", "restarted", 3, ["line"]))]}
PROOF = {
    "proved": False, "rows": [Row("extractor", "x", "host1").to_dict()], "table": ["…"], "expected_sha": SHA,
    "expected_from": "option expected_sha", "record": None, "msg": "not proved"}
INVOCATION = {
    "invocation": {"module_args": {"redis_password": "s3cret-password", "secrets": {"token": "s3cret-token"}}}
}
DETAILS = {
    "host1": {
        "compose": {
            "revision": 7, "previous": 6, "changed_secrets": ["token"], "changed": True, "diff": {}, **INVOCATION
        },
        "rollout": {**ROLLOUT, **INVOCATION}, "rollback": {}, "proof": {**PROOF, **INVOCATION}},
    "host2": {"compose": {}, "rollout": {**FAILED, **INVOCATION}, "rollback": {**ROLLOUT, **INVOCATION}},
}


def options(directory: Path, **changes: Any) -> dict[str, Any]:
    return {
        "fleet": "demo", "state": "written", "outcomes": {"host1": GOOD, "host2": BAD},
        "hosts": ["host1", "host2", "host3"],
        "decision": "rollback", "published": False, "settled_on": "", "parted": False,
        "on_failure": "fleet", "unreachable": "fail", "release": release_data(), "details": DETAILS,
        "directory": str(directory),
        "run": {"id": "20260102T030405Z-abc", "action": "deploy", "by": "me", "started": "2026-01-02T03:04:05Z",
            "generation": 7,
                "requested": {"services": [], "revision": ""}},
        **changes}


def written(directory: Path, **changes: Any) -> dict[str, Any]:
    """The one record that a run writes."""
    result = decide_or_write(options(directory, **changes), False)
    found: dict[str, Any] = json.loads(Path(result.values["path"]).read_text())
    return checked(found)


def test_a_record_says_what_was_asked_done_and_proved(tmp_path: Path) -> None:
    record = written(tmp_path)
    assert (record["result"], record["decision"], record["left_out"]) == ("mixed", "rollback", ["host3"])
    assert record["run"]["requested"] == {"services": [], "revision": ""}
    assert record["release"]["variants"]["base"]["size"] == 144_000_000
    host1, host2 = record["hosts"]["host1"], record["hosts"]["host2"]
    assert host1["compose"] == {"revision": 7, "previous": 6, "changed_secrets": ["token"], "changed": True}
    assert (host1["rollout"]["steps"], host1["rollback"]) == (STEPS, None)
    assert host1["proof"]["rows"] == PROOF["rows"]
    assert host2["rollout"]["failures"] == FAILED["failures"]
    assert (host2["compose"], host2["proof"]) == (None, None)
    assert host2["message"] == "service extractor crashed"


def test_no_argument_of_a_module_is_kept(tmp_path: Path) -> None:
    assert "s3cret" not in json.dumps(written(tmp_path))


def test_the_file_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = Path(decide_or_write(options(tmp_path), False).values["path"])
    assert path.parent == tmp_path / "demo"
    assert (path.stat().st_mode & 0o7777, path.parent.stat().st_mode & 0o7777) == (0o600, 0o700)
    assert list(path.parent.iterdir()) == [path]
    assert "-deploy-" in path.name


def test_the_summary_says_it_all(tmp_path: Path) -> None:
    result = decide_or_write(options(tmp_path), False)
    assert result.values["summary"] == [
        f"{SENTENCES['mixed']}{UNPUBLISHED}.", "host2: roll: service extractor crashed", "host1: runs the new release",
        "host2: may run either release", "host3: was left out of this run and keeps what it runs",
        f"Evidence: {result.values['path']}"]
    assert (result.values["run_failed"], result.changed) == (True, False)


def test_check_mode_writes_nothing(tmp_path: Path) -> None:
    result = decide_or_write(options(tmp_path, outcomes={"host1": GOOD}, decision="keep"), True)
    assert (result.values["result"], result.values["path"], result.values["run_failed"]) == ("predicted", "", False)
    assert list(tmp_path.iterdir()) == []


def test_deciding_writes_nothing(tmp_path: Path) -> None:
    result = decide_or_write({**options(tmp_path, state="decided"), "directory": None}, False)
    assert result.values == {
        "decision": "rollback", "bad": ["host2"], "away": [], "left_out": ["host3"], "moved": ["host1", "host2"],
        "back": ["host1", "host2"]}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("changes", [
    {"release": {}}, {"release": {"release_id": RELEASE_ID, "sha": SHA}}, {"details": {}}, {"run": {}},
    {"outcomes": {"host1": None, "host2": {}}}, {"details": {"host1": None, "host2": "skipped"}},
    {"outcomes": {}, "hosts": []}, {"run": {"action": "verify", "expected_sha": ""}, "decision": "verify"},
    {"details": {"host1": {"rollout": "skipped", "proof": None}}}, {"run": {"action": "deploy", "generation": None}},
])
def test_a_run_that_was_cut_off_leaves_a_record_too(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert written(tmp_path, **changes)["fleet"] == "demo"


@pytest.mark.parametrize("fleet", ["../elsewhere", "/etc", "..", ".", "", "Demo", "a/b"])
def test_a_bad_fleet_name_leads_nowhere_else(tmp_path: Path, fleet: str) -> None:
    inside = tmp_path / "evidence"
    inside.mkdir(mode=0o755)
    path = Path(decide_or_write(options(inside, fleet=fleet), False).values["path"])
    assert path.parent == inside / "unnamed"
    assert (inside.stat().st_mode & 0o777, tmp_path.stat().st_mode & 0o777) == (0o755, 0o700)


@pytest.mark.parametrize("action", ["../../x", "a/b", "", None, "x" * 500, "\ud800", 5])
def test_a_bad_action_leads_nowhere_else(tmp_path: Path, action: Any) -> None:
    path = Path(decide_or_write(options(tmp_path, run={"action": action}), False).values["path"])
    assert path.parent == tmp_path / "demo"


def test_where_no_record_can_be_written_the_error_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DriftguardError, match="file/demo"):
        decide_or_write(options(tmp_path / "file"), False)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(
        inner) | st.dictionaries(
        st.text(), inner), max_leaves=5)


@given(
    st.dictionaries(st.sampled_from(["compose", "rollout", "rollback", "proof", "x"]), JSON),
    st.dictionaries(st.text(), JSON), JSON
)
def test_any_results_of_modules_make_strict_json(
    tmp_path_factory: pytest.TempPathFactory, details: Any, run: Any, message: Any,
) -> None:
    directory = tmp_path_factory.mktemp("evidence")
    outcomes = {"host1": {**BAD, "message": message}}
    path = decide_or_write(options(directory, details={"host1": details}, run=run, outcomes=outcomes), False).values[
        "path"
    ]
    json.loads(Path(path).read_text(), parse_constant=pytest.fail)


def test_the_schema_knows_every_verdict_result_and_key() -> None:
    named = {
        value for name, value in vars(verdicts).items() if name.isupper() and isinstance(value, str) and name == value
    }
    assert set(SCHEMA["$defs"]["row"]["properties"]["verdict"]["enum"]) == named
    assert set(SCHEMA["$defs"]["row"]["properties"]) == {field.name for field in fields(Row)}
    assert set(SCHEMA["$defs"]["failure"]["properties"]) == {field.name for field in fields(Failure)}
    assert set(SCHEMA["$defs"]["step"]["properties"]) == set(STEPS[0])
    assert set(SCHEMA["properties"]["result"]["enum"]) == set(SENTENCES)
