# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``make lint``: every linter over the whole checkout, one line each; what a failing one says in full."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Optional

from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError

from . import junit, sanity
from .paths import LOGS, PYTHON, ROOT, VENV
from .processes import output_of, run_logged, side_by_side, termination_as_interrupt
from .steps import report, require_known

PLUGINS = ".collections/ansible_collections/driftguard/workers/plugins"
TYPED = (PLUGINS, "tools", "tests", "files/guard", "files/worker/src", "molecule")
TIME_LIMIT = 600.0


@dataclass(frozen=True)
class Check:
    """One linter: a name and its command."""

    name: str
    command: tuple[str, ...]


def checks() -> list[Check]:
    """All linters, the slow ones first so that the last to end is a short one."""
    return [
        Check("sanity", (str(PYTHON), "-m", sanity.__name__)),
        Check("ansible-lint", (_tool("ansible-lint"), "--nocolor")),
        Check("mypy", (_tool("mypy"), *(path for path in TYPED if _has_python(ROOT / path)))),
        Check("ruff", (_tool("ruff"), "check", "--no-fix", "--output-format", "concise", ".")),
        Check("antsibull-docs", (_tool("antsibull-docs"), "lint-collection-docs", "--plugin-docs", ".")),
        Check("antsibull-changelog", (_tool("antsibull-changelog"), "lint")),
        Check("shellcheck", ("shellcheck", *_shell_scripts())),
    ]


def _tool(name: str) -> str:
    return str(VENV / "bin" / name)


def _has_python(place: Path) -> bool:
    return any(place.rglob("*.py"))


def _shell_scripts() -> list[str]:
    """Tracked or new files whose first line names a shell."""
    listed = output_of(["git", "ls-files", "--cached", "--others", "--exclude-standard"]) or ""
    return [path for path in listed.splitlines() if _is_shell(ROOT / path)]


def _is_shell(path: Path) -> bool:
    if not path.is_file() or path.is_symlink():
        return False
    with path.open("rb") as stream:
        return stream.readline(80).rstrip() in (b"#!/bin/sh", b"#!/usr/bin/env bash", b"#!/bin/bash")


def run(check: Check) -> junit.Case:
    """Run one linter."""
    log = LOGS / f"lint-{check.name.replace(' ', '-')}.log"
    before = time.monotonic()
    with log.open("wb") as stream:
        status = run_logged(check.command, stream, timeout=TIME_LIMIT)
    seconds = time.monotonic() - before
    said = log.read_text(encoding="utf-8", errors="replace")
    return junit.Case(check.name, "failed" if status else "passed", seconds, said if status else "")


def main() -> int:
    """Run the linters (all, or those named) and say how each went.

    ``--junit FILE`` also writes a report.
    """
    arguments = sys.argv[1:]
    target: Optional[Path] = None
    if arguments[:1] == ["--junit"]:
        target, arguments = Path(arguments[1]), arguments[2:]
    LOGS.mkdir(parents=True, exist_ok=True)
    try:
        with termination_as_interrupt():
            cases = _run_all(_chosen(arguments))
    except DriftguardError as error:
        report(error)
        return 1
    if target is not None:
        junit.write(target, "lint", cases)
    return 1 if any(case.outcome == "failed" for case in cases) else 0


def _chosen(names: list[str]) -> list[Check]:
    known = checks()
    require_known("linter", names, [check.name for check in known])
    return [check for check in known if not names or check.name in names]


def _run_all(chosen: list[Check]) -> list[junit.Case]:
    return side_by_side([partial(_run_and_tell, check) for check in chosen], os.cpu_count() or 1)


def _run_and_tell(check: Check) -> junit.Case:
    case = run(check)
    print(f"{case.outcome:<8}{case.name:<24}{case.seconds:6.1f} s\n{case.message}", end="", flush=True)
    return case


if __name__ == "__main__":
    sys.exit(main())
