# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order in which a rollout replaces instances, in Compose's words."""

from __future__ import annotations

from typing import Any, Mapping

STOP_FIRST = "stop-first"
START_FIRST = "start-first"
ORDERS = (STOP_FIRST, START_FIRST)


def start_first_services(services: Mapping[str, Mapping[str, Any]]) -> frozenset[str]:
    """Names of the services of a revision whose new instances come before the old ones go."""
    return frozenset(name for name, service in services.items() if service.get("order") == START_FIRST)
