# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One lab for all of these tests, with three hosts; a fleet is a test's own."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Iterator

import pytest

from lab.fleet import LabFleet
from lab.life import bring_down, bring_up
from lab.state import Lab


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The lab, of this run's own; tests leave no fault in it."""
    name = f"tests{secrets.token_hex(2)}"
    try:
        yield bring_up(name, 3)
    finally:
        bring_down(name)


@pytest.fixture
def lab_fleet(lab: Lab, tmp_path: Path) -> Iterator[LabFleet]:
    """A fleet on its three hosts, not deployed yet."""
    fleet = LabFleet(lab, tmp_path / "fleet")
    try:
        yield fleet
    finally:
        fleet.close()


@pytest.fixture(scope="module")
def life(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabFleet]:
    """A fleet for all tests of a file, which are the chapters of its life."""
    fleet = LabFleet(lab, tmp_path_factory.mktemp("life") / "fleet")
    try:
        yield fleet
    finally:
        fleet.close()
