# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An audit's findings as text, JSON and SARIF 2.1.0."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Optional, Sequence
from urllib.parse import quote

from .audit_rules import LEVELS, RULES
from .untrusted import clean

SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json"
FINGERPRINT = "driftguardFinding/v1"
TOOL = "driftguard.workers worker_compose_audit"
TEXT, JSON, SARIF = "text", "json", "sarif"
_MAX_NAME = 4096


@dataclass(frozen=True)
class Finding:
    """One finding.

    :param key: dotted keys below the service; empty for what is missing.
    :param file: relative to the report's directory, absolute when outside of it; None when unknown, as the line.
    """

    rule: str
    level: str
    service: str
    key: str
    file: Optional[str]
    line: Optional[int]
    message: str
    remedy: str

    @property
    def fingerprint(self) -> str:
        """The same for the same finding, wherever in the file it has moved to."""
        said = json.dumps([self.rule, self.service, self.key, self.file])
        return hashlib.sha256(said.encode()).hexdigest()[:32]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "fingerprint": self.fingerprint}


def summary(findings: Sequence[Finding]) -> dict[str, int]:
    """Number of findings by level."""
    return {level: sum(finding.level == level for finding in findings) for level in LEVELS}


def report(form: str, findings: Sequence[Finding], services: dict[str, bool]) -> str:
    """All findings in one text that ends with a line ending.

    :param services: name → whether it is a worker.
    """
    if form == TEXT:
        return _text(findings, services)
    if form == JSON:
        document: dict[str, Any] = {
            "version": 1, "summary": summary(findings), "services": services,
            "findings": [finding.to_dict() for finding in findings]}
    else:
        document = _sarif(findings)
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=True) + "\n"


def _text(findings: Sequence[Finding], services: dict[str, bool]) -> str:
    lines = [
        f"{_place(finding)}: {finding.level} {finding.rule} [{clean(finding.service)}] {finding.message}\n"
        f"    {finding.remedy}" for finding in findings]
    counted = ", ".join(f"{count} {level}{'' if count == 1 else 's'}" for level, count in summary(findings).items())
    workers = sum(services.values())
    lines.append(f"{counted} in {len(services)} service{'' if len(services) == 1 else 's'}, {workers} of them workers")
    return "\n".join(lines) + "\n"


def _place(finding: Finding) -> str:
    file = clean(finding.file, _MAX_NAME) if finding.file else "(place unknown)"
    return f"{file}:{finding.line}" if finding.line else file


def _sarif(findings: Sequence[Finding]) -> dict[str, Any]:
    order = list(RULES)
    return {
        "$schema": SARIF_SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": TOOL, "rules": [_sarif_rule(name) for name in order]}},
            "columnKind": "unicodeCodePoints",
            "results": [_sarif_result(finding, order) for finding in findings],
        }],
    }


def _sarif_rule(name: str) -> dict[str, Any]:
    rule = RULES[name]
    return {
        "id": name, "shortDescription": {"text": rule.title}, "help": {"text": f"{rule.title}. Remedy: {rule.remedy}."},
        "defaultConfiguration": {"level": rule.level}}


def _sarif_result(finding: Finding, order: list[str]) -> dict[str, Any]:
    location: dict[str, Any] = {"logicalLocations": [{
        "name": finding.service, "kind": "resource",
        "fullyQualifiedName": ".".join(part for part in ("services", finding.service, finding.key) if part)}]}
    if finding.file:
        physical: dict[str, Any] = {"artifactLocation": {"uri": _uri(finding.file)}}
        if finding.line:
            physical["region"] = {"startLine": finding.line}
        location["physicalLocation"] = physical
    return {
        "ruleId": finding.rule, "ruleIndex": order.index(finding.rule), "level": finding.level,
        "message": {"text": f"{finding.service}: {finding.message}. Remedy: {finding.remedy}."},
        "locations": [location], "partialFingerprints": {FINGERPRINT: finding.fingerprint}}


def _uri(file: str) -> str:
    path = quote(file.encode("utf-8", "surrogateescape"), safe="/")
    return f"file://{path}" if path.startswith("/") else path
