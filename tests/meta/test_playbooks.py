# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every playbook of a fleet goes over its hosts in order, and refuses to go over none."""

from __future__ import annotations

from pathlib import Path

import pytest
from meta.rules import playbooks
from meta.rules.report import expect_none


def test_there_are_playbooks() -> None:
    assert len(playbooks.fleet_playbooks()) >= 8


@pytest.mark.parametrize("path", playbooks.fleet_playbooks(), ids=lambda path: path.name)
def test_a_playbook_of_a_fleet(path: Path) -> None:
    plays = playbooks.load(path)
    expect_none({path.name: [*playbooks.unordered(plays), *playbooks.unchecked(plays)]})


def test_what_is_missing_is_told() -> None:
    bare = [{"name": "Begin", "hosts": "workers"}]
    assert list(playbooks.unordered(bare)) == ["play Begin: no strategy: ansible.builtin.linear"]
    assert list(playbooks.unchecked(bare)) == ["begins with Begin, not with require_hosts.yml"]
