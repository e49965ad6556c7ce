# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SARIF 2.1.0 as far as an audit uses it, stricter than the standard: nothing that isn't named here may be there."""

from __future__ import annotations

from typing import Any

import jsonschema

__all__ = ["checked_sarif"]

LEVEL = {"enum": ["none", "note", "warning", "error"]}
MESSAGE = {"type": "string", "minLength": 1}


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "additionalProperties": False, "properties": properties}


TEXT = _object(["text"], text=MESSAGE)
RULE = _object(
    ["id", "shortDescription", "help", "defaultConfiguration"], id={"type": "string", "pattern": "^[a-z][a-z-]+$"},
    shortDescription=TEXT, help=TEXT, defaultConfiguration=_object(["level"], level=LEVEL))
LOCATION = _object(
    ["logicalLocations"],
    physicalLocation=_object(
        ["artifactLocation"],
        artifactLocation=_object(
            ["uri"], uri={"type": "string", "pattern": r"^(file:///)?[A-Za-z0-9._~%-][A-Za-z0-9._~%/-]*$"}),
        region=_object(["startLine"], startLine={"type": "integer", "minimum": 1})),
    logicalLocations={"type": "array", "minItems": 1, "items": _object(
        ["name", "kind", "fullyQualifiedName"], name=MESSAGE, kind={"const": "resource"},
        fullyQualifiedName=MESSAGE)})
RESULT = _object(
    ["ruleId", "ruleIndex", "level", "message", "locations", "partialFingerprints"],
    ruleId={"type": "string"}, ruleIndex={"type": "integer", "minimum": 0}, level=LEVEL, message=TEXT,
    locations={"type": "array", "minItems": 1, "maxItems": 1, "items": LOCATION},
    partialFingerprints={
        "type": "object", "minProperties": 1, "additionalProperties": {"type": "string", "pattern": "^[0-9a-f]{32}$"}})
RUN = _object(
    ["tool", "results"],
    tool=_object(["driver"], driver=_object(
        ["name", "rules"], name=MESSAGE, rules={"type": "array", "minItems": 1, "items": RULE})),
    columnKind={"enum": ["utf16CodeUnits", "unicodeCodePoints"]}, results={"type": "array", "items": RESULT})
SCHEMA = _object(
    ["$schema", "version", "runs"], version={"const": "2.1.0"}, runs={"type": "array", "minItems": 1, "items": RUN},
    **{"$schema": {"type": "string", "pattern": "sarif-schema-2.1.0.json$"}})


def checked_sarif(document: Any) -> dict[str, Any]:
    """The document, which is valid, names its rules rightly, and has no fingerprint twice."""
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    for run in document["runs"]:
        rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
        assert len(set(rules)) == len(rules)
        assert all(rules[result["ruleIndex"]] == result["ruleId"] for result in run["results"])
        prints = [tuple(result["partialFingerprints"].values()) for result in run["results"]]
        assert len(set(prints)) == len(prints)
    return dict(document)
