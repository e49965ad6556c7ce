# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options and the work of worker_image_pull."""

from __future__ import annotations

from .image_pull import pull_images
from .module_base import FLEET_SPEC, REGISTRY_SPEC, REGISTRY_TOGETHER, ROOT_SPEC, Work

ARGUMENTS = {
    **FLEET_SPEC,
    **ROOT_SPEC,
    **REGISTRY_SPEC,
    "host": {"type": "str", "required": True},
    "revision": {"type": "str", "default": "current"},
    "desired": {"type": "dict"},
    "fenced": {"type": "list", "elements": "str", "default": []},
    "timeout": {"type": "float", "default": 300.0},
}
IMAGE_PULL = Work(
    ARGUMENTS, lambda module: pull_images(module.params, module.check_mode), {"required_together": REGISTRY_TOGETHER})
