# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""worker_release on a host and on a fleet alike: what it predicts, what it does, and what it refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.modules import ModuleRun
from support.record_places import Place
from support.releases import release

A, B, C = (release(letter).as_result() for letter in "abc")


# on either


def test_nothing_there(place: Place) -> None:
    found = place.run().must_pass()
    assert (found.changed, found["before"], found["record"], found["generation_next"]) == (False, None, None, 1)


DEPLOYS: list[tuple[str, dict[str, str], list[dict[str, str]]]] = [
    ("rolling", A, [A]),
    ("settled", A, [A]),
    ("rolling", B, [A, B]),
    ("settled", B, [B]),
    ("settled", A, [A]),
]


def timeless(run: ModuleRun) -> dict[str, Any]:
    """All that it returned but the moment at which it did."""
    history = [{**entry, "at": ""} for entry in run.result.get("history", [])]
    previous = {**(run.result.get("previous") or {}), "at": ""}
    return {**run.result, "history": history, "previous": previous}


def test_check_run_check_run_agree_through_a_life(place: Place) -> None:
    for generation, (state, target, allowed) in enumerate(DEPLOYS, start=1):
        asked: dict[str, Any] = {"state": state, "target": target, "generation": generation, "run": f"run{generation}"}
        before = place.contents()
        foretold = place.run(check=True, **asked).must_pass()
        assert place.contents() == before
        done = place.run(**asked).must_pass()
        for run in (foretold, done):
            assert run.changed
            assert run["record"] == {
                "fleet": "demo",
                "generation": generation,
                "phase": state,
                "target": target,
                "allowed": allowed,
            }
        assert timeless(foretold) == timeless(done)
        assert place.contents() != before
        after = place.contents()
        for check in (True, False):
            again = place.run(check=check, **asked).must_pass()
            assert (again.changed, again["before"], again["record"]) == (False, done["record"], done["record"])
            assert "diff" not in again.result
        assert place.contents() == after
        assert place.run().must_pass()["record"] == done["record"]


def test_the_diff_is_the_record_before_and_after(place: Place) -> None:
    place.run("settled", A, generation=1)
    diff = place.run("rolling", B, generation=2).must_pass()["diff"]
    assert json.loads(diff["before"])["allowed"] == [release("a").as_json()]
    assert json.loads(diff["after"])["allowed"] == [release("a").as_json(), release("b").as_json()]


def test_a_redeploy_leaves_the_generation(place: Place) -> None:
    place.run("settled", A, generation=1)
    for state in ("rolling", "settled"):
        again = place.run(state, A, generation=9).must_pass()
        assert (again.changed, again["record"]["generation"]) == (False, 1)


def test_what_runs_decides_what_stays_allowed(place: Place) -> None:
    place.run("settled", A, generation=1)
    place.run("rolling", B, generation=2)
    kept = place.run("rolling", C, generation=3, running=[A, B], check=True).must_pass()
    assert kept["record"]["allowed"] == [A, B, C]
    dropped = place.run("rolling", C, generation=3, running=[A]).must_pass()
    assert dropped["record"]["allowed"] == [A, C]


@pytest.mark.parametrize("check", [True, False])
def test_an_overtaken_deploy_is_refused(place: Place, check: bool) -> None:
    place.run("settled", A, generation=7, run="late").must_pass()
    before = place.contents()
    place.run("rolling", B, generation=6, run="early", check=check).must_fail("number 6", "number 7", "overtaken")
    assert place.contents() == before


@pytest.mark.parametrize("generation", [0, -1, 10**15 + 1])
def test_an_impossible_number_is_refused(place: Place, generation: int) -> None:
    place.run("settled", A, generation=generation).must_fail("option generation")
    assert place.contents() == {}


@pytest.mark.parametrize(
    "target",
    [
        {"release_id": "latest", "sha": A["sha"]},
        {"release_id": A["release_id"], "sha": B["sha"]},
        {"release_id": A["release_id"], "sha": A["sha"][:7]},
        {"release_id": "", "sha": ""},
        {"release_id": A["release_id"] + "\n", "sha": A["sha"]},
    ],
)
def test_what_is_no_release_is_refused(on_host: Place, target: dict[str, str]) -> None:
    on_host.run("rolling", target, generation=1).must_fail("option target")
    on_host.run("rolling", A, generation=1, running=[target]).must_fail("option running")
    assert on_host.contents() == {}


@pytest.mark.parametrize("name", ["../demo", "Demo", "", "d", "demo*"])
def test_what_is_no_fleet_is_refused(on_host: Place, name: str) -> None:
    on_host.run("settled", A, generation=1, fleet=name).must_fail("option fleet")
    assert on_host.contents() == {}


@pytest.mark.parametrize(
    "options",
    [
        {"state": "rolling"},
        {"state": "settled", "generation": 1},
        {"state": "rolling", "target": A},
        {"state": "gone"},
    ],
)
def test_half_a_question_is_refused(on_host: Place, options: dict[str, Any]) -> None:
    run = on_host.run(**options)
    assert run["failed"]
    assert "Traceback" not in run.output


def test_the_fleet_s_record_needs_a_redis(on_host: Place) -> None:
    run = on_host.run(scope="fleet")
    assert run["failed"]
    assert "redis_url" in run["msg"]
