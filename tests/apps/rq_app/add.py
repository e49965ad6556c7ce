# SPDX-License-Identifier: MIT
"""Adds a job: NAME [SECONDS]."""

import sys

from jobs import QUEUE, work

QUEUE.enqueue(work, sys.argv[1], float(sys.argv[2]))
