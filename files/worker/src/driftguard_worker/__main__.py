# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""``python -m driftguard_worker``: one worker, until it is told to stop."""

from __future__ import annotations

import sys

from .cli import main

sys.exit(main())
