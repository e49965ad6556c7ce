# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""Books entries: says that it starts, takes the time that the job asks for, and books it once."""

import sys
import time

from driftguard_worker import Job, Queue, Worker, handler

ENTRIES = Queue("entries", attempts=5, backoff=2.0)
STARTED = Queue("started")
BOOKED = Queue("booked")


@handler(ENTRIES)
def book(job: Job) -> None:
    told = {"entry": job.id, "release": job.release, "admittedAt": job.admitted_at}
    # Every start is kept: an entry that is worked on twice has one booking, and must not hide who else began it.
    job.add(STARTED, told)
    time.sleep(job.data["seconds"])
    job.add(BOOKED, told, job_id=f"booked-{job.id}")


if __name__ == "__main__":
    sys.exit(Worker().run())
