# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python launched_worker.py DIRECTORY``: a worker that finds its image file and its host's record in a directory.

In a container they are in fixed places, so that no environment can point elsewhere. Everything else is as there.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import time
from pathlib import Path


def set_places(place: Path) -> None:
    """Load the module that names them before any other has read it."""
    package = importlib.util.find_spec("driftguard_worker")
    assert package is not None
    assert package.submodule_search_locations is not None
    file = Path(package.submodule_search_locations[0]) / "names.py"
    spec = importlib.util.spec_from_file_location("driftguard_worker.names", file)
    assert spec is not None
    assert spec.loader is not None
    names = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(names)
    names.IMAGE_FILE = str(place / "image.json")  # type: ignore[attr-defined]
    names.GUARD_DIRECTORY = str(place / "guard")  # type: ignore[attr-defined]


set_places(Path(sys.argv[1]))

from driftguard_worker import Job, Queue, Unrecoverable, Worker, handler  # noqa: E402 - after the places are set

WORK = Queue("work", attempts=2, backoff=0.1)


@handler(WORK)
def work(job: Job) -> object:
    """Do what the job says."""
    time.sleep(job.data.get("seconds", 0))
    return {"did": job.data, "attempt": job.attempt}


@handler(WORK, name="hopeless")
def hopeless(_job: Job) -> None:
    """Never worth a second attempt."""
    raise Unrecoverable("it can't be done")


@handler(WORK, name="coroutine")
async def coroutine(job: Job) -> object:
    """Wait without a thread."""
    await asyncio.sleep(job.data.get("seconds", 0))
    return "awaited"


@handler(WORK, name="process", process=True)
def process(job: Job) -> object:
    """Hold the interpreter of another process."""
    return sum(range(job.data["number"]))


if __name__ == "__main__":
    sys.exit(Worker().run())
