# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Role guard: whatever became of the guards on a host, they are put back, and what is right isn't touched."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import Callable

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.host_record import HostRecords
from contract.guard_cases import CONTRACT
from support.fleet import PROJECT
from support.role_run import LOCAL, Ansible

SOURCE = PROJECT / "files" / "guard"
NAMES: tuple[str, ...] = tuple(CONTRACT["names"]["guardFiles"])


def edit(guards: Path) -> None:
    with (guards / NAMES[0]).open("a") as stream:
        stream.write("import os; os._exit(0)\n")


def loosen(guards: Path) -> None:
    (guards / "supervisor_fence.py").write_text("def decide(*_): return 'run', []\n")


def link(guards: Path) -> None:
    (guards / NAMES[1]).unlink()
    (guards / NAMES[1]).symlink_to("/bin/true")


CHANGES: dict[str, Callable[[Path], None]] = {
    "edited": edit,
    "edited supervisor": loosen,
    "removed supervisor": lambda guards: (guards / "version_supervisor.py").unlink(),
    "removed": lambda guards: (guards / NAMES[0]).unlink(),
    "writable by all": lambda guards: (guards / NAMES[1]).chmod(0o777),
    "owned by a worker": lambda guards: os.chown(guards / NAMES[0], 10001, 10001),
    "a link to what always agrees": link,
    "in a directory that a worker owns": lambda guards: os.chown(guards, 10001, 10001),
    "gone with their directory": shutil.rmtree,
}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ansible, Path]:
    """This machine with the guards of a fleet on it, and their directory."""
    place = tmp_path_factory.mktemp("guard")
    ansible = Ansible(place, {"here": LOCAL})
    guards = place / "root" / "tguard" / "guard"
    predicted = ansible.role("guard", "--check", worker_fleet="tguard", worker_root=str(place / "root")).must_pass()
    assert (predicted.changed > 0, guards.exists()) == (True, False)
    assert ansible.role("guard", worker_fleet="tguard", worker_root=str(place / "root")).must_pass().changed > 0
    right(guards)
    return ansible, guards


def right(guards: Path) -> None:
    """All are what this repository has, and root's alone."""
    for path in (guards, *(guards / name for name in NAMES)):
        facts = path.lstat()
        assert (facts.st_uid, facts.st_gid, stat.S_IMODE(facts.st_mode)) == (0, 0, 0o755), path
        assert not path.is_symlink()
    assert [(guards / name).read_bytes() for name in NAMES] == [(SOURCE / name).read_bytes() for name in NAMES]


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_wrong_is_put_back(here: tuple[Ansible, Path], change: str) -> None:
    ansible, guards = here
    CHANGES[change](guards)
    run = ansible.role("guard", worker_fleet="tguard", worker_root=str(guards.parents[1])).must_pass()
    assert run.changed > 0
    right(guards)


def test_what_is_right_is_left_alone(here: tuple[Ansible, Path]) -> None:
    ansible, guards = here
    (guards / "guard.json").write_text("{}")
    before = [marks(guards / name) for name in NAMES]
    assert ansible.role("guard", worker_fleet="tguard", worker_root=str(guards.parents[1])).must_pass().changed == 0
    assert [marks(guards / name) for name in NAMES] == before


def test_a_deploy_that_was_overtaken_puts_nothing_there(here: tuple[Ansible, Path]) -> None:
    ansible, guards = here
    variables = {"worker_fleet": "tguard", "worker_root": str(guards.parents[1]), "guard_run": "me"}
    HostRecords(guards.parents[1], "tguard").enter(8, "later")
    edit(guards)
    before = marks(guards / NAMES[0])
    ansible.role("guard", guard_generation=7, **variables).must_fail("number 8 was there")
    assert marks(guards / NAMES[0]) == before
    assert ansible.role("guard", guard_generation=9, **variables).must_pass().changed > 0
    right(guards)


def marks(path: Path) -> tuple[int, int]:
    """What a file that was written or replaced has other ones of."""
    facts = path.lstat()
    return facts.st_ino, facts.st_mtime_ns
