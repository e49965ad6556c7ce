# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures for all tests."""

from __future__ import annotations

import signal

from hypothesis import settings
from support.bridge import redis_on_bridge
from support.fleet import base_reference, fleet, fleet_redis, module_fleet, whole
from support.launched import launch
from support.redis_server import redis_server
from support.reference_image import reference_image

__all__ = [
    "base_reference", "fleet", "fleet_redis", "launch", "module_fleet", "redis_on_bridge", "redis_server",
    "reference_image", "whole",
]

# How long an example takes says how busy the machine is, and nothing of the code.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

# A shell that starts the tests in the background has them ignore these, and every process that they start with them.
for number in (signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
