# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table that a person reads: each instance a line, what is wrong and the remedy under it, and one last word."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.proof import Row
from ansible_collections.driftguard.workers.plugins.module_utils.proof_table import table
from hypothesis import given
from hypothesis import strategies as st
from support.containers import CONTAINER_ID, IMAGE_ID, SHA

GOOD = Row(
    "extractor", "demo-workers-extractor-1", "host1", SHA, IMAGE_ID, CONTAINER_ID, "2026-01-02T03:04:05.6789Z",
    "running")
STALE = Row(
    "ocr", "demo-workers-ocr-1", "host1", "f" * 40, IMAGE_ID, CONTAINER_ID, "", "running", "STALE", "runs image x",
    "deploy again")
MISSING = Row("ocr", "ocr (2 of 2)", "host1", verdict="MISSING", found="1 of 2 instances", remedy="deploy again")


def lines(*rows: Row, sha: str = SHA) -> list[str]:
    return table([row.to_dict() for row in rows], sha)


def test_a_proved_fleet() -> None:
    assert lines(GOOD) == [
        f"Expected GIT_SHA: {SHA}", "",
        "SERVICE    INSTANCE                  HOST   SHA      IMAGE         STARTED              STATE    VERDICT",
        "extractor  demo-workers-extractor-1  host1  0123456  aaaaaaaaaaaa  2026-01-02T03:04:05  running  [OK]", "",
        "[OK] All 1 workers run 0123456, proved by container, image and registration"]


def test_what_is_wrong_has_its_remedy_under_it() -> None:
    found = lines(GOOD, STALE, MISSING)
    assert found[4].endswith("[STALE]")
    assert found[5:7] == ["    found:  runs image x", "    remedy: deploy again"]
    assert "-        -             -                    -        [MISSING]" in found[7]
    assert found[-1] == "[FAILED] 2 of 3 not as expected"


def test_columns_are_lined_up() -> None:
    found = lines(GOOD, STALE, MISSING)
    place = found[2].index("VERDICT")
    assert [found[line].index("[") for line in (3, 4, 7)] == [place] * 3


def test_no_rows_are_no_proof() -> None:
    assert lines()[-1] == "[MISSING] No worker found: nothing is proved"
    assert lines(sha="")[0] == "Expected GIT_SHA: unknown"


@pytest.mark.parametrize("changes", [
    {"service": "\x1b[31mred"}, {"instance": "a\nb"}, {"found": "\x1b]0;title\x07"}, {"remedy": "a\r\nb"},
    {"host": "\u202eright"}])
def test_no_name_can_draw_on_the_terminal(changes: dict[str, Any]) -> None:
    row = Row(**{**STALE.to_dict(), **changes})
    assert all(line.isprintable() for line in lines(GOOD, row))


@given(st.lists(st.builds(Row, *[st.text()] * 3, verdict=st.sampled_from(["OK", "STALE", "EXTRA"]), found=st.text())))
def test_ok_is_said_of_good_rows_alone(rows: list[Row]) -> None:
    found = lines(*rows)
    assert found[-1].startswith("[OK]") == (bool(rows) and all(row.verdict == "OK" for row in rows))
    assert sum(line.startswith("    remedy: ") for line in found) == sum(row.verdict != "OK" for row in rows)
    assert all(line.isprintable() for line in found)
