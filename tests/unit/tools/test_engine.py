# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a checkout takes over from the machine that it is on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import engine


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the checkout has its password, which it has none of yet; the machine has one."""
    machines = tmp_path / "password"
    machines.write_text("of-this-machine")
    place = tmp_path / "checkout" / "demo-redis-password"
    monkeypatch.setattr(engine, "MACHINES_PASSWORD", machines)
    monkeypatch.setattr(engine, "PASSWORD_FILE", place)
    monkeypatch.setattr(engine, "as_root", list)
    return place


def test_a_new_checkout_goes_on_with_the_password_of_the_demos_redis(own: Path) -> None:
    engine.take_over_password()
    assert (own.read_text(), own.stat().st_mode & 0o777) == ("of-this-machine\n", 0o600)
    assert own.parent.stat().st_mode & 0o777 == 0o700


def test_a_password_of_its_own_stays(own: Path) -> None:
    own.parent.mkdir()
    own.write_text("own\n")
    engine.take_over_password()
    assert own.read_text() == "own\n"


def test_a_machine_without_a_redis_leaves_it_to_the_playbook(own: Path) -> None:
    engine.MACHINES_PASSWORD.unlink()
    engine.take_over_password()
    assert not own.exists()
