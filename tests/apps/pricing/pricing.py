# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""Prices offers: one queue in, one queue out."""

import sys

from driftguard_worker import Job, Queue, Worker, handler

OFFERS = Queue("offers", attempts=5, backoff=2.0)
PRICED = Queue("priced")


@handler(OFFERS)
def price(job: Job) -> dict[str, float]:
    total = sum(line["quantity"] * line["price"] for line in job.data["lines"])
    priced = {"offer": job.id, "total": total, "release": job.release, "admittedAt": job.admitted_at}
    # An id of its own: an offer that is priced twice, since its worker was killed, has one price.
    job.add(PRICED, priced, job_id=f"priced-{job.id}")
    return {"total": total}


if __name__ == "__main__":
    sys.exit(Worker().run())
