# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options and the work of worker_version_assert."""

from __future__ import annotations

from .engine import Engine
from .module_base import FLEET_SPEC, REDIS_SPEC, ROOT_SPEC, SPEC_SPEC, Work, safe_point_of
from .redis_gateway import gateway_of
from .version_check import check_versions

ARGUMENTS = {
    **FLEET_SPEC,
    **ROOT_SPEC,
    **SPEC_SPEC,
    "services": {"type": "dict"},
    **REDIS_SPEC,
    "host": {"type": "str", "required": True},
    "hosts": {"type": "list", "elements": "str"},
    "expected_sha": {"type": "str"},
    "revision": {"type": "str", "default": "current"},
    "check_record": {"type": "bool", "default": True},
    "timeout": {"type": "float", "default": 20.0},
}
VERSION_ASSERT = Work(
    ARGUMENTS,
    lambda module: check_versions(module.params, Engine.connect(), gateway_of(module), safe_point_of(module)))
