# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much of the longest tests is run: a few cases of each by default, all with DRIFTGUARD_LAB_POINTS.

DRIFTGUARD_LAB_POINTS is also at how many points of a rollout its playbook is ended, by each of two signals.
"""

from __future__ import annotations

import os
from typing import Sequence

__all__ = ["POINTS", "chosen"]

POINTS = int(os.environ.get("DRIFTGUARD_LAB_POINTS", "1"))


def chosen(names: Sequence[str], by_default: Sequence[str]) -> list[str]:
    """The cases to run, in their order.

    :param by_default: those that no other case stands for.
    """
    return [name for name in names if "DRIFTGUARD_LAB_POINTS" in os.environ or name in by_default]
