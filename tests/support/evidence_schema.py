# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Holds a record of evidence to files/evidence.schema.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

__all__ = ["SCHEMA", "checked"]

SCHEMA: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[2] / "files" / "evidence.schema.json").read_text())


def checked(record: dict[str, Any]) -> dict[str, Any]:
    """The record itself, which must be as the schema says."""
    problems = [f"{error.json_path}: {error.message}" for error in Draft202012Validator(SCHEMA).iter_errors(record)]
    assert not problems, "\n".join(problems)
    return record
