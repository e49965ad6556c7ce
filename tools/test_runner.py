# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``make test``: all stages, also after a failing one, and one summary at the end."""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Sequence

from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError

from . import junit
from .paths import LOGS
from .processes import OUT_OF_TIME, STOPPING, end_of, run_visible, side_by_side, started, termination_as_interrupt
from .stages import GROUPS, STAGES, Stage, give_back, prepared
from .steps import TAIL_LINES, log_lines, report, require_known
from .summary import Outcome, failures, table

HEARTBEAT = 60.0
INTERRUPTED = 130


def run(stage: Stage) -> Outcome:
    """Run a stage to its end, its output into a log."""
    before = time.monotonic()
    log, results = LOGS / f"test-{stage.name}.log", LOGS / f"test-{stage.name}.xml"
    results.unlink(missing_ok=True)
    try:
        status = _follow(stage, log, results)
        cases = junit.read(results)
        if stage.counted or not any(case.outcome == "failed" for case in cases):
            cases += _exit_status(stage, status, log)
    except DriftguardError as error:
        cases = [junit.Case(stage.name, "failed", 0.0, str(error))]
    outcome = Outcome(stage.name, cases or [_nothing(stage)], time.monotonic() - before, log)
    counts = ", ".join(f"{outcome.count(kind)} {kind}" for kind in ("passed", "failed", "skipped"))
    print(f"{stage.name:<14}{counts}, {outcome.seconds:.1f} s", flush=True)
    return outcome


def _follow(stage: Stage, log: Path, results: Path) -> int:
    """Wait for a stage, saying now and then what it last said; its exit status."""
    command, environment = prepared(stage, results)
    deadline = time.monotonic() + stage.time_limit
    with log.open("wb") as stream, started(command, stream, environment) as process:
        print(f"{stage.name:<14}started", flush=True)
        while not STOPPING.is_set() and (left := deadline - time.monotonic()) > 0:
            status = end_of(process, min(HEARTBEAT, left))
            if status is not None:
                return status
            print(f"{stage.name:<14}{''.join(log_lines(log)[-1:])[:100]}", flush=True)
    return OUT_OF_TIME


def _exit_status(stage: Stage, status: int, log: Path) -> list[junit.Case]:
    """The exit status as a test: where the stage counts it, and where it failed although no test of it did."""
    if status == 0:
        return [junit.Case(stage.counted, "passed")] if stage.counted else []
    reason = f"stopped after {stage.time_limit:g} s" if status == OUT_OF_TIME else f"exit status {status}"
    return [junit.Case(stage.counted or "exit status", "failed", 0.0, "\n".join([*_telling(log), reason]))]


def _telling(log: Path) -> list[str]:
    """The lines that say why: from Ansible's first error on, as what follows it is cleaning up; else the last ones."""
    lines = log_lines(log)
    first = next((number for number, line in enumerate(lines) if "[ERROR]" in line), len(lines) - TAIL_LINES)
    return lines[max(first, 0):][:TAIL_LINES]


def _nothing(stage: Stage) -> junit.Case:
    return junit.Case(stage.name, "failed", 0.0, "no test ran")


def _lane(names: Sequence[str], ended: list[Outcome]) -> None:
    for name in names:
        if not STOPPING.is_set():
            ended.append(run(STAGES[name]))


def _run_groups(wanted: Sequence[str], ended: list[Outcome]) -> None:
    """Run the stages; what each came to is there as soon as it has ended, whatever ends the run."""
    for group in GROUPS:
        lanes = [[name for name in lane if name in wanted] for lane in group]
        side_by_side([partial(_lane, lane, ended) for lane in lanes if lane], len(lanes))


def main() -> int:
    """Run the stages named (all of ``make test`` without a name), print the summary; exit status 1 if a test failed."""
    wanted = sys.argv[1:] or [name for name, stage in STAGES.items() if not stage.on_request]
    LOGS.mkdir(parents=True, exist_ok=True)
    before = time.monotonic()
    ended: list[Outcome] = []
    try:
        require_known("stage", wanted, list(STAGES))
        with termination_as_interrupt():
            _run_groups(wanted, ended)
    except KeyboardInterrupt:
        # Whoever waited for it that long wants to know what had failed by then.
        print("\n".join(failures(_in_order(ended))), flush=True)
        print("\ninterrupted; every stage was stopped", file=sys.stderr)
        return INTERRUPTED
    except DriftguardError as error:
        report(error)
        return 1
    finally:
        _give_back()
    outcomes = _in_order(ended)
    print("\n".join([*failures(outcomes), "", *table(outcomes, time.monotonic() - before)]), flush=True)
    return 1 if any(outcome.count("failed") for outcome in outcomes) else 0


def _in_order(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return sorted(outcomes, key=lambda outcome: list(STAGES).index(outcome.name))


def _give_back() -> None:
    command = give_back() if os.geteuid() != 0 else None
    if command is not None:
        run_visible(command)


if __name__ == "__main__":
    sys.exit(main())
