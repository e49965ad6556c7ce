# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a rule that is broken is told: every place, one line each, nothing cut."""

from __future__ import annotations

from typing import Iterable, Mapping

import pytest


def expect_none(found: Mapping[str, Iterable[str]]) -> None:
    """Fail with all places that break a rule, when there are any.

    :param found: where (a path, a role, a module) to what is wrong there.
    """
    lines = [f"{where}: {what}" for where, wrong in found.items() for what in wrong]
    if lines:
        pytest.fail("\n".join(lines), pytrace=False)
