# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab: several hosts as containers on this machine, a registry and a Redis, and the faults that can befall them."""

from __future__ import annotations

import sys
from pathlib import Path

# The tests' own support and the collection's error under their real names, also when this runs as a program.
for _place in (Path(__file__).resolve().parents[1], Path(__file__).resolve().parents[2] / ".collections"):
    if str(_place) not in sys.path:
        sys.path.append(str(_place))
