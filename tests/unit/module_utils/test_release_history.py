# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a rollback goes, and that entries of any content can be read back."""

from __future__ import annotations

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.release_history import (
    HistoryEntry,
    parse_history,
    previous_release,
)
from hypothesis import given
from hypothesis import strategies as st
from support.releases import release


def entries(letters: str) -> list[HistoryEntry]:
    """Newest first, from letters in the order they were settled."""
    made = [
        HistoryEntry(number, release(letter), "2026-01-02T03:04:05Z", "me") for number, letter in enumerate(letters, 1)
    ]
    return made[::-1]


@pytest.mark.parametrize(
    ("settled", "current", "previous"),
    [
        ("", "a", None),
        ("a", "a", None),
        ("ab", "b", "a"),
        ("abc", "c", "b"),
        ("abcb", "b", "a"),  # c was undone: a second rollback doesn't go to it
        ("abcba", "a", None),
        ("abcbd", "d", "b"),
        ("abacb", "b", "c"),  # b was undone once, and then deployed anew over c
        ("aabb", "b", "a"),  # another revision of the same release is the same release
        ("ab", "c", "b"),  # the current one was never settled
        ("ab", "", "b"),  # no record any more
    ],
)
def test_previous(settled: str, current: str, previous: str | None) -> None:
    found = previous_release(entries(settled), release(current) if current else None)
    assert (found.release if found else None) == (release(previous) if previous else None)


@given(st.text("abc", max_size=12))
def test_rolling_back_again_and_again_ends(settled: str) -> None:
    history = entries(settled)
    for _ in range(5):
        found = previous_release(history, history[0].release) if history else None
        if found is None:
            return
        history = [HistoryEntry(99, found.release, "", ""), *history]
    raise AssertionError("rollbacks go round in circles")


def test_entries_come_back_as_written() -> None:
    entry = HistoryEntry(7, release("a"), "2026-01-02T03:04:05Z", "me@here", (("host1", "7"), ("host2", "8")))
    assert parse_history([entry.as_json()]) == ([entry], 0)


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{}", '{"generation": 1}', '{"generation": "1"}', "\0", "[" * 9999, "x" * 70_000]
)
def test_what_is_no_entry_is_counted(text: str) -> None:
    good = entries("a")[0]
    assert parse_history([text, good.as_json()]) == ([good], 1)


@given(st.dictionaries(st.text(), st.text()), st.text(), st.text())
def test_entries_with_any_text_can_be_shown(revisions: dict[str, str], at: str, by: str) -> None:
    written = HistoryEntry(7, release("a"), at, by, tuple(revisions.items())).as_json()
    read, damaged = parse_history([written])
    assert damaged == 0
    shown = [read[0].at, read[0].by, *(text for pair in read[0].revisions for text in pair)]
    assert all(text.isprintable() and len(text) <= 201 for text in shown)
