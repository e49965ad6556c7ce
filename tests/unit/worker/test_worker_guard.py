# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guard is found, run and, where it has to be there, missed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from driftguard_worker import guard

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "files" / "worker" / "src"
HEAVY = ("asyncio", "logging", "pydantic", "pydantic_settings", "redis", "structlog", "starlette", "uvicorn")
Capture = pytest.CaptureFixture[str]


def mounted(directory: Path, text: str) -> Path:
    (directory / "version_guard.py").write_text(text, encoding="utf-8")
    return directory


def test_passing_guard_is_run(tmp_path: Path, capsys: Capture) -> None:
    guard.run({}, mounted(tmp_path, "def run_startup_guards(): print('checked')"))
    assert capsys.readouterr().out == "checked\n"


def test_refusing_guard_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        guard.run({}, mounted(tmp_path, "def run_startup_guards(): raise SystemExit(1)"))
    assert caught.value.code == 1


@pytest.mark.parametrize("text", ["def", "import no_such_module", "", "raise ValueError('no')", "\0"])
@pytest.mark.parametrize("environment", [{}, {"NODE_ENV": "production"}])
def test_guard_that_can_not_be_loaded_refuses_everywhere(
    tmp_path: Path, capsys: Capture, text: str, environment: dict[str, str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        guard.run(environment, mounted(tmp_path, text))
    assert caught.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("[version] FATAL: the guard at ")
    assert all(word in error for word in ("expected:", "found:", "remedy:"))


@pytest.mark.parametrize("name", ["NODE_ENV", "WORKER_ENV"])
def test_production_without_a_guard_is_refused(tmp_path: Path, capsys: Capture, name: str) -> None:
    with pytest.raises(SystemExit) as caught:
        guard.run({name: "production"}, tmp_path / "none")
    assert caught.value.code == 1
    assert "[version] FATAL: no guard at " in capsys.readouterr().err


def test_mounted_record_without_a_guard_is_refused_in_any_environment(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        guard.run({"NODE_ENV": "development"}, tmp_path)
    assert caught.value.code == 1


def test_development_without_a_guard_is_warned(tmp_path: Path, capsys: Capture) -> None:
    guard.run({"NODE_ENV": "development"}, tmp_path / "none")
    assert capsys.readouterr().out.startswith("[version] WARNING: no guard at ")


def test_the_collection_s_guard_can_be_loaded() -> None:
    check = guard._load(ROOT / "files" / "guard" / "version_guard.py")
    assert check is not None
    assert check.__name__ == "run_startup_guards"


def test_nothing_that_could_connect_is_loaded_before_the_guard() -> None:
    script = f"""
import sys
sys.path.insert(0, {str(SOURCE)!r})
from driftguard_worker import cli, guard
def check(environment):
    print(sorted(set({HEAVY!r}) & set(sys.modules)))
    raise SystemExit(1)
guard.run = check
cli.main()
"""
    found = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=False)
    assert (found.stdout, found.returncode) == ("[]\n", 1), found.stderr
