# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A release of two variants for tests, as worker_image returns it."""

from __future__ import annotations

import copy
from typing import Any

from ansible_collections.driftguard.workers.plugins.module_utils.release_info import Release, VariantImage

from .containers import IMAGE_ID, RELEASE_ID, SHA

__all__ = ["DIGEST", "release_data", "release_of", "variant_image"]

DIGEST = "sha256:" + "d" * 64


def release_data(fleet: str = "demo") -> dict[str, Any]:
    """The release as plain data: base by its id, ocr by the digest that a registry gave it."""
    base: dict[str, Any] = {
        "variant": "base", "image": IMAGE_ID, "id": IMAGE_ID, "digest": None, "repository": f"{fleet}-worker",
        "tags": [f"{fleet}-worker:{SHA}", f"{fleet}-worker:{SHA[:7]}"], "size": 144_000_000, "entrypoint": [],
        "cmd": ["python", "-m", "worker"], "working_dir": "/work", "uid": 10001, "gid": 10001, "guard": "python",
        "guard_program": "/usr/bin/python3", "volumes": [], "healthcheck": False}
    ocr = {
        **copy.deepcopy(base), "variant": "ocr", "repository": f"registry:5000/{fleet}-worker-ocr", "digest": DIGEST,
        "image": f"registry:5000/{fleet}-worker-ocr@{DIGEST}", "tags": [], "uid": 0, "gid": 0, "guard": "sh",
        "guard_program": "/bin/sh", "healthcheck": True, "entrypoint": ["/usr/bin/tini", "--"]}
    return {
        "fleet": fleet, "release_id": RELEASE_ID, "sha": SHA, "created": "2026-01-02T03:04:05Z",
        "variants": {"base": base, "ocr": ocr}}


def release_of(fleet: str = "demo") -> Release:
    """The release."""
    return Release.from_dict(release_data(fleet))


def variant_image(variant: str = "base", **changes: Any) -> VariantImage:
    """One of its images.

    :param changes: fields to replace.
    """
    return VariantImage(**{**release_data()["variants"][variant], **changes})
