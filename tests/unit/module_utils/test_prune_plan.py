# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host keeps, and what goes."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.prune_plan import (
    UNPROVED,
    Needs,
    Revisions,
    judge,
    repository,
    unneeded,
)
from hypothesis import given
from hypothesis import strategies as st


def gone(keep: int = 2, **state: Any) -> list[int]:
    found = judge(Revisions(**{
        "numbers": range(1, 10), "current": 8, "proved": [1, 3, 5, 6, 8], **state}), keep)
    return [verdict.number for verdict in found if not verdict.stays]


def test_unproved_ones_go_first_and_what_is_newer_than_the_current_one_stays() -> None:
    assert gone() == [2, 4, 7, 1, 3, 5]
    assert gone(5) == [2, 4, 7]


@pytest.mark.parametrize(("state", "kept"), [
    ({"previous": {3}}, 3), ({"published": {1}}, 1), ({"used": {2: "stray"}}, 2), ({"under_way": {7}}, 7),
    ({"current": 4}, 4), ({"proved": [2, 8]}, 2)])
def test_what_is_needed_stays(state: dict[str, Any], kept: int) -> None:
    assert kept not in gone(1 if "proved" not in state else 2, **state)


def test_the_last_ones_are_counted_by_when_they_were_proved_last() -> None:
    assert gone(2, numbers=[1, 2, 3, 4], current=2, proved=[1, 2, 3, 4, 2]) == [1, 3]


def test_what_is_no_longer_there_takes_no_place() -> None:
    assert gone(2, numbers=[1, 2, 8], current=8, proved=[1, 2, 7, 8]) == [1]


@given(st.sets(st.integers(1, 30), min_size=1), st.lists(st.integers(1, 30)), st.integers(1, 6), st.data())
def test_nothing_that_is_needed_ever_goes(numbers: set[int], proved: list[int], keep: int, data: st.DataObject) -> None:
    current = data.draw(st.sampled_from(sorted(numbers)))
    history = [*proved, current]
    needed = data.draw(st.sets(st.integers(1, 30)))
    verdicts = judge(Revisions(sorted(numbers), current, history, needed), keep)
    assert sorted(verdict.number for verdict in verdicts) == sorted(numbers)
    going = [verdict for verdict in verdicts if not verdict.stays]
    assert not {current, *needed} & {verdict.number for verdict in going}
    assert len({*history} & {verdict.number for verdict in verdicts if verdict.stays}) >= min(
        keep, len({*history} & numbers))
    # Without anything in the way no more than that is kept.
    reasons = [verdict.reason for verdict in going]
    assert reasons == sorted(reasons, key=lambda reason: reason != UNPROVED)
    # What goes once never makes another go: a second run finds nothing.
    left = {verdict.number for verdict in verdicts if verdict.stays}
    again = judge(Revisions(sorted(left), current, history, needed), keep)
    assert all(verdict.stays for verdict in again)


RELEASE, OTHER = "0123456789ab.000000000000", "0123456789ab.111111111111"
NEEDS = Needs(
    "shop", {"shop-worker", "r:5000/shop"}, {RELEASE}, {"sha256:kept"}, {"sha256:used"}, "2026-02-01T00:00:00Z")


def row(identity: str = "sha256:x", **change: Any) -> dict[str, Any]:
    labels = {
        "io.driftguard.fleet": "shop", "io.driftguard.release": OTHER,
        "org.opencontainers.image.created": "2026-01-01T00:00:00Z", **change.pop("labels", {})}
    return {"Id": identity, "RepoTags": ["shop-worker:a"], "RepoDigests": None, "Size": 5, "Labels": labels, **change}


def test_an_old_image_goes_by_each_of_its_names() -> None:
    images = unneeded([row(RepoTags=["shop-worker:a", "r:5000/shop:b"], RepoDigests=["r:5000/shop@sha256:0"])], NEEDS)
    assert [(image.names, image.size) for image in images] == [
        (("shop-worker:a", "r:5000/shop:b", "r:5000/shop@sha256:0"), 5)]


def test_somebody_elses_name_of_it_stays() -> None:
    assert unneeded([row(RepoTags=["mine:a", "shop-worker:a"])], NEEDS)[0].names == ("shop-worker:a",)


@pytest.mark.parametrize("image", [
    row(labels={"io.driftguard.release": RELEASE}),
    row("sha256:kept"),
    row("sha256:used"),
    row(labels={"io.driftguard.fleet": "shop2"}),
    row(labels={"io.driftguard.fleet": None}),
    row(Labels=None),
    row(RepoTags=None),
    row(RepoTags=["<none>:<none>"], RepoDigests=["<none>@<none>"]),
    row(RepoTags=["other-worker:a"]),
    row(RepoTags=["shop-worker-of-mine:a"]),
    row(labels={"org.opencontainers.image.created": "2026-03-01T00:00:00Z"}),
    row(labels={"org.opencontainers.image.created": "yesterday"}),
    row(labels={"org.opencontainers.image.created": None}),
])
def test_what_is_needed_or_somebody_elses_stays(image: dict[str, Any]) -> None:
    assert unneeded([image], NEEDS) == []


@pytest.mark.parametrize(("name", "expected"), [
    ("a:b", "a"), ("r:5000/a:b", "r:5000/a"), ("r:5000/a@sha256:0", "r:5000/a"), ("r:5000/a", "r:5000/a"), ("a", "a")])
def test_the_repository_of_a_name(name: str, expected: str) -> None:
    assert repository(name) == expected
