# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file that must not replace another: named last, synced first, gone when anything fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.host_files import check_new_file, new_file


def test_it_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new"
    with new_file(path, 0o600) as file:
        file.stream.write(b"one\n")
        assert not path.exists()
        (hidden,) = tmp_path.iterdir()
        assert hidden.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes() == b"one\n"
    assert (path.stat().st_mode & 0o777, list(tmp_path.iterdir())) == (0o600, [path])


def test_an_unwanted_one_and_a_failed_one_leave_nothing(tmp_path: Path) -> None:
    with new_file(tmp_path / "new", 0o600) as file:
        file.wanted = False
    with pytest.raises(KeyError), new_file(tmp_path / "new", 0o600):
        raise KeyError
    with pytest.raises(DriftguardError, match="No space"), new_file(tmp_path / "new", 0o600):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_meanwhile_keeps_its_file(tmp_path: Path) -> None:
    path = tmp_path / "new"
    with pytest.raises(DriftguardError, match="isn't there yet"), new_file(path, 0o600):
        path.write_text("another's")
    assert (path.read_text(), list(tmp_path.iterdir())) == ("another's", [path])


def test_it_is_synced_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new"
    seen: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda _handle: seen.append(path.exists()))
    with new_file(path, 0o600):
        pass
    assert seen == [False, True]


def test_what_can_be_told_before(tmp_path: Path) -> None:
    check_new_file(tmp_path / "new")
    (tmp_path / "there").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("there", "link", "missing/new", "there/new", "x" * 300):
        with pytest.raises(DriftguardError, match="nothing was changed"):
            check_new_file(tmp_path / name)
