# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""worker_steps as Ansible runs it: what each module does by itself, and no secret of any of them in what is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.modules import run_module
from support.releases import release

A = release("a")
SECRET = "s3cret-of-redis"


def record_step(root: Path, name: str, state: str, generation: int = 1) -> dict[str, Any]:
    """A step that changes a host's record."""
    options = {
        "fleet": "demo", "root": str(root), "scope": "host", "state": state, "target": A.as_result(),
        "generation": generation}
    return {"name": name, "module": "worker_release", "options": options}


def proof_step(**options: Any) -> dict[str, Any]:
    """A step that can't reach its Redis."""
    told = {
        "fleet": "demo", "host": "here", "services": {"alpha": None}, "redis_url": "redis://127.0.0.1:1/0",
        "redis_password": SECRET, **options}
    return {"name": "proof", "module": "worker_version_assert", "options": told}


def recorded(root: Path) -> dict[str, Any]:
    """The host's record."""
    return dict(json.loads((root / "demo" / "guard" / "guard.json").read_text()))


def test_they_do_what_each_does_by_itself(tmp_path: Path) -> None:
    steps = [record_step(tmp_path, "rolling", "rolling"), record_step(tmp_path, "settled", "settled")]
    run = run_module("worker_steps", steps=steps).must_pass()
    assert (run.changed, recorded(tmp_path)["phase"]) == (True, "settled")
    alone = run_module("worker_release", **steps[1]["options"]).must_pass()
    told = run["by_step"]["settled"]
    assert (told["record"], told["changed"], alone.changed) == (alone["record"], True, False)
    assert not run_module("worker_steps", steps=steps[1:]).must_pass().changed


def test_check_mode_changes_nothing_and_shows_what_it_would(tmp_path: Path) -> None:
    run = run_module("worker_steps", check=True, steps=[record_step(tmp_path, "rolling", "rolling")]).must_pass()
    assert (run.changed, list(tmp_path.iterdir())) == (True, [])
    assert A.sha in run["diff"][0]["after"]


def test_the_failure_is_the_steps_own_and_those_after_it_do_not_run(tmp_path: Path) -> None:
    proof = proof_step(root=str(tmp_path))
    steps = [record_step(tmp_path, "rolling", "rolling"), proof, record_step(tmp_path, "settled", "settled")]
    run = run_module("worker_steps", steps=steps)
    alone = run_module("worker_version_assert", **proof["options"]).must_fail()
    told = run.must_fail()
    assert {name: told[name] for name in ("msg", "expected", "found", "remedy")} == {
        name: alone[name] for name in ("msg", "expected", "found", "remedy")}
    assert (told["failed_step"], told["changed"], list(told["by_step"])) == ("proof", True, ["rolling", "proof"])
    assert recorded(tmp_path)["phase"] == "rolling"


@pytest.mark.parametrize("spoilt", [{"timeout": "soon"}, {"nobody": 1}, {"host": None}])
def test_bad_options_cost_nothing_and_show_no_secret(tmp_path: Path, spoilt: dict[str, Any]) -> None:
    steps = [record_step(tmp_path, "rolling", "rolling"), proof_step(**spoilt)]
    run = run_module("worker_steps", steps=steps)
    assert "step proof, options" in run.must_fail()["msg"]
    assert list(tmp_path.iterdir()) == []
    assert SECRET not in run.output


def test_no_secret_in_what_is_said_of_the_invocation(tmp_path: Path) -> None:
    run = run_module("worker_steps", steps=[proof_step(root=str(tmp_path))])
    assert run.must_fail()["invocation"]["module_args"]["steps"][0]["options"]["fleet"] == "demo"
    assert SECRET not in run.output
