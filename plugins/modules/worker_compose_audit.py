#!/usr/bin/python
# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports what in a compose file breaks the promises of a fleet."""

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_compose_audit
short_description: Reports by service and line what makes a compose file unsafe for workers
version_added: 0.1.0
description:
  - Reads compose files on the host where it runs and reports, by service, file and line, what lets stale or unsafe
    workers run, such as images by tag, C(GIT_SHA) set at deploy time, mounts over the code, secrets in clear, a raw
    Docker socket or no memory limit. C(docs/adopting.md) has the table of rules.
  - Docker Compose itself reads the files, with all profiles, so that anchors, merges, overrides, C(extends) and
    C(include) mean what they mean to Compose. Nothing is fetched, built or started, and no engine is needed.
  - Variables are judged with their defaults and the values of O(env_files), never with those of the caller's shell.
  - No value of a secret is in any output.
extends_documentation_fragment:
  - driftguard.workers.attributes
options:
  files:
    description:
      - Compose files, each overriding those before it.
    type: list
    elements: path
    required: true
  project_directory:
    description:
      - Where relative paths in the files begin. The directory of the first file when it is not given.
    type: path
  env_files:
    description:
      - Files with values for variables in the compose files. The project directory's C(.env), where there is one, when
        none is given.
    type: list
    elements: path
    default: []
  services:
    description:
      - Names of the services that are workers. Others are judged more leniently, see O(fail_on).
      - When it is empty, those that are built here or share an image with one that is; where nothing is built, all but
        well-known servers such as Redis and PostgreSQL.
    type: list
    elements: str
    default: []
  format:
    description:
      - Form of the report. V(sarif) is SARIF 2.1.0 with a fingerprint for each finding that survives moved lines.
    type: str
    choices: [text, json, sarif]
    default: text
  relative_to:
    description:
      - Directory that file names in the report are relative to, such as the root of a repository. The project directory
        when it is not given.
    type: path
  dest:
    description:
      - File that the report is written to, whole or not at all. It is written before the module fails for O(fail_on).
    type: path
  fail_on:
    description:
      - The least level for which the module fails, as a linter does in a pipeline. With V(never) it only reports.
      - Errors of services that are not workers count as warnings.
    type: str
    choices: [error, warning, note, never]
    default: error
requirements:
  - Docker Compose v2 (command line)
  - PyYAML; without it findings have no lines
author:
  - driftguard.workers contributors (@driftguard)
"""

EXAMPLES = r"""
- name: Audit a compose file; errors fail the task
  driftguard.workers.worker_compose_audit:
    files: [docker-compose.workers.yml]

- name: Write a report for a code scanner, and go on
  driftguard.workers.worker_compose_audit:
    files:
      - deploy/compose.yml
      - deploy/compose.production.yml
    relative_to: .
    format: sarif
    dest: build/compose.sarif
    fail_on: never
"""

RETURN = r"""
findings:
  description:
    - What was found, in the order of files and lines. Each has C(rule), C(level), C(service), C(key), C(file), C(line),
      C(message), C(remedy) and C(fingerprint). File and line are null where they can't be told.
  returned: when the files can be read, also on failure
  type: list
  elements: dict
summary:
  description: Number of findings by level, C(error), C(warning) and C(note).
  returned: when the files can be read, also on failure
  type: dict
services:
  description: Every service of the project, and whether it was judged as a worker.
  returned: when the files can be read, also on failure
  type: dict
report:
  description: The report in the form that was asked for.
  returned: when the files can be read, also on failure
  type: str
lines_known:
  description: Whether PyYAML was there to tell lines.
  returned: when the files can be read, also on failure
  type: bool
dest:
  description: The file that holds the report.
  returned: when O(dest) is given
  type: str
"""

from ansible_collections.driftguard.workers.plugins.module_utils.compose_audit import audit
from ansible_collections.driftguard.workers.plugins.module_utils.module_base import run_module

ARGUMENTS = {
    "files": {"type": "list", "elements": "path", "required": True},
    "project_directory": {"type": "path"},
    "env_files": {"type": "list", "elements": "path", "default": []},
    "services": {"type": "list", "elements": "str", "default": []},
    "format": {"type": "str", "choices": ["text", "json", "sarif"], "default": "text"},
    "relative_to": {"type": "path"},
    "dest": {"type": "path"},
    "fail_on": {"type": "str", "choices": ["error", "warning", "note", "never"], "default": "error"},
}


def main() -> None:
    """Entry point of the module."""
    run_module(ARGUMENTS, lambda module: audit(module.params, module.check_mode))


if __name__ == "__main__":
    main()
