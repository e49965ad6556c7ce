# SPDX-License-Identifier: MIT
"""Adds a job: NAME [SECONDS]."""

import sys

from tasks import work

work.delay(sys.argv[1], float(sys.argv[2]))
