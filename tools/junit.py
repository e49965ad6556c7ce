# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""JUnit XML, the form in which every stage of the tests says what passed: read from pytest, written by the others."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable

from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError

ALLOWED_SKIP = "not on this machine: "


@dataclass(frozen=True)
class Case:
    """One test.

    :param outcome: ``passed``, ``failed`` or ``skipped``.
    :param seconds: how long it took.
    :param message: why it did not pass.
    """

    name: str
    outcome: str
    seconds: float = 0.0
    message: str = ""


def read(path: Path) -> list[Case]:
    """The tests of a report; none when it was never written.

    A skipped test has proved nothing: it counts as failed unless its reason starts with :data:`ALLOWED_SKIP`.

    :raises DriftguardError: the report is damaged.
    """
    if not path.exists():
        return []
    try:
        return [_case(element) for element in ET.parse(path).iter("testcase")]
    except ET.ParseError as error:
        raise DriftguardError(str(path), "a JUnit report", str(error), "look into the stage's log beside it") from error


def _case(element: ET.Element) -> Case:
    name = "::".join(part for part in (element.get("classname"), element.get("name")) if part)
    seconds = float(element.get("time") or 0)
    for tag, outcome in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
        found = element.find(tag)
        if found is not None:
            return _not_passed(name, outcome, seconds, found)
    return Case(name, "passed", seconds)


def _not_passed(name: str, outcome: str, seconds: float, found: ET.Element) -> Case:
    summary, details = found.get("message") or "", found.text or ""
    if outcome == "skipped" and not summary.startswith(ALLOWED_SKIP):
        return Case(name, "failed", seconds, f"skipped, which proves nothing: {summary}")
    return Case(name, outcome, seconds, summary if outcome == "skipped" else details or summary)


def write(path: Path, suite: str, cases: Iterable[Case]) -> None:
    """Write a report that :func:`read` and CI systems understand."""
    root = ET.Element("testsuites")
    group = ET.SubElement(root, "testsuite", name=suite)
    for case in cases:
        element = ET.SubElement(group, "testcase", name=case.name, classname=suite, time=f"{case.seconds:.3f}")
        if case.outcome != "passed":
            tag = "failure" if case.outcome == "failed" else "skipped"
            said = _printable(case.message)
            ET.SubElement(element, tag, message=said[:200]).text = said
    path.parent.mkdir(parents=True, exist_ok=True)
    ET.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _printable(text: str) -> str:
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "?" for sign in text)
