# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The queue modules against BullMQ for Node: both count alike, and what is cleaned is clean for it too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from integration.test_queue_clean import Clean, saved
from integration.test_queue_modules import Info
from support.node_bull import NodeBull
from support.redis_server import RedisServer

ADD = """
const queue = new Queue('mail', options);
for (let i = 0; i < 6; i++) await queue.add(i % 2 ? 'odd' : 'even', { evidenceId: `e${i}` });
await queue.add('later', {}, { delay: 3600000 });
await queue.add('soon', {}, { priority: 4 });
await queue.add('once', {}, { deduplication: { id: 'one', ttl: 3600000 } });
await queue.upsertJobScheduler('tick', { every: 3600000, offset: 1800000 }, { name: 'tick' });
await new FlowProducer(options).add({ name: 'p', queueName: 'books', children: [{ name: 'c', queueName: 'pages' }] });
return queue.getJobCounts();
"""
WORK = """
const seen = [];
const queue = new Queue('mail', options);
const worker = new Worker('mail', async (job) => { seen.push(job.name); }, options);
while ((await queue.getWaitingCount()) + (await queue.getActiveCount()) + (await queue.getPrioritizedCount()) > 0)
  await new Promise((resolve) => setTimeout(resolve, 20));
const workers = await queue.getWorkersCount();
await worker.close();
return { seen, workers, counts: await queue.getJobCounts() };
"""


@pytest.fixture
def node(server: RedisServer) -> NodeBull:
    return NodeBull(server)


def test_node_and_the_modules_agree(server: RedisServer, node: NodeBull, raw: Any, tmp_path: Path) -> None:
    info, clean = Info(server), Clean(server, tmp_path)
    theirs = node.run(ADD)
    ours = info.rows()["mail"]
    for name in ("waiting", "active", "delayed", "prioritized", "completed", "failed", "paused"):
        assert ours[name] == theirs[name], name
    assert info.rows()["books"]["waiting_children"] == 1

    run = clean.remove("mail", "waiting", job_name="odd").must_pass()
    assert [dict(job["hash"])["name"] for job in saved(run)] == ["odd"] * 3
    once = clean.remove("mail", "waiting", job_name="once").must_pass()
    assert (once["removed"], saved(once)[0]["deduplication_ttl_ms"] > 3_000_000) == (1, True)
    assert not raw.exists("demo:mail:de:one")
    delayed = clean.remove("mail", "delayed", older_than="0s").must_pass()
    assert (delayed["removed"], delayed["kept"]) == (1, {"scheduled": 1})
    assert clean.remove("pages", "waiting", older_than="0s")["kept"] == {"child": 1}

    done = node.run(WORK)
    assert sorted(done["seen"]) == ["even"] * 3 + ["soon"]
    assert done["workers"] == 1
    ours = info.rows()["mail"]
    assert {name: ours[name] for name in ("waiting", "delayed", "completed")} == {
        name: done["counts"][name] for name in ("waiting", "delayed", "completed")}
