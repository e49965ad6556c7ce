# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""worker_guard: what is wrong is put back, what is right isn't touched, and names lead nowhere else."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.guard_files import install_guards
from ansible_collections.driftguard.workers.plugins.module_utils.host_record import HostRecords
from support.modules import run_module

FILES = {"version_guard.py": "pass\n", "version_guard.sh": ":\n"}
NOBODY = {"generation": None, "run": "", "lock_wait": 0.0}


def install(
    root: Path, files: Any = None, check: bool = False, fleet: str = "demo", number: int | None = None, run: str = "me",
) -> list[str]:
    given = FILES if files is None else files
    options = {
        **NOBODY, "fleet": fleet, "root": str(root), "files": given, "digests": {}, "generation": number, "run": run}
    result = install_guards(options, check)
    assert result.changed == bool(result.values["installed"])
    return [Path(path).name for path in result.values["installed"]]


def test_check_says_what_the_run_does_and_touches_nothing(tmp_path: Path) -> None:
    foretold = install(tmp_path, check=True)
    assert list(tmp_path.iterdir()) == []
    assert install(tmp_path) == foretold == ["guard", *FILES]
    assert install(tmp_path) == []


def test_only_what_differs_is_written(tmp_path: Path) -> None:
    install(tmp_path)
    guard = tmp_path / "demo" / "guard"
    before = (guard / "version_guard.sh").stat().st_ino
    (guard / "version_guard.py").chmod(0o777)
    (guard / "guard.json").write_text("{}")
    assert install(tmp_path) == ["version_guard.py"]
    assert ((guard / "version_guard.sh").stat().st_ino, (guard / "guard.json").read_text()) == (before, "{}")


def test_a_link_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    install(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("keep")
    path = tmp_path / "demo" / "guard" / "version_guard.py"
    path.unlink()
    path.symlink_to(elsewhere)
    assert install(tmp_path) == ["version_guard.py"]
    assert (elsewhere.read_text(), path.is_symlink(), path.read_text()) == ("keep", False, "pass\n")


def look(root: Path, check: bool, **more: str) -> list[str]:
    digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in FILES.items()}
    options = {**NOBODY, "fleet": "demo", "root": str(root), "files": {}, "digests": {**digests, **more}}
    return [Path(path).name for path in install_guards(options, check).values["installed"]]


def test_by_their_digests_files_are_only_looked_at(tmp_path: Path) -> None:
    assert look(tmp_path, check=True) == ["guard", *FILES]
    with pytest.raises(DriftguardError, match="deploy again"):
        look(tmp_path, check=False)
    assert list(tmp_path.iterdir()) == []
    install(tmp_path)
    assert look(tmp_path, check=True) == look(tmp_path, check=False) == []
    path = tmp_path / "demo" / "guard" / "version_guard.sh"
    path.chmod(0o777)
    assert look(tmp_path, check=True) == ["version_guard.sh"]
    with pytest.raises(DriftguardError, match=r"version_guard\.sh"):
        look(tmp_path, check=False)
    path.chmod(0o755)
    path.write_text("exit 0\n")
    assert look(tmp_path, check=True) == ["version_guard.sh"]


@pytest.mark.parametrize(("name", "digest"), [("../x", "0" * 64), (".x", "0" * 64), ("x", "0" * 63), ("x", "Z" * 64)])
def test_what_is_no_digest_of_a_file_is_refused(tmp_path: Path, name: str, digest: str) -> None:
    with pytest.raises(DriftguardError, match="option digests"):
        look(tmp_path, check=True, **{name: digest})


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "/etc/x"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DriftguardError):
        install(tmp_path, {**FILES, name: "x"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["a link", "a file in its place", "a directory for a file"])
def test_a_place_that_is_something_else_is_said(tmp_path: Path, what: str) -> None:
    guard = tmp_path / "demo" / "guard"
    guard.parent.mkdir()
    if what == "a link":
        guard.symlink_to(tmp_path)
    elif what == "a file in its place":
        guard.write_text("")
    else:
        (guard / "version_guard.py").mkdir(parents=True)
    with pytest.raises(DriftguardError):
        install(tmp_path)


@pytest.mark.parametrize(("number", "run"), [(7, "me"), (8, "me")], ids=["a lower number", "the same of another run"])
def test_a_deploy_that_was_overtaken_changes_no_file(tmp_path: Path, number: int, run: str) -> None:
    install(tmp_path, number=7)
    HostRecords(tmp_path, "demo").enter(8, "later")
    guard = tmp_path / "demo" / "guard"
    (guard / "version_guard.py").write_text("later\n")
    before = sorted((path.name, path.read_text(), path.stat().st_ino) for path in guard.iterdir())
    with pytest.raises(DriftguardError, match="deploy"):
        install(tmp_path, number=number, run=run)
    assert sorted((path.name, path.read_text(), path.stat().st_ino) for path in guard.iterdir()) == before
    assert install(tmp_path, number=number, run=run, check=True) == ["version_guard.py"], "who only looks is no danger"
    assert install(tmp_path, number=8, run="later") == ["version_guard.py"]


def test_a_deploy_lets_no_earlier_one_in_and_waits_for_who_works_here(tmp_path: Path) -> None:
    here = HostRecords(tmp_path, "demo")
    with here.lock("another", 0), pytest.raises(DriftguardError, match="run another"):
        install(tmp_path, number=7)
    assert not (tmp_path / "demo" / "guard").exists()
    install(tmp_path, number=7)
    with pytest.raises(DriftguardError):
        here.enter(6)
    with here.lock("another", 0):
        (tmp_path / "demo" / "guard" / "version_guard.sh").unlink()
        assert install(tmp_path) == ["version_guard.sh"], "who is no deploy waits for nobody"


def test_what_a_killed_run_left_is_removed_by_a_deploy_alone(tmp_path: Path) -> None:
    """Nobody else knows that no other is writing it."""
    install(tmp_path)
    guard = tmp_path / "demo" / "guard"
    draft, other = guard / ".version_guard.py.abcdefgh", guard / ".guard.json.abcdefgh"
    for number, left in ((None, True), (7, False)):
        draft.write_text("pa")
        other.write_text("{")
        (guard / "version_guard.py").unlink()
        assert install(tmp_path, number=number) == ["version_guard.py"]
        assert (draft.exists(), other.exists()) == (left, True)


def test_the_module_says_what_it_did(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("not on this machine: files of root's take root")
    run = run_module("worker_guard", fleet="demo", root=str(tmp_path), files=FILES).must_pass()
    assert (run.changed, len(run["installed"])) == (True, 3)
    assert str(tmp_path / "demo" / "guard" / "version_guard.py") in run["diff"]["after"]
    run_module("worker_guard", fleet="No", root=str(tmp_path), files=FILES).must_fail("option fleet")
