# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The worker runtime decides as the contract says, and reads records as strictly as the guard does."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Callable

import pytest
from contract.guard_cases import CONTRACT, import_guard
from hypothesis import given
from hypothesis import strategies as st

from driftguard_worker.decision import Decision, Standing, View, decide
from driftguard_worker.records import HostRecord, ReleaseKey, view_of

version_guard = import_guard()
BEFORE = {"starting": Standing.WAIT, "running": Standing.RUN, "fenced": Standing.PARK}
OLD = ReleaseKey("0" * 12 + "." + "1" * 12, "0" * 40)
NEW = ReleaseKey("a" * 12 + "." + "2" * 12, "a" * 40)


@pytest.mark.parametrize("case", CONTRACT["fence"]["decisions"], ids=lambda case: " ".join(case[:3]))
def test_decisions(case: list[Any]) -> None:
    before, host, fleet, then, problems = case
    assert decide(BEFORE[before], View(host), View(fleet)) == Decision(Standing(then), tuple(problems))


def test_who_holds_decides_like_who_runs() -> None:
    for host in set(View) - {View.UNREACHABLE}:
        for fleet in set(View) - {View.NOT_MOUNTED}:
            assert decide(Standing.HOLD, host, fleet) == decide(Standing.RUN, host, fleet)


def document(allowed: list[ReleaseKey], **more: Any) -> dict[str, Any]:
    releases = [{"releaseId": key.release_id, "sha": key.sha} for key in allowed]
    whole = {
        "schema": 1, "fleet": "demo", "generation": 7, "phase": "settled" if len(allowed) == 1 else "rolling",
        "target": releases[-1], "allowed": releases,
    }
    return {**whole, **more}


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize(("allowed", "own", "expected"), [
    ([NEW], NEW, View.ALLOWED), ([NEW], OLD, View.NOT_ALLOWED), ([OLD, NEW], OLD, View.ALLOWED),
    ([NEW], None, View.NOT_ALLOWED), ([NEW], ReleaseKey(NEW.release_id, OLD.sha), View.NOT_ALLOWED),
])
def test_views(allowed: list[ReleaseKey], own: ReleaseKey | None, expected: View) -> None:
    assert view_of(encoded(document(allowed)), own, "demo") is expected


@pytest.mark.parametrize("content", [None, b""])
def test_no_record(content: bytes | None) -> None:
    assert view_of(content, NEW) is View.MISSING


def test_a_record_of_another_fleet_is_none() -> None:
    assert view_of(encoded(document([NEW])), NEW, "other") is View.UNREADABLE
    assert view_of(encoded(document([NEW])), NEW) is View.ALLOWED


STRANGE = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 40), st.floats(allow_nan=False), st.text(max_size=3), st.just([]),
    st.just("settled"), st.just("rolling"), st.just({"releaseId": OLD.release_id, "sha": OLD.sha}),
    st.just([{"releaseId": OLD.release_id, "sha": OLD.sha}] * 2), st.just({"releaseId": "x", "sha": OLD.sha}),
)


@given(st.sampled_from([[NEW], [OLD, NEW], [OLD, NEW, NEW], []]), st.sampled_from(
    ["schema", "fleet", "generation", "phase", "target", "allowed", "further", "no change"]), STRANGE)
def test_reads_what_the_guard_reads_and_nothing_else(allowed: list[ReleaseKey], key: str, value: Any) -> None:
    content = encoded({**document(allowed or [NEW]), **({} if key == "no change" else {key: value})})
    try:
        releases = version_guard.parse_record(content)
    except ValueError:
        assert view_of(content, NEW) is View.UNREADABLE
    else:
        assert view_of(content, NEW) is (View.ALLOWED if ":".join(NEW) in releases else View.NOT_ALLOWED)


@pytest.mark.parametrize("content", [
    b"{", b"[]", b"null", b"\xff", b"[" * 60_000, encoded(document([NEW], filler="x" * 70_000)),
    b'{"schema": 1, ' + encoded(document([NEW]))[1:], encoded(document([NEW])).replace(b"7", b"NaN"),
    encoded(document([NEW], further=float("inf"))),
])
def test_unreadable(content: bytes) -> None:
    assert view_of(content, NEW) is View.UNREADABLE
    with pytest.raises((ValueError, RecursionError)):
        version_guard.parse_record(content)


def write(place: Path, allowed: list[ReleaseKey]) -> None:
    draft = place / "draft"
    draft.write_bytes(encoded(document(allowed)))
    draft.replace(place / "guard.json")


def test_a_host_record_is_followed(tmp_path: Path) -> None:
    write(tmp_path, [OLD])
    record = HostRecord(tmp_path, OLD)
    assert (record.mounted, record.view()) == (True, View.ALLOWED)
    write(tmp_path, [NEW])
    assert record.view() is View.NOT_ALLOWED
    write(tmp_path, [OLD, NEW])
    assert record.view() is View.ALLOWED


def no_file(file: Path) -> None:
    file.unlink()


def directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def garbage(file: Path) -> None:
    file.write_bytes(b"garbage")


@pytest.mark.parametrize(("damage", "expected"), [
    (no_file, View.MISSING), (directory, View.UNREADABLE), (pipe, View.UNREADABLE), (empty, View.UNREADABLE),
    (garbage, View.UNREADABLE),
])
def test_a_host_record_that_is_damaged_and_mended(
    tmp_path: Path, damage: Callable[[Path], None], expected: View
) -> None:
    write(tmp_path, [OLD])
    record = HostRecord(tmp_path, OLD)
    assert record.view() is View.ALLOWED
    damage(tmp_path / "guard.json")
    assert record.view() is expected
    if (tmp_path / "guard.json").is_dir():
        (tmp_path / "guard.json").rmdir()
    write(tmp_path, [NEW])
    assert record.view() is View.NOT_ALLOWED


def test_without_a_mount_there_is_no_record(tmp_path: Path) -> None:
    record = HostRecord(tmp_path / "none", OLD)
    assert (record.mounted, record.view()) == (False, View.NOT_MOUNTED)
