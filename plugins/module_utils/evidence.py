# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The evidence of a run: one JSON record of what was asked, done and proved."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from math import isfinite
from pathlib import Path
from typing import Any, Mapping

from .host_files import make_directory, write_atomic
from .module_base import Result
from .names import FLEET_PATTERN
from .run_history import entry_of
from .run_outcome import End, Policy, conclude, decide

SCHEMA = 1
# What is kept of each module's result; anything else it returns is left out.
_KEPT = {
    "compose": ("revision", "previous", "changed_secrets", "changed"),
    "rollout": ("revision", "previous", "release", "steps", "extras", "failures", "bake", "durations", "changed",
                "msg"),
    "rollback": ("revision", "previous", "release", "steps", "extras", "failures", "durations", "changed", "msg"),
    "fence": (
        "releases", "record", "generation", "confirmed", "unconfirmed", "gone", "users_removed", "changed", "msg"),
    "prune": ("revisions", "secrets", "images", "changed", "msg"),
    "proof": ("proved", "rows", "expected_sha", "expected_from", "msg"),
}
_RELEASE = ("fleet", "release_id", "sha", "created")
_VARIANT = ("variant", "image", "id", "digest", "repository", "tags", "size", "entrypoint", "cmd", "guard")
_OUTCOME = ("status", "stage", "moved", "message")


def decide_or_write(options: Mapping[str, Any], check_mode: bool) -> Result:
    """Decide, or conclude and write the record.

    :raises DriftguardError: the record can't be written.
    """
    if options["state"] == "decided":
        policy = Policy(options["on_failure"], options["unreachable"])
        return Result(False, decide(options["outcomes"], options["hosts"], check_mode, policy))
    end = conclude(
        options["outcomes"], options["hosts"],
        End(options["decision"], options["published"], options["settled_on"], options["parted"]), check_mode)
    record = evidence(options, end)
    path = ""
    if not check_mode:
        path = str(_write(Path(options["directory"]), options["fleet"], options["run"], record))
    return Result(
        False,
        {
            "result": end["result"],
            "run_failed": end["failed"],
            "entry": entry_of(record),
            "path": path,
            "summary": [f"{end['message']}.", *end["lines"], *([f"Evidence: {path}"] if path else [])],
        },
    )


def evidence(options: Mapping[str, Any], end: Mapping[str, Any]) -> dict[str, Any]:
    """The record as plain data; ``files/evidence.schema.json`` describes it."""
    return {
        "schema": SCHEMA,
        "fleet": options["fleet"],
        "run": {key: _plain(value) for key, value in sorted(options["run"].items())},
        "ended": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "result": end["result"],
        "message": end["message"],
        "decision": options["decision"],
        "published": options["published"],
        "release": _release(options["release"]) if options["release"].get("release_id") else None,
        "hosts": {
            host: _host(outcome or {}, options["details"].get(host))
            for host, outcome in sorted(options["outcomes"].items())
        },
        "left_out": sorted(set(options["hosts"]) - set(options["outcomes"])),
    }


def _release(release: Mapping[str, Any]) -> dict[str, Any]:
    variants = release.get("variants") or {}
    return {
        **{key: _plain(release.get(key)) for key in _RELEASE},
        "variants": {
            name: {key: _plain(image.get(key)) for key in _VARIANT}
            for name, image in sorted(variants.items())
            if isinstance(image, dict)
        },
    }


def _host(outcome: Mapping[str, Any], details: Any) -> dict[str, Any]:
    found: dict[str, Any] = {key: _plain(outcome.get(key)) for key in _OUTCOME}
    for part, keys in _KEPT.items():
        result = details.get(part) if isinstance(details, dict) else None
        found[part] = (
            {key: _plain(result[key]) for key in keys if key in result} if isinstance(result, dict) and result else None
        )
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(content) for key, content in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(element) for element in value]
    if isinstance(value, float):
        return value if isfinite(value) else str(value)  # JSON has no NaN
    return value if value is None or isinstance(value, (bool, int)) else str(value)


def _write(directory: Path, fleet: str, run: Mapping[str, Any], record: Mapping[str, Any]) -> Path:
    # A run that was refused for its fleet's name leaves a record too, and never outside its directory.
    folder = directory / (fleet if FLEET_PATTERN.match(fleet) else "unnamed")
    make_directory(folder, 0o700)
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    action = "".join(letter for letter in str(run.get("action") or "") if letter.isascii() and letter.isalpha())[:20]
    path = folder / f"{stamp}-{action or 'run'}-{os.getpid()}.json"
    write_atomic(path, json.dumps(record, indent=2, sort_keys=True, allow_nan=False) + "\n", 0o600)
    return path
