# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The compose files in tests/compose_files: which belong together, and what an audit has to say of which line."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from .modules import PROJECT

__all__ = ["CASES", "IN_CLEAR", "Case"]

PLACE = PROJECT / "tests" / "compose_files"
IN_CLEAR = "-hunter2"  # every secret in them ends so
_FINDS = re.compile(r"# finds: ([a-z -]+(?:\*\d+)?(?:[a-z -]+(?:\*\d+)?)*)$")


@dataclass(frozen=True)
class Case:
    """Compose files that are one project."""

    name: str
    files: tuple[str, ...]
    services: tuple[str, ...]
    runners: tuple[str, ...] = ()
    others: tuple[str, ...] = field(default=())

    @property
    def directory(self) -> Path:
        """Where they are."""
        return PLACE / self.name

    @property
    def paths(self) -> list[str]:
        """The named files."""
        return [str(self.directory / file) for file in self.files]

    def planted(self) -> Counter[tuple[str, int, str]]:
        """File, line and rule of every defect, from the comments in the files."""
        found: Counter[tuple[str, int, str]] = Counter()
        for file in (*self.files, *self.others):
            for number, line in enumerate((self.directory / file).read_text().splitlines(), 1):
                said = _FINDS.search(line)
                for word in said[1].split() if said and line.strip() != said[0] else ():
                    rule, _sign, times = word.partition("*")
                    found[(file, number, rule)] += int(times or 1)
        return found


CASES = {
    case.name: case for case in (
        Case("anchors", ("compose.yml",), ("cleaner", "extractor", "mailer")),
        Case("profiles", ("compose.yml",), ("base-worker", "debug", "nightly"), ("debug",)),
        Case("secrets", ("compose.yml",), ("invoices", "reports"), others=("worker.env",)),
        Case("several", ("compose.yml", "compose.override.yml"), ("baker", "grinder", "sifter"), ("baker",),
             ("common.yml", "jobs/compose.yml")),
        Case("swarm", ("stack.yml",), ("Beat_Scheduler", "api-worker")),
        Case("pipeline", ("docker-compose.workers.yml",), ("worker-ocr", "worker-orchestrator", "worker-scanner"),
             ("worker-orchestrator",)),
    )}
