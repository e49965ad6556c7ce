# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fence's state table, row by row; what a person means; and that a rollback never leads back to what was fenced."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.fence_plan import FencePlan, Known, meant, plan_fence
from ansible_collections.driftguard.workers.plugins.module_utils.record import (
    NOTHING,
    ROLLING,
    SETTLED,
    Record,
    ReleaseRef,
    parse_record,
    render_json,
    rolling,
)
from ansible_collections.driftguard.workers.plugins.module_utils.release_history import (
    HistoryEntry,
    fenced_releases,
    parse_history,
    previous_release,
)
from contract.guard_cases import CONTRACT
from hypothesis import given
from hypothesis import strategies as st
from support.releases import release

A, B, C, X = (release(letter) for letter in "abce")
NOTE = ("2026-01-02T03:04:05Z", "me", "it is bad")


def history(letters: str) -> list[HistoryEntry]:
    """Newest first, from letters in the order they were settled; a capital letter was fenced."""
    return [
        HistoryEntry(number, release(letter.lower()), "t", "me", (), "target" if letter.isupper() else "")
        for number, letter in enumerate(letters, 1)
    ][::-1]


def record(phase: str, allowed: str, target: str = "", generation: int = 7) -> Record:
    return Record(
        "demo", generation, phase, release((target or allowed)[-1]), tuple(release(letter) for letter in allowed))


def plan(current: Record | None, bad: str, settled: str = "", running: str = "", highest: int = 7) -> FencePlan:
    known = Known(current, history(settled), tuple(release(letter) for letter in running))
    return plan_fence("demo", known, [release(letter) for letter in bad], highest, NOTE)


# (name, phase and allowed and target now, bad, history, running) -> phase, target, allowed
ROWS: list[Any] = [
    ("settled, its own release: what was before", (SETTLED, "c"), "c", "abc", "", (SETTLED, "b", "b")),
    ("settled, what was before was fenced too", (SETTLED, "c"), "c", "abBc", "", (SETTLED, "a", "a")),
    ("settled, what was undone is not gone back to", (SETTLED, "b"), "b", "abcb", "", (SETTLED, "a", "a")),
    ("settled, nothing before", (SETTLED, "c"), "c", "c", "", (ROLLING, "", "")),
    ("settled, no history at all", (SETTLED, "c"), "c", "", "", (ROLLING, "", "")),
    ("settled, all of the history fenced", (SETTLED, "c"), "c", "aAbBc", "", (ROLLING, "", "")),
    ("rolling, the new one", (ROLLING, "ac"), "c", "a", "", (SETTLED, "a", "a")),
    ("rolling, the old one", (ROLLING, "ac"), "a", "a", "", (SETTLED, "c", "c")),
    ("rolling over a ruin, the new one", (ROLLING, "abc"), "c", "a", "", (ROLLING, "b", "ab")),
    ("rolling over a ruin, the ruin", (ROLLING, "abc"), "b", "a", "", (ROLLING, "c", "ac")),
    ("rolling back, the one that is left", (ROLLING, "abc", "a"), "c", "a", "", (ROLLING, "a", "ab")),
    ("rolling, all of them", (ROLLING, "bc"), "bc", "ab", "", (SETTLED, "a", "a")),
    ("no record, the history", None, "c", "abc", "", (SETTLED, "b", "b")),
    ("no record, what runs", None, "c", "", "bca", (ROLLING, "a", "ba")),
    ("no record, nothing known", None, "c", "", "c", (ROLLING, "", "")),
]


def made(phase: str, target: str, allowed: str) -> Record:
    if not allowed:
        return Record("demo", 8, phase, NOTHING, (NOTHING,))
    return record(phase, allowed, target, 8)


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_the_table(row: Any) -> None:
    _name, now, bad, settled, running, then = row
    found = plan(record(*now) if now else None, bad, settled, running)
    assert found.record == made(*then)
    assert (found.number, found.changed) == (8, True)
    assert parse_record(render_json(found.record), "key", "demo", "x") == found.record


def test_a_deploy_that_only_took_its_number_is_overtaken() -> None:
    assert plan(record(SETTLED, "c"), "c", highest=41).record.generation == 42


@pytest.mark.parametrize(
    ("now", "settled"), [((SETTLED, "b"), "abcC"), ((ROLLING, "ab"), "acC"), ((SETTLED, "b"), "b")])
def test_what_is_fenced_already_changes_nothing(now: Any, settled: str) -> None:
    current = record(*now)
    found = plan(current, "c", settled, highest=len(settled))
    assert (found.record, found.changed) == (current, False)


def test_what_a_deploy_may_be_on_its_way_to_is_noted_again() -> None:
    """It took its number after the fence, so it may lift that; this one comes after it."""
    current = record(SETTLED, "b")
    found = plan(current, "c", "abcC", highest=7)
    assert (found.record, found.number) == (current, 7)
    assert [(entry.release, entry.fenced, entry.generation) for entry in found.entries] == [(C, "past", 7)]
    again = Known(current, [*found.entries, *history("abcC")], ())
    assert not plan_fence("demo", again, [C], 7, NOTE).changed


def test_a_number_that_workers_could_not_read_is_not_published() -> None:
    with pytest.raises(DriftguardError, match="deployment number"):
        plan(record(SETTLED, "c"), "c", highest=10**15)


def test_one_of_the_past_is_noted_and_overtakes_nobody() -> None:
    found = plan(record(ROLLING, "bc"), "a", "ab")
    assert (found.record, found.number) == (record(ROLLING, "bc"), 7)
    assert [(entry.release, entry.fenced) for entry in found.entries] == [(A, "past")]


def test_nothing_is_the_contracts() -> None:
    assert NOTHING.as_json() == CONTRACT["record"]["nothing"]
    parked = plan(record(SETTLED, "c"), "c").record
    assert rolling(parked, "demo", A, 9).allowed == (NOTHING, A)
    again = plan_fence("demo", Known(rolling(parked, "demo", A, 9), history("b"), ()), [A], 9, NOTE).record
    assert again.allowed == (B,)


KNOWN = Known(record(ROLLING, "ac"), history("ba"), (release("d"), ReleaseRef("c" * 12 + "." + "1" * 12, "c" * 40)))


@pytest.mark.parametrize(("asked", "found"), [
    ("", [C]), (C.release_id, [C]), ("c" * 7, [C, KNOWN.running[1]]), (("C" * 40), [C, KNOWN.running[1]]),
    (B.release_id, [B]), ("ddddddd", [release("d")]), (" aaaaaaa\n", [A]),
])
def test_what_is_meant(asked: str, found: list[ReleaseRef]) -> None:
    assert list(meant(asked, KNOWN)) == found


@pytest.mark.parametrize("asked", ["cccccc", "f" * 40, "main", "c" * 41, "c" * 12 + "." + "9" * 12, "../x\n", "0" * 40])
def test_what_can_not_be_meant_is_refused(asked: str) -> None:
    with pytest.raises(DriftguardError, match="option release"):
        meant(asked, KNOWN)


def test_a_prefix_of_two_commits_is_refused() -> None:
    twin = ReleaseRef("c" * 12 + "." + "1" * 12, "c" * 12 + "d" * 28)
    with pytest.raises(DriftguardError, match="2 commits"):
        meant("ccccccc", Known(KNOWN.record, [], (twin,)))


def test_again_without_a_name_is_the_same_one_and_not_the_next() -> None:
    first = plan(record(SETTLED, "c"), "c", "abc")
    after = Known(first.record, [*first.entries, *history("abc")], ())
    assert meant("", after) == (C,)
    assert not plan_fence("demo", after, meant("", after), 8, NOTE).changed
    under_way = plan_fence("demo", after, meant("", after), 9, NOTE)
    noted = Known(first.record, [*under_way.entries, *after.history], ())
    assert (under_way.number, meant("", noted)) == (9, (C,))
    deployed = Known(rolling(first.record, "demo", X, 9), noted.history, ())
    assert meant("", deployed) == (X,)


def test_again_without_a_name_after_one_of_the_past_is_the_target() -> None:
    noted = plan(record(SETTLED, "b"), "a", "ab")
    assert meant("", Known(noted.record, [*noted.entries, *history("ab")], ())) == (B,)


@pytest.mark.parametrize("current", [None, Record("demo", 7, ROLLING, NOTHING, (NOTHING,))])
def test_without_a_target_a_name_is_needed(current: Record | None) -> None:
    with pytest.raises(DriftguardError, match="no target"):
        meant("", Known(current, history("a"), ()))


@pytest.mark.parametrize(("settled", "current", "previous"), [
    ("abcC", "b", "a"), ("abcC", "c", "b"), ("abBc", "c", "a"), ("abBbc", "c", "b"), ("aAbB", "b", None),
    ("abA", "b", None),
])
def test_previous_is_never_fenced(settled: str, current: str, previous: str | None) -> None:
    found = previous_release(history(settled), release(current))
    assert (found.release if found else None) == (release(previous) if previous else None)


@given(st.text("abcABC", max_size=14), st.sampled_from("abc"))
def test_previous_is_never_fenced_whatever_came_before(settled: str, current: str) -> None:
    entries = history(settled)
    found = previous_release(entries, release(current))
    assert found is None or found.release not in fenced_releases(entries)


def test_a_fence_comes_back_as_written_and_a_deploy_lifts_it() -> None:
    (entry,) = plan(record(SETTLED, "c"), "c", "abc").entries
    assert parse_history([entry.as_json()]) == ([entry], 0)
    assert entry.reason == "it is bad"
    assert fenced_releases([entry, *history("abc")]) == {C: entry}
    assert fenced_releases([*history("c"), entry]) == {}
    assert "fenced" not in history("a")[0].as_json()
