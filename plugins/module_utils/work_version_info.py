# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options and the work of worker_version_info."""

from __future__ import annotations

from .module_base import FLEET_SPEC, REDIS_SPEC, Work
from .redis_gateway import gateway_of
from .version_list import list_versions

ARGUMENTS = {
    **FLEET_SPEC,
    **REDIS_SPEC,
    "hosts": {"type": "list", "elements": "str"},
    "wait": {"type": "float", "default": 0.0},
    "strangers": {"type": "str", "choices": ["told", "refused"], "default": "told"},
    "singletons": {"type": "dict", "default": {}},
}
VERSION_INFO = Work(
    ARGUMENTS,
    lambda module: list_versions(
        module.params["fleet"], gateway_of(module), module.params["hosts"], module.params["wait"],
        module.params["strangers"] == "refused", module.params["singletons"]))
