# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run comes to: never ok without every host of the fleet, never silent about one that may run something else."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.run_outcome import (
    PUBLISHED_FIRST,
    SENTENCES,
    UNPUBLISHED,
    End,
    Policy,
    conclude,
    decide,
)
from hypothesis import given
from hypothesis import strategies as st

GOOD = {"status": "good", "stage": "roll", "moved": True, "message": ""}
SAME = {"status": "good", "stage": "roll", "moved": False, "message": ""}
BAD = {"status": "bad", "stage": "roll", "moved": True, "message": "extractor crashed"}
BEFORE = {"status": "bad", "stage": "preflight", "moved": False, "message": "no room"}
AWAY = {"status": "unreachable", "stage": "begin", "moved": False, "message": "no route"}
CUT_OFF = {"status": "going", "stage": "roll", "moved": True}
CUT = {"status": "unreachable", "stage": "roll", "moved": True, "message": "timed out"}
WAITS = {"status": "going", "stage": "preflight", "moved": False, "message": ""}
STOPPED = {"status": "stopped", "stage": "rollback", "moved": True, "message": "not back on Z"}
BACK = {"status": "rolled back", "stage": "roll", "moved": True, "message": "extractor crashed"}


@pytest.mark.parametrize(("outcomes", "hosts", "check_mode", "decision"), [
    ([GOOD, SAME], 2, False, "publish"), ([SAME], 1, False, "publish"), ([GOOD], 2, False, "keep"),
    ([GOOD, BAD], 2, False, "rollback"), ([GOOD, AWAY], 2, False, "rollback"), ([BEFORE], 1, False, "rollback"),
    ([GOOD, CUT_OFF], 2, False, "rollback"), ([GOOD, BAD], 3, False, "rollback"), ([GOOD, {}], 2, False, "rollback"),
    ([GOOD, None], 2, False, "rollback"), ([GOOD], 1, True, "keep"), ([BAD], 1, True, "keep"), ([], 1, False, "keep"),
    ([], 0, False, "keep"), ([], 0, True, "keep"),
])
def test_decisions(outcomes: list[Any], hosts: int, check_mode: bool, decision: str) -> None:
    found = decide(_named(outcomes), _hosts(hosts), check_mode)
    assert found["decision"] == decision
    assert found["left_out"] == _hosts(hosts)[len(outcomes):]
    assert found["moved"] == [host for host, one in _named(outcomes).items() if one and one.get("moved")]
    assert found["bad"] == [host for host, one in _named(outcomes).items() if not one or one.get("status") != "good"]


@pytest.mark.parametrize(("outcomes", "policy", "decision", "back"), [
    ([GOOD, BAD], Policy("fleet"), "rollback", ["host1", "host2"]),
    ([GOOD, BAD], Policy("host"), "rollback", ["host2"]),
    ([GOOD, BAD], Policy("stop"), "stop", []), ([SAME, BEFORE], Policy("stop"), "rollback", []),
    ([SAME, BEFORE], Policy("host"), "rollback", []), ([GOOD, CUT], Policy("host"), "rollback", ["host2"]),
    ([GOOD, AWAY], Policy("fleet", "continue"), "publish", []),
    ([GOOD, {**CUT, "through": True}], Policy("fleet", "continue"), "publish", []),
    ([GOOD, CUT], Policy("fleet", "continue"), "rollback", ["host1", "host2"]),
    ([GOOD, CUT, AWAY], Policy("host", "continue"), "rollback", ["host2"]),
    ([GOOD, CUT], Policy("fleet", "fail"), "rollback", ["host1", "host2"]),
    ([AWAY], Policy("fleet", "continue"), "rollback", []),
    ([CUT, AWAY], Policy("fleet", "continue"), "rollback", ["host1"]),
    ([GOOD, AWAY, BAD], Policy("fleet", "continue"), "rollback", ["host1", "host3"]),
    ([GOOD, AWAY, WAITS], Policy("fleet", "continue"), "rollback", ["host1"]),
    ([GOOD, AWAY, BAD], Policy("stop", "continue"), "stop", []),
])
def test_policies(outcomes: list[Any], policy: Policy, decision: str, back: list[str]) -> None:
    found = decide(_named(outcomes), _hosts(len(outcomes)), False, policy)
    assert (found["decision"], found["back"]) == (decision, back)
    predicted = decide(_named(outcomes), _hosts(len(outcomes)), True, policy)
    assert (predicted["decision"], predicted["back"]) == ("keep", [])


@pytest.mark.parametrize(("outcomes", "end", "result", "lines"), [
    ([GOOD, CUT], End("publish", True), "unsettled", [
        "host2: roll: timed out", "host2: what runs there on another release is fenced once it reads Redis"]),
    ([GOOD, BAD, WAITS], End("stop"), "mixed", [
        "host2: roll: extractor crashed", "host3: preflight: not rolled, since another host failed",
        "host1: runs the new release", "host2: may run either release"]),
    ([GOOD, BACK], End("rollback"), "mixed", ["host2: roll: extractor crashed", "host1: runs the new release"]),
    ([BACK, CUT], End("rollback", False, "0123abc"), "mixed", [
        "host1: roll: extractor crashed", "host2: roll: timed out",
        "host2: may run either release; what isn't 0123abc is fenced there"]),
    ([BAD], End("stop", True, "0123abc"), "mixed", [
        "host1: roll: extractor crashed", "host1: may run either release; what isn't 0123abc is fenced there"]),
    ([BACK, STOPPED], End("rollback", False, "0123abc"), "mixed", [
        "host1: roll: extractor crashed", "host2: rollback: not back on Z", "host2: runs nothing"]),
    ([AWAY], End("rollback"), "failed", ["host1: begin: no route"]),
    ([SAME, BACK], End("rollback", parted=True), "mixed", [
        "host2: roll: extractor crashed", "host1: runs the new release"]),
])
def test_what_a_policy_leaves_is_said(outcomes: list[Any], end: End, result: str, lines: list[str]) -> None:
    found = conclude(_named(outcomes), _hosts(len(outcomes)), end, False)
    assert (found["result"], found["failed"], found["lines"]) == (result, True, lines)


@pytest.mark.parametrize(("outcomes", "hosts", "decision", "published", "result"), [
    ([GOOD, SAME], 2, "publish", True, "ok"), ([SAME], 1, "publish", True, "ok"),
    ([GOOD, {**SAME, "status": "bad"}], 2, "publish", True, "unsettled"),
    ([{**GOOD, "status": "bad"}], 1, "publish", True, "unsettled"),
    ([GOOD], 2, "publish", True, "unsettled"), ([{**GOOD, "status": "bad"}], 1, "publish", False, "mixed"),
    ([GOOD, {**SAME, "status": "bad"}], 2, "publish", False, "mixed"),
    ([{**SAME, "status": "bad"}], 1, "publish", False, "failed"),
    ([GOOD], 2, "keep", False, "mixed"), ([SAME], 2, "keep", False, "mixed"), ([], 1, "keep", False, "failed"),
    ([BACK, BEFORE], 2, "rollback", False, "rolled back"), ([BACK, BACK], 2, "rollback", False, "rolled back"),
    ([BACK, BAD], 2, "rollback", False, "mixed"), ([BACK, CUT_OFF], 2, "rollback", False, "mixed"),
    ([GOOD, BACK], 2, "rollback", False, "mixed"), ([SAME, BACK], 2, "rollback", False, "rolled back"),
    ([BEFORE, AWAY], 2, "rollback", False, "failed"), ([SAME, BEFORE], 2, "rollback", False, "failed"),
    ([SAME, SAME], 2, "verify", False, "ok"), ([SAME, BEFORE], 2, "verify", False, "not proved"),
    ([SAME], 2, "verify", False, "not proved"), ([], 0, "verify", False, "not proved"),
    ([], 1, "verify", False, "not proved"),
    ([SAME, BEFORE], 2, "fence", True, "not confirmed"), ([SAME, AWAY], 2, "fence", True, "not confirmed"),
    ([SAME], 2, "fence", True, "not confirmed"), ([], 0, "fence", True, "not confirmed"),
    ([SAME, SAME], 2, "fence", False, "failed"), ([AWAY], 1, "fence", False, "failed"),
])
def test_results(outcomes: list[Any], hosts: int, decision: str, published: bool, result: str) -> None:
    end = conclude(_named(outcomes), _hosts(hosts), End(decision, published), False)
    assert (end["result"], end["failed"]) == (result, result != "ok")
    more = (PUBLISHED_FIRST if published else UNPUBLISHED) if result == "mixed" else ""
    assert end["message"] == SENTENCES[result] + more


def test_a_release_is_fenced_when_every_host_of_the_fleet_is_good() -> None:
    end = conclude(_named([SAME, SAME]), _hosts(2), End("fence", True), False)
    assert (end["result"], end["failed"], end["lines"]) == ("fenced", False, [])
    assert conclude(_named([SAME]), _hosts(2), End("fence", True), False)["lines"] == [
        "host2: was left out of this run and keeps what it runs"]


@pytest.mark.parametrize(
    ("outcomes", "result"), [([GOOD], "predicted"), ([GOOD, BAD], "failed"), ([AWAY], "failed"), ([], "failed")]
)
def test_check_mode_predicts_or_fails(outcomes: list[Any], result: str) -> None:
    end = conclude(_named(outcomes), _hosts(2), End("keep"), True)
    assert (end["result"], end["failed"]) == (result, result == "failed")


def test_each_host_that_matters_has_a_line() -> None:
    outcomes = {"a": BAD, "b": GOOD, "c": BACK, "d": AWAY, "e": {"status": "bad"}, "f": None}
    end = conclude(outcomes, [*outcomes, "g"], End("rollback"), False)  # type: ignore[arg-type]
    assert end["lines"] == [
        "a: roll: extractor crashed", "c: roll: extractor crashed", "d: begin: no route", "e: reach: no answer",
        "f: reach: no answer", "a: may run either release", "b: runs the new release",
        "g: was left out of this run and keeps what it runs"]


def test_a_host_that_was_good_and_went_back_is_not_called_silent() -> None:
    outcomes = {"a": {**BACK, "message": ""}, "b": BACK}
    assert conclude(outcomes, [*outcomes], End("rollback"), False)["lines"] == [
        "a: roll: back on what it ran before, since another host failed", "b: roll: extractor crashed"]


def _hosts(count: int) -> list[str]:
    return [f"host{number}" for number in range(1, count + 1)]


def _named(outcomes: list[Any]) -> dict[str, Any]:
    return {f"host{number}": outcome for number, outcome in enumerate(outcomes, 1)}


@given(
    st.lists(st.sampled_from([GOOD, SAME, BAD, BEFORE, AWAY, CUT_OFF, BACK, STOPPED, {}, None]), max_size=4),
    st.integers(0, 4),
    st.sampled_from(["publish", "rollback", "keep", "verify"]), st.booleans(), st.booleans())
def test_ok_is_said_only_of_a_whole_fleet_that_is_good(
    outcomes: list[Any], hosts: int, decision: str, published: bool, check_mode: bool,
) -> None:
    end = conclude(_named(outcomes), _hosts(hosts), End(decision, published), check_mode)
    if end["result"] == "ok":
        assert outcomes
        assert all(one and one["status"] == "good" for one in outcomes)
        assert len(outcomes) >= hosts
        assert decision == "verify" or (decision == "publish" and published and not check_mode)
    if end["result"] in ("failed", "rolled back") and not check_mode:
        running = [one for one in outcomes if one and one.get("moved") and one["status"] != "rolled back"]
        assert running == [], "a host that runs the new release must not be called untouched or rolled back"
    assert end["failed"] == (end["result"] not in ("ok", "predicted"))
    assert all(
        any(line.startswith(f"{host}: ") for line in end["lines"]) for host in decide(_named(outcomes), [], False)[
            "bad"])
