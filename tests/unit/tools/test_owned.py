# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What make clean may remove, and what it must never touch."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import clean
from tools.owned import MADE_FOR, TEST, Owner, Thing, foreign_fleets, own_labels

FLEET = "io.driftguard.fleet"
PROJECT = "com.docker.compose.project"


def thing(kind: str = "container", name: str = "x", **labels: str) -> Thing:
    """A thing; ``fleet``, ``project``, ``made_for`` and ``test`` are its labels."""
    keys = {"fleet": FLEET, "project": PROJECT, "made_for": MADE_FOR, "test": TEST}
    return Thing(kind, name, name, {keys[key]: value for key, value in labels.items()})


OURS = [
    thing(fleet="demo", project="demo-workers"),
    thing(fleet="demo", project="an-extra-of-a-test"),
    thing(fleet="molecule"),
    thing(fleet="demo-lab"),
    thing(fleet="t01234abc"),
    thing(project="t01234abc-workers"),
    thing("network", project="demo-workers"),
    thing("network", made_for="demo"),
    thing("volume", made_for="t01234abc"),
    thing("container", test="whatever"),
    thing("image", "demo-worker:abc", fleet="demo"),
    thing("image", "driftguard.local/base:0123"),
]
OTHERS = [
    thing(),
    thing(fleet="shop", project="shop-workers"),
    thing(fleet="shop", project="demo-workers"),
    thing(fleet="shop", made_for="demo", test="x"),
    thing(fleet="t01234abcd"),
    thing(fleet="demo2"),
    thing(fleet="lab"),
    thing(project="demo"),
    thing(project="shop-workers", made_for="demo"),
    thing("volume", made_for="shop"),
    thing("network", "bridge"),
    thing("image", "debian:12"),
    thing("image", "shop-worker:1", made_for="demo"),
    thing("image", "shop-worker:1", test="x"),
    thing("image", "example.com/driftguard.local/base:1"),
    thing("container", "driftguard.local/x"),
]


@pytest.mark.parametrize("ours", OURS)
def test_what_demo_and_tests_made_is_ours(ours: Thing) -> None:
    assert Owner().has(ours)


@pytest.mark.parametrize("other", OTHERS)
def test_everything_else_is_not(other: Thing) -> None:
    assert not Owner().has(other)


def test_of_one_fleet_only_what_names_it() -> None:
    assert [found.labels for found in OURS if Owner("demo").has(found)] == [
        found.labels for found in OURS if "demo" in found.labels.values() or "demo-workers" in found.labels.values()]
    assert Owner("shop").has(thing(fleet="shop"))
    assert not Owner("shop").has(thing("image", "driftguard.local/base:1"))


def test_a_mark_that_comes_from_the_image_is_no_mark() -> None:
    image = {MADE_FOR: "demo", "a": "1"}
    assert own_labels({**image, FLEET: "shop"}, image, []) == {"a": "1", FLEET: "shop"}
    assert own_labels({MADE_FOR: "t01234abc"}, image, []) == {MADE_FOR: "t01234abc"}
    assert own_labels(image, image, [{MADE_FOR: "demo", "b": "2"}]) == {"a": "1", MADE_FOR: "demo"}


@pytest.mark.parametrize(("place", "ours"), [
    ("/opt/driftguard/demo", True), ("/opt/driftguard/t01234abc", True), ("/opt/driftguard/shop", False),
    ("/opt/driftguard", False), ("/opt/driftguard/", False), ("/opt/driftguard/demo/guard", False),
    ("/etc/driftguard/redis/demo-redis", True), ("/etc/driftguard/redis/shop-redis", False), ("/demo", False),
])
def test_places_on_the_host(place: str, ours: bool) -> None:
    assert Owner().has_place(Path(place)) is ours


def test_other_peoples_fleets_are_named() -> None:
    assert foreign_fleets([*OURS, *OTHERS]) == ["demo2", "lab", "shop", "t01234abcd"]


def test_of_what_the_engine_trusts_only_a_labs_registries_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, file in (("10.213.0.3:5000", "driftguard-lab"), ("registry.example.org", "ca.crt")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).touch()
    monkeypatch.setattr(clean, "LAB_MARKS", f"{tmp_path}/*/driftguard-lab")
    assert clean._trusted(Owner("")) == [tmp_path / "10.213.0.3:5000"]
    assert clean._trusted(Owner("demo")) == []
