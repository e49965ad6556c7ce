# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which jobs are meant: a table of cases, and the parsers of what a person gives."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.queue_select import (
    Criteria,
    Evidence,
    Judged,
    evidence_of,
    ids_of_file,
    judge,
    parse_age,
    parse_ids,
    refuse_all_gone,
    since_of,
)
from hypothesis import given
from hypothesis import strategies as st

NOW = 1_000_000_000
OLD = Criteria(seconds=60)
GONE = Criteria(evidence=Evidence("data.e", frozenset({"e1"})))


def fields(**values: str) -> dict[str, bytes]:
    return {name: value.encode() for name, value in values.items()}


@pytest.mark.parametrize(("criteria", "known", "since", "chosen"), [
    (OLD, {}, NOW - 60_000, True),
    (OLD, {}, NOW - 59_999, False),
    (OLD, {}, NOW + 5, False),
    (OLD, {}, None, None),
    (Criteria(name="send*"), fields(name="send-mail"), None, True),
    (Criteria(name="send"), fields(name="send-mail"), None, False),
    (Criteria(name="SEND*"), fields(name="send-mail"), None, False),
    (Criteria(name="*"), {"name": None}, None, None),
    (Criteria(name="*"), None, None, None),
    (Criteria(job_id="1?"), {}, None, True),
    (Criteria(ids=frozenset({"17"})), None, None, True),
    (Criteria(ids=frozenset({"1"})), None, None, False),
    (GONE, fields(data='{"e": "e2"}'), None, True),
    (GONE, fields(data='{"e": "e1"}'), None, False),
    (GONE, fields(data='{"f": "e2"}'), None, None),
    (GONE, {"data": None}, None, None),
    # One criterion that fails decides, whatever can't be told; else what can't be told does.
    (Criteria(seconds=60, job_id="2*"), None, None, False),
    (Criteria(seconds=60, job_id="1*"), None, None, None),
    (Criteria(seconds=60, job_id="1*", name="a"), fields(name="a"), 0, True),
])
def test_a_job_is_judged(criteria: Criteria, known: Any, since: int | None, chosen: bool | None) -> None:
    assert judge(criteria, b"17", known, since, NOW).chosen is chosen


def test_whether_evidence_exists_is_told_apart_from_the_rest() -> None:
    both = Criteria(job_id="x", evidence=GONE.evidence)
    assert judge(both, b"17", fields(data='{"e": "e1"}'), None, NOW) == Judged(False, True)
    assert judge(both, b"17", fields(data='{"e": "e2"}'), None, NOW) == Judged(False, False)


@pytest.mark.parametrize(("place", "score", "since"), [
    ("failed", 5.0, 5), ("completed", 7.9, 7), ("failed", float("inf"), None), ("failed", -1.0, None),
    ("failed", float("nan"), None), ("failed", None, None), ("delayed", 5.0, 17), ("wait", None, 17)])
def test_since_when(place: str, score: float | None, since: int | None) -> None:
    assert since_of(place, score, fields(timestamp="17")) == since


@pytest.mark.parametrize(("data", "field", "found"), [
    ({"a": {"b": "x"}}, "data.a.b", "x"), ({"a": 7}, "data.a", "7"), ({"a": 0}, "data.a", "0"),
    ({"a": 1.0}, "data.a", None), ({"a": ""}, "data.a", None), ({"a": "x\n"}, "data.a", None),
    ({"a": {"b": 1}}, "data.a", None), ([1], "data.0", None), ("x", "data.a", None), ({"a": "x"}, "data.a.b", None)])
def test_evidence(data: Any, field: str, found: str | None) -> None:
    assert evidence_of(json.dumps(data).encode(), field) == found


@given(st.binary(max_size=200))
def test_data_of_any_bytes_has_evidence_or_none(data: bytes) -> None:
    found = evidence_of(data, "data.a")
    assert found is None or found.isprintable()


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=5))
def test_ids_are_ids_or_refused(values: Any) -> None:
    try:
        found = parse_ids("job_ids", values)
    except DriftguardError:
        return
    assert found
    assert all(one and one.isprintable() for one in found)


@pytest.mark.parametrize(("text", "seconds"), [
    ("0s", 0), ("90s", 90), ("15m", 900), ("36h", 129_600), ("7d", 604_800), ("2w", 1_209_600)])
def test_ages(text: str, seconds: int) -> None:
    assert parse_age("older_than", text) == seconds


def test_ids_in_a_file() -> None:
    assert ids_of_file("f", "a\r\n\n b \n17") == ids_of_file("f", '["a", "b", 17]') == frozenset({"a", "b", "17"})


@pytest.mark.parametrize(("there", "gone", "refused"), [(0, 1, True), (1, 5, False), (0, 0, False), (3, 0, False)])
def test_that_all_is_gone_has_to_be_said(there: int, gone: int, refused: bool) -> None:
    if refused:
        with pytest.raises(DriftguardError, match="all_gone"):
            refuse_all_gone(there, gone, frozenset({"x"}))
    else:
        refuse_all_gone(there, gone, frozenset({"x"}))
