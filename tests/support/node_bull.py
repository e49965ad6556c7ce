# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""BullMQ for Node, as npm installs it: what it adds and what it says of a queue."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from support.modules import PROJECT
from support.redis_server import RedisServer

__all__ = ["NodeBull"]

VERSION = "5.81.5"
PLACE = PROJECT / ".cache" / "node-bullmq"
INSTALL_SECONDS = 300
RUN_SECONDS = 60

PROGRAM = """
const { Queue, Worker, FlowProducer } = require('bullmq');
const { connection, prefix, body } = JSON.parse(process.argv[1]);
const options = { connection: { ...connection, maxRetriesPerRequest: null }, prefix };
const run = Object.getPrototypeOf(async function () {}).constructor;
new run('Queue', 'Worker', 'FlowProducer', 'options', body)(Queue, Worker, FlowProducer, options)
  .then((answer) => { console.log(JSON.stringify(answer ?? null)); process.exit(0); })
  .catch((error) => { console.error(error); process.exit(1); });
"""


class NodeBull:
    """BullMQ for Node on one Redis."""

    def __init__(self, server: RedisServer, prefix: str = "demo") -> None:
        self._connection = {"host": server.host, "port": server.port, "password": server.password}
        self._prefix = prefix
        _install()

    def run(self, body: str) -> Any:
        """Run the body of an async function with ``Queue``, ``Worker``, ``FlowProducer`` and ``options``.

        :returns: what it returns.
        """
        asked = {"connection": self._connection, "prefix": self._prefix, "body": body}
        done = subprocess.run(
            ["node", "-e", PROGRAM, json.dumps(asked)], cwd=PLACE, capture_output=True, text=True, timeout=RUN_SECONDS,
            check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])


def _install() -> None:
    """Install it once for all tests; those that run beside this one wait."""
    PLACE.mkdir(parents=True, exist_ok=True)
    with (PLACE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (PLACE / "node_modules" / "bullmq").is_dir():
            return
        (PLACE / "package.json").write_text("{}")
        subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", f"bullmq@{VERSION}"], cwd=PLACE,
            check=True, timeout=INSTALL_SECONDS, capture_output=True, env={**os.environ, "HOME": str(Path.home())})
