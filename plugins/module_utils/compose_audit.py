# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What worker_compose_audit does: reads compose files, applies the rules, and reports."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Mapping

from .audit_checks import Hit
from .audit_host_checks import all_hits
from .audit_report import Finding, report, summary
from .audit_rules import ERROR, LEVELS, RULES, level_of
from .audit_view import ServiceView
from .compose_project import Project, env_file_paths, workers_of
from .compose_source import HAS_YAML
from .compose_variables import assignments, read_source
from .errors import DriftguardError
from .host_files import read_text, write_atomic
from .module_base import FailedResult, Result
from .untrusted import clean

NEVER = "never"
SHOWN = 5


def audit(options: Mapping[str, Any], check_mode: bool) -> Result:
    """Audit compose files and, out of check mode, write the report.

    :param options: the module's options.
    :raises DriftguardError: a file can't be read, or Compose refuses it.
    :raises FailedResult: something is as bad as ``fail_on``; the report is written and among the values.
    """
    project = Project.open(options["files"], options["project_directory"], options["env_files"])
    services = project.raw().get("services", {})
    workers = workers_of(services, options["services"])
    base = Path(os.path.abspath(options["relative_to"] or project.directory))
    views = [_view(project, name, body, name in workers) for name, body in sorted(services.items())]
    findings = sorted(
        (_finding(project, view, hit, base) for view in views for hit in all_hits(view)),
        key=lambda one: (one.file or "", one.line or 0, one.service, LEVELS.index(one.level), one.rule, one.key))
    text = report(options["format"], findings, {view.name: view.worker for view in views})
    values = {
        "findings": [finding.to_dict() for finding in findings], "summary": summary(findings), "report": text,
        "services": {view.name: view.worker for view in views}, "lines_known": HAS_YAML}
    result = _written(options["dest"], text, values, check_mode)
    _refuse(options["fail_on"], findings, result)
    return result


def _view(project: Project, name: str, body: Mapping[str, Any], worker: bool) -> ServiceView:
    values = dict(_env_values(project))
    found: dict[str, tuple[str, str, int]] = {}
    for path in env_file_paths(body):
        # One that isn't there is for Compose to miss when it starts the service.
        if path.is_file():
            for key, value, line in assignments(read_source(path, "env file")):
                found[key] = value, str(path), line
    return ServiceView(name, body, worker, values, found)


def _env_values(project: Project) -> Mapping[str, str]:
    return project.sources.variables


def _finding(project: Project, view: ServiceView, hit: Hit, base: Path) -> Finding:
    file, line = hit.file, hit.line
    if file is None:
        place = project.sources.place(view.name, hit.path)
        file, line = (place.file, place.line) if place else (None, None)
    rule = RULES[hit.rule]
    return Finding(
        hit.rule, level_of(hit.rule, view.worker), clean(view.name), clean(".".join(hit.path)),
        _relative(file, base) if file else None, line, clean(hit.detail), rule.remedy)


def _relative(file: str, base: Path) -> str:
    try:
        return str(Path(file).relative_to(base))
    except ValueError:
        return file


def _written(dest: Any, text: str, values: dict[str, Any], check_mode: bool) -> Result:
    if not dest:
        return Result(False, values)
    path = Path(dest)
    before = read_text(path)
    if before != text and not check_mode:
        write_atomic(path, text, 0o644)
    return Result(before != text, {**values, "dest": str(path)}, before or "", text, str(path))


def _refuse(fail_on: str, findings: list[Finding], result: Result) -> None:
    if fail_on == NEVER:
        return
    bad = [finding for finding in findings if LEVELS.index(finding.level) <= LEVELS.index(fail_on)]
    if bad:
        first = "; ".join(f"{one.file or '?'}:{one.line or '?'} {one.rule} [{one.service}]" for one in bad[:SHOWN])
        more = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        level = "error" if fail_on == ERROR else f"{fail_on} or worse"
        raise FailedResult(
            DriftguardError(
                "compose file", f"no finding of level {level}", f"{len(bad)}: {clean(first, 1000)}{more}",
                "mend them (report has the remedy of each), or report without failing: fail_on=never"),
            result.values, result.changed)
