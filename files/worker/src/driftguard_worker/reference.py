# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""What the services of the reference fleet do with evidence; the steps themselves are left to applications."""

from __future__ import annotations

from typing import Any

from .drainer import CLASSIFICATION, EXTRACTION, FETCHED, OCR
from .jobs import Handler, Handlers, Job

__all__ = ["DRAINER", "handlers_of"]

DRAINER = "continuous-drainer"


def recognise(job: Job) -> dict[str, str]:
    """Pass evidence on as if its text had been recognised."""
    return {"fetched": job.add(FETCHED, job.data, job_id=job.id)}


def classify(job: Job) -> dict[str, str]:
    """Pass evidence on as if its kind had been told."""
    return {"extraction": job.add(EXTRACTION, job.data, job_id=job.id)}


def extract(job: Job) -> dict[str, Any]:
    """The end of the pipeline."""
    return {"extracted": job.data, "release": job.release}


_SERVICES = {
    "ocr": Handler(OCR, recognise),
    "classifier": Handler(CLASSIFICATION, classify),
    "extractor": Handler(EXTRACTION, extract),
}


def handlers_of(service: str) -> Handlers:
    """The handlers of a service of the reference fleet; none for those that have no queue, or the drainer's own."""
    found = Handlers()
    if service in _SERVICES:
        found.add(_SERVICES[service])
    return found
