# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The counts of jobs that the worker gives are those by which a canary is judged."""

from __future__ import annotations

import inspect
import re
from typing import Any

from ansible_collections.driftguard.workers.plugins.module_utils.job_counts import Counts, read_counts
from contract.guard_cases import CONTRACT
from prometheus_client import generate_latest

from driftguard_worker import consumer
from driftguard_worker.identity import Identity
from driftguard_worker.metrics import Metrics

METRICS: dict[str, Any] = CONTRACT["names"]["metrics"]
IDENTITY = Identity(
    fleet="demo", service="ocr", instance="ab12ab12ab12", container_id="ab12" * 16, host="host1", pid=7,
    git_sha="a" * 40, build_date="2026-01-02T03:04:05Z", release_id="0123456789ab.89abcdef0123")


def shown(**outcomes: int) -> str:
    """The metrics of a worker whose jobs in two queues, one with an odd name, ended so."""
    metrics = Metrics(IDENTITY, lambda: 0.0)
    for outcome, count in outcomes.items():
        for queue in ("files", 'odd",outcome="failed"\n'):
            metrics.jobs.labels(queue, outcome.replace("_", " ")).inc(count)
    return generate_latest(metrics.registry).decode()


def test_what_the_worker_counts_is_read() -> None:
    assert read_counts(shown(completed=3, failed=2, dead=1, handed_back=9, lost=9)) == Counts(6, 6)
    assert read_counts(shown()) == Counts(), "no job yet is no job, and not a worker without metrics"


def test_the_worker_counts_every_outcome_of_the_contract() -> None:
    counted = set(re.findall(r'"([a-z ]+)"', " ".join(re.findall(r"_count\((.+)\)", inspect.getsource(consumer)))))
    assert {*METRICS["outcomes"]["done"], *METRICS["outcomes"]["failed"]} <= counted
    assert (METRICS["jobs"], METRICS["labels"]) == ("driftguard_worker_jobs_total", ["queue", "outcome"])
