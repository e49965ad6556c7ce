# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much of the longest tests is part of ``make test``: a few cases of each, which the others are like."""

from __future__ import annotations

import os
from typing import Any, Iterable, TypeVar

import pytest

__all__ = ["POINTS", "some"]

# At how many points of a rollout its playbook is ended, by each of two signals.
POINTS = int(os.environ.get("DRIFTGUARD_LAB_POINTS", "10"))

T = TypeVar("T")


def some(cases: Iterable[T], *short: T) -> list[Any]:
    """All cases, of which those that aren't named are marked as long."""
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=() if case in short else pytest.mark.long)
        for case in cases]
