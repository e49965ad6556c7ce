# SPDX-License-Identifier: MIT
"""Works on the queue."""

from jobs import CONNECTION, QUEUE
from rq import Worker

if __name__ == "__main__":
    Worker([QUEUE], connection=CONNECTION).work()
