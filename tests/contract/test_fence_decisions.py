# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fence's table is whole and says what its rules say; and the supervisor decides by it, every combination."""

from __future__ import annotations

import itertools

import pytest
from contract.fence_cases import DECISIONS, FENCE, RECORDS, ROLLING, UNREADABLE, Decision
from contract.guard_cases import CONTRACT, FIXTURES

import supervisor_fence as fence
from supervisor_health import PORT
from supervisor_registration import HEARTBEAT_SECONDS, LEGACY_FIELDS, LEGACY_TTL_SECONDS, TTL_SECONDS
from supervisor_report import STATES
from supervisor_settings import DRAIN_SECONDS, LONGEST_DRAIN

OWN = "0123456789ab.89abcdef0123:" + FIXTURES["environment"]["GIT_SHA"]
HOSTS = ("not mounted", "allowed", "not allowed", "missing", "unreadable")
FLEETS = ("allowed", "not allowed", "missing", "unreadable", "unreachable")


def test_the_table_has_every_combination_once() -> None:
    wanted = list(itertools.product(("starting", "running", "fenced"), HOSTS, FLEETS))
    assert sorted((row.before, row.host, row.fleet) for row in DECISIONS) == sorted(wanted)


@pytest.mark.parametrize("row", DECISIONS, ids=lambda row: row.name)
def test_the_table_follows_its_rules(row: Decision) -> None:
    if "not allowed" in (row.host, row.fleet):
        assert row.then == "park"
    elif row.before == "fenced":
        assert (row.then == "run") == (row.fleet == "allowed" and row.host in ("allowed", "not mounted"))
    elif row.fleet == "unreachable":
        assert row.then == ("wait" if row.before == "starting" else "hold")
    else:
        assert row.then == "run"


@pytest.mark.parametrize("row", DECISIONS, ids=lambda row: row.name)
def test_the_supervisor_decides_as_the_table_says(row: Decision) -> None:
    assert fence.decide(row.before, row.host, row.fleet) == (row.then, list(row.problems))


def test_what_was_decided_counts_as_before() -> None:
    kept = [fence.after("wait", before) for before in ("starting", "fenced")]
    assert kept == ["starting", "fenced"]
    assert [fence.after(then, "starting") for then in ("run", "hold", "park")] == ["running", "running", "fenced"]


@pytest.mark.parametrize("name", [name for name in RECORDS if name != "unreadable"])
def test_the_fleets_record_is_judged(name: str) -> None:
    text = RECORDS[name]
    assert fence.judge_fleet(text.encode() if text is not None else None, "demo", OWN) == name


def test_a_rolling_record_allows_both() -> None:
    old = FIXTURES["records"]["settled on old"]["target"]
    owns = [OWN, f"{old['releaseId']}:{old['sha']}"]
    assert [fence.judge_fleet(ROLLING.encode(), "demo", own) for own in owns] == ["allowed"] * 2


def test_without_an_image_file_nothing_allows() -> None:
    text = RECORDS["allowed"]
    assert text is not None
    assert fence.judge_fleet(text.encode(), "demo", None) == "not allowed"


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_record_of_no_form_is_unreadable(name: str) -> None:
    assert fence.judge_fleet(UNREADABLE[name].encode("utf-8", "surrogateescape"), "demo", OWN) == "unreadable"


def test_numbers_and_names_are_the_contracts() -> None:
    registration = CONTRACT["names"]["registration"]

    drain = tuple(FENCE["drainSeconds"][key] for key in ("default", "least", "most"))
    assert FENCE["hostLookSeconds"] == fence.LOOK_SECONDS
    assert drain == (DRAIN_SECONDS, 0, LONGEST_DRAIN)
    assert (registration["heartbeatSeconds"], registration["ttlSeconds"]) == (HEARTBEAT_SECONDS, TTL_SECONDS)
    assert registration["legacyFields"] == list(LEGACY_FIELDS)
    assert registration["legacyTtlSeconds"] == LEGACY_TTL_SECONDS
    assert (registration["states"], CONTRACT["names"]["healthPort"]) == (list(STATES), PORT)
