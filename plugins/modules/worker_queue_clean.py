#!/usr/bin/python
# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removes jobs from a BullMQ queue, after writing them to a file."""

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_queue_clean
short_description: Removes jobs from a BullMQ queue, after writing them to a file
version_added: 0.1.0
description:
  - Chooses jobs of one state by age, name, id, a list of ids, or evidence that no longer exists. All criteria that are
    given must hold. A job that can't be judged (its hash is missing, or has no time or no such field) is kept and
    counted.
  - Without O(confirm) it only says what would go, like check mode. With it, the jobs are first written to O(dest), with
    everything that puts them back, and only once that file is on disk they are removed.
  - A job goes only if it still is, in the step that removes it, exactly as it is in the file. A job that a worker took,
    that was retried or updated meanwhile stays, and is counted.
  - Active jobs, jobs with a lock, children whose parent isn't finished, parents whose children aren't, and the next job
    of a scheduler are never removed.
extends_documentation_fragment:
  - driftguard.workers.attributes
  - driftguard.workers.fleet
  - driftguard.workers.queues
  - driftguard.workers.redis
options:
  queue:
    description:
      - Name of the queue. Nothing in it is a pattern.
    type: str
    required: true
  state:
    description:
      - Which jobs. V(waiting) are those of a paused queue too.
      - V(dead) are the dead letters, which wait, are delayed or have a priority in the queue C(<queue>-dead).
    type: str
    required: true
    choices: [waiting, delayed, prioritized, completed, failed, dead]
  older_than:
    description:
      - Least age, such as V(90s), V(15m), V(36h), V(7d) or V(2w); V(0s) for any.
      - Completed and failed jobs are as old as their end, all others as old as when they were added, whatever their
        delay. Redis's clock counts.
    type: str
  job_name:
    description:
      - Pattern with C(*), C(?) and C([…]) for the jobs' names.
    type: str
  job_id:
    description:
      - Pattern for the jobs' ids.
    type: str
  job_ids:
    description:
      - The jobs' ids. An empty list is refused.
    type: list
    elements: raw
  job_ids_file:
    description:
      - File with the jobs' ids on the host that the module runs on, one on each line, or a JSON list. An empty one is
        refused.
    type: path
  evidence:
    description:
      - Jobs whose evidence no longer exists, judged by a list of the evidence that does. A job without such a field is
        kept.
    type: dict
    suboptions:
      field:
        description:
          - Where a job names its evidence, C(data) and the keys below it, such as V(data.evidenceId). There must be a
            text or a whole number.
          - A dead letter carries the data of the job that died as C(data.data).
        type: str
        required: true
      existing:
        description:
          - Ids of all evidence that exists. An empty list is refused, and one with anything but texts and whole
            numbers.
        type: list
        elements: raw
      existing_file:
        description:
          - File with these ids, one on each line, or a JSON list.
        type: path
      all_gone:
        description:
          - Whether the evidence of every job may be gone. Otherwise a list that not one job's evidence is in is
            refused, since it may be a list of something else.
        type: bool
        default: false
  limit:
    description:
      - At most so many jobs, the oldest first.
    type: int
    default: 10000
  confirm:
    description:
      - Really remove them.
    type: bool
    default: false
  dest:
    description:
      - File for the removed jobs, on the host that the module runs on, in a directory that is there. Required with
        O(confirm=true). A file that is there is never overwritten.
      - One JSON object on each line; mode 0600, since a job's data may be anybody's. C(docs/queues.md) has the format,
        and how to put jobs back.
    type: path
notes:
  - The server must be Redis 6.0.6 or later.
  - The Redis user needs the keys C(~<prefix>:*) and C(+@read +@write +@scripting +time +ping).
requirements:
  - redis (Python library)
seealso:
  - module: driftguard.workers.worker_queue_info
author:
  - driftguard.workers contributors (@driftguard)
"""

EXAMPLES = r"""
- name: What would go?
  driftguard.workers.worker_queue_clean:
    fleet: demo
    queue: mail
    state: failed
    older_than: 7d
    redis_url: redis://127.0.0.1:6379/0
    redis_password: "{{ vault_redis_password }}"
  register: would_go

- name: Remove failed jobs that are older than a week
  driftguard.workers.worker_queue_clean:
    fleet: demo
    queue: mail
    state: failed
    older_than: 7d
    confirm: true
    dest: "/var/backups/demo-mail-failed-{{ now(utc=true).strftime('%Y%m%dT%H%M%SZ') }}.jsonl"
    redis_url: redis://127.0.0.1:6379/0
    redis_password: "{{ vault_redis_password }}"

- name: Remove waiting jobs whose evidence was deleted
  driftguard.workers.worker_queue_clean:
    fleet: demo
    queue: ocr
    state: waiting
    evidence:
      field: data.evidenceId
      existing_file: /var/tmp/evidence-ids.txt
    confirm: true
    dest: "/var/backups/demo-ocr-{{ now(utc=true).strftime('%Y%m%dT%H%M%SZ') }}.jsonl"
    redis_url: redis://127.0.0.1:6379/0
    redis_password: "{{ vault_redis_password }}"
"""

RETURN = r"""
msg:
  description: What was done, or would be.
  returned: success
  type: str
queue:
  description: The queue that was looked at; with O(state=dead) that of the dead letters.
  returned: success
  type: str
state:
  description: The jobs' state, as asked for.
  returned: success
  type: str
total:
  description: Jobs of that state before.
  returned: success
  type: int
jobs:
  description: Jobs that were removed, or would be.
  returned: success
  type: int
removed:
  description: Jobs that were removed.
  returned: always, once Redis was asked
  type: int
sample:
  description: The first 20 of them.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: The job's id.
      type: str
    name:
      description: Its name.
      type: str
    state:
      description: BullMQ's list or set that it is in.
      type: str
    since:
      description: When it was completed, failed, or else added; null when that isn't known.
      type: str
kept:
  description:
    - Jobs that were chosen and stay, by reason.
    - C(moved), it is no longer in this state; C(changed), it isn't what is in the file; C(active) or C(locked), a
      worker has it; C(child), its parent isn't finished; C(parent), its children aren't; C(scheduled), it is the next
      job of a scheduler; C(successor), a job with its deduplication id waits for its end; C(foreign), its keys are not
      only a job's.
  returned: always, once Redis was asked
  type: dict
  sample: {active: 3}
unjudged:
  description: Jobs that a criterion can't be applied to. They stay.
  returned: success
  type: int
beyond_limit:
  description: Jobs that are meant too, and beyond O(limit).
  returned: success
  type: int
file:
  description: The file that has the removed jobs, null when none was written.
  returned: always, once Redis was asked
  type: str
"""

from ansible_collections.driftguard.workers.plugins.module_utils.module_base import (
    FLEET_SPEC,
    QUEUES_SPEC,
    REDIS_SPEC,
    run_module,
)
from ansible_collections.driftguard.workers.plugins.module_utils.queue_clean import run_queue_clean
from ansible_collections.driftguard.workers.plugins.module_utils.queues import PLACES

EVIDENCE = {
    "field": {"type": "str", "required": True},
    "existing": {"type": "list", "elements": "raw"},
    "existing_file": {"type": "path"},
    "all_gone": {"type": "bool", "default": False},
}
ARGUMENTS = {
    **FLEET_SPEC,
    **QUEUES_SPEC,
    **REDIS_SPEC,
    "queue": {"type": "str", "required": True},
    "state": {"type": "str", "required": True, "choices": list(PLACES)},
    "older_than": {"type": "str"},
    "job_name": {"type": "str"},
    "job_id": {"type": "str"},
    "job_ids": {"type": "list", "elements": "raw"},
    "job_ids_file": {"type": "path"},
    "evidence": {
        "type": "dict", "options": EVIDENCE, "required_one_of": [("existing", "existing_file")],
        "mutually_exclusive": [("existing", "existing_file")],
    },
    "limit": {"type": "int", "default": 10000},
    "confirm": {"type": "bool", "default": False},
    "dest": {"type": "path"},
}


def main() -> None:
    """Entry point of the module."""
    criteria = ("older_than", "job_name", "job_id", "job_ids", "job_ids_file", "evidence")
    run_module(
        ARGUMENTS, run_queue_clean, required_if=[("confirm", True, ("dest",))], required_one_of=[criteria],
        mutually_exclusive=[("job_ids", "job_ids_file")])


if __name__ == "__main__":
    main()
