# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Revisions on a host: written whole or not at all, found again by content, named as people name them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.revisions import HISTORY_LIMIT, Revisions, release_json
from support.release_data import release_data

SERVICES: dict[str, Any] = {
    "extractor": {"variant": "base", "replicas": 1, "image": None, "spec": "x", "grace": 30, "memory": 2**26}}


def release_text(letter: str) -> str:
    """release.json of a commit that is forty times a digit."""
    data = {**release_data(), "sha": letter * 40, "release_id": f"{letter * 12}.{'0' * 12}"}
    return release_json(data, SERVICES)


class Kept:
    """Revisions in a directory, by the letter of their commit."""

    def __init__(self, root: Path) -> None:
        self.revisions = Revisions(root)
        self.root = root

    def write(self, number: int, letter: str) -> None:
        self.revisions.write(number, f"# compose {number}\n", release_text(letter))

    def settle(self, *numbers: int) -> None:
        for number in numbers:
            self.revisions.settle(self.revisions.load(number), number)


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    """Revisions 1 (a), 2 (b) and 3 (c), none of them proved."""
    found = Kept(tmp_path / "demo")
    for number, letter in enumerate("abc", 1):
        found.write(number, letter)
    return found


def test_nothing_is_kept_at_first(tmp_path: Path) -> None:
    revisions = Revisions(tmp_path / "nowhere")
    assert (revisions.numbers(), revisions.current(), revisions.history()) == ([], None, [])
    assert (revisions.next_number(5), revisions.compose_text(None), revisions.find("", "")) == (5, "", None)
    assert not revisions.forget_current()


def test_a_revision_is_read_back_as_it_was_written(kept: Kept) -> None:
    found = kept.revisions.load(2)
    assert (found.number, found.release.sha, found.services) == (2, "b" * 40, SERVICES)
    assert found.compose_file.read_text() == kept.revisions.compose_text(2) == "# compose 2\n"
    assert [path.name for path in (kept.root / "revisions").iterdir() if path.name not in "123"] == []


def test_a_number_is_never_given_twice(kept: Kept) -> None:
    assert [kept.revisions.next_number(number) for number in (1, 3, 4, 9)] == [4, 4, 4, 9]
    with pytest.raises(DriftguardError, match="nothing was changed"):
        kept.write(3, "d")
    assert kept.revisions.load(3).release.sha == "c" * 40
    assert sorted(path.name for path in (kept.root / "revisions").iterdir()) == ["1", "2", "3"]


def test_the_newest_of_equal_revisions_is_found(kept: Kept) -> None:
    kept.revisions.write(7, "# compose 2\n", release_text("b"))
    assert kept.revisions.find("# compose 2\n", release_text("b")) == 7
    assert kept.revisions.find("# compose 2\n", release_text("c")) is None
    assert kept.revisions.find("# compose 3\n", release_text("b")) is None


def test_what_a_killed_run_left_is_swept_up(kept: Kept) -> None:
    leftover = kept.root / "revisions" / ".new-killed"
    leftover.mkdir()
    (leftover / "compose.yml").touch()
    assert kept.revisions.numbers() == [1, 2, 3]
    kept.write(4, "d")
    assert not leftover.exists()


def test_current_moves_with_its_history(kept: Kept) -> None:
    kept.settle(1, 2)
    assert kept.revisions.current() == 2
    assert os.readlink(kept.root / "current") == "revisions/2"
    assert [(entry["revision"], entry["sha"][0], entry["generation"]) for entry in kept.revisions.history()] == [
        (1, "a", 1), (2, "b", 2)]
    assert not kept.revisions.settle(kept.revisions.load(2), 9)
    assert len(kept.revisions.history()) == 2
    assert [path.name for path in kept.root.iterdir() if path.name.startswith(".")] == []
    assert kept.revisions.forget_current()
    assert kept.revisions.current() is None


def test_the_history_has_an_end(kept: Kept) -> None:
    kept.settle(*([1, 2] * HISTORY_LIMIT))
    assert [entry["revision"] for entry in kept.revisions.history()] == [1, 2] * (HISTORY_LIMIT // 2)


@pytest.mark.parametrize(("settled", "previous"), [
    ([1, 2], 1), ([1, 2, 3], 2), ([1, 2, 3, 2], 1), ([1, 2, 1, 3], 1), ([1, 2, 2], 1), ([2, 1], 2)])
def test_previous_is_what_was_proved_before(kept: Kept, settled: list[int], previous: int) -> None:
    kept.settle(*settled)
    assert kept.revisions.resolve("previous") == previous


@pytest.mark.parametrize("settled", [[], [1], [1, 2, 1]])
def test_without_a_previous_one_nothing_is_guessed(kept: Kept, settled: list[int]) -> None:
    kept.settle(*settled)
    with pytest.raises(DriftguardError, match="revision previous"):
        kept.revisions.resolve("previous")


@pytest.mark.parametrize(("settled", "fenced", "previous"), [
    ([1, 2, 3], "b", 1), ([1, 2, 3], "c", 2), ([1, 2, 3, 2], "a", None), ([1, 2, 3], "ab", None),
])
def test_a_previous_one_that_is_fenced_is_passed_over(
    kept: Kept, settled: list[int], fenced: str, previous: int | None,
) -> None:
    kept.settle(*settled)
    ids = [f"{letter * 12}.{'0' * 12}" for letter in fenced]
    if previous is None:
        with pytest.raises(DriftguardError, match="revision previous"):
            kept.revisions.resolve("previous", ids)
    else:
        assert kept.revisions.resolve("previous", ids) == previous
    assert kept.revisions.resolve("b" * 7, ids) == 2, "by name it may be asked for"


def test_a_previous_one_that_is_gone_is_skipped(kept: Kept) -> None:
    kept.settle(1, 2, 3)
    for file in (kept.root / "revisions/2").iterdir():
        file.unlink()
    (kept.root / "revisions/2").rmdir()
    assert kept.revisions.resolve("previous") == 1


@pytest.mark.parametrize(("wanted", "number"), [
    ("2", 2), ("02", 2), ("3", 3), ("current", 2), ("aaaaaaa", 1), ("A" * 40, 1), (f"{'b' * 12}.{'0' * 12}", 2)])
def test_a_revision_by_number_or_commit(kept: Kept, wanted: str, number: int) -> None:
    kept.settle(1, 2)
    assert kept.revisions.resolve(wanted) == number


@pytest.mark.parametrize(
    "wanted", ["9", "aaaaaa", "ccccccc", "", "../1", "1/../2", "None", "٣", "9" * 5000, "a\n\x1b[31m", "-1"]
)
def test_what_names_no_proved_revision(kept: Kept, wanted: str) -> None:
    kept.settle(1, 2)
    with pytest.raises(DriftguardError) as error:
        kept.revisions.resolve(wanted)
    assert "proved here: 1 (aaaaaaa), 2 (bbbbbbb)" in error.value.found
    assert str(error.value).isprintable()


def test_a_prefix_of_two_releases_is_refused(kept: Kept) -> None:
    other = {**release_data(), "sha": "a" * 40, "release_id": f"{'a' * 12}.{'1' * 12}"}
    kept.revisions.write(4, "# other inputs\n", release_json(other, SERVICES))
    kept.settle(1, 4)
    with pytest.raises(DriftguardError, match="exactly one"):
        kept.revisions.resolve("aaaaaaa")
    assert kept.revisions.resolve(f"{'a' * 12}.1") == 4


@pytest.mark.parametrize("content", [
    "", "[]", "null", "{", '{"release": {}}', '{"release": {}, "services": {}}', "[" * 10**5, "5",
    release_text("a").replace('"grace"', '"groce"'), json.dumps({"release": release_data(), "services": {"x": 5}}),
    json.dumps({"release": release_data(), "services": 5}),
])
def test_a_damaged_revision_is_named(kept: Kept, content: str) -> None:
    (kept.root / "revisions/1/release.json").write_text(content)
    with pytest.raises(DriftguardError):
        kept.revisions.load(1)


def test_a_revision_that_is_not_kept_is_named(kept: Kept) -> None:
    with pytest.raises(DriftguardError, match=r"revision 9 .* only \[1, 2, 3\]"):
        kept.revisions.load(9)


@pytest.mark.parametrize(
    "content", ["", "{", "{}", "5", "null", "[" * 10**5, '[5, {"revision": "x"}, {"revision": true}, {}]']
)
def test_a_damaged_history_counts_as_none(kept: Kept, content: str) -> None:
    kept.settle(1)
    (kept.root / "state/history.json").write_text(content)
    assert kept.revisions.history() == []
    kept.settle(2)
    assert [entry["revision"] for entry in kept.revisions.history()] == [2]


@pytest.mark.parametrize("target", ["revisions/x", "/", "revisions/-1", "revisions/"])
def test_a_link_that_leads_elsewhere_is_named(kept: Kept, target: str) -> None:
    (kept.root / "current").symlink_to(target)
    with pytest.raises(DriftguardError, match="a link to a numbered revision"):
        kept.revisions.current()


def test_a_file_where_the_link_should_be_is_named(kept: Kept) -> None:
    (kept.root / "current").touch()
    with pytest.raises(DriftguardError, match="a link to a revision"):
        kept.revisions.current()


def test_where_nothing_can_be_written_the_error_says_so(kept: Kept) -> None:
    (kept.root / "state").touch()
    with pytest.raises(DriftguardError, match="state"):
        kept.settle(1)
    assert kept.revisions.current() is None
