# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a module of the collection as Ansible does: a process of its own, arguments in, one JSON document out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["PROJECT", "ModuleRun", "run_module"]

PROJECT = Path(__file__).resolve().parents[2]
PACKAGE = "ansible_collections.driftguard.workers.plugins.modules"
TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class ModuleRun:
    """What a module returned."""

    output: str
    result: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.result[name]

    @property
    def changed(self) -> bool:
        """Whether it says that it changed something."""
        return bool(self.result["changed"])

    def must_pass(self) -> ModuleRun:
        """The run itself, which must have succeeded without a warning."""
        assert not self.result.get("failed"), self.output
        assert not self.result.get("warnings"), self.output
        return self

    def must_fail(self, *said: str) -> ModuleRun:
        """The run itself, which must have failed, said why, and what to do."""
        assert self.result.get("failed"), self.output
        assert "Traceback" not in self.output
        assert {"subject", "expected", "found", "remedy"} <= set(self.result), self.output
        for text in said:
            assert text in self.result["msg"], f"{text!r} isn't in: {self.result['msg']}"
        return self


def run_module(module: str, check: bool = False, diff: bool = True, **arguments: Any) -> ModuleRun:
    """Run one module of the collection on this machine.

    :param module: its name, without the collection's.
    :param arguments: its options.
    """
    settings = {"_ansible_check_mode": check, "_ansible_diff": diff}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"ANSIBLE_MODULE_ARGS": {**arguments, **settings}}, file)
        file.flush()
        done = subprocess.run(
            [sys.executable, "-m", f"{PACKAGE}.{module}", file.name],
            env={
                "PYTHONPATH": str(PROJECT / ".collections"),
                "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
                "LC_ALL": "C.UTF-8",
                **{name: value for name, value in os.environ.items() if name == "DOCKER_HOST"},
            },
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    output = done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(lines) == 1, output
    return ModuleRun(output, json.loads(lines[0]))
