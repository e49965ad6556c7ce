# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""Worker runtime of driftguard.workers: refuses to start stale, and stops working when it has become so.

A worker of one's own declares handlers and runs them; docs/worker.md has the whole example.
"""

from .jobs import Job, Queue, RateLimit, Unrecoverable, handler
from .worker import Worker

__all__ = ["Job", "Queue", "RateLimit", "Unrecoverable", "Worker", "__version__", "handler"]

__version__ = "0.1.0"
