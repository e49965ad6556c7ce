#!/usr/bin/python
# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turns the workers of a compose file into an inventory of this collection."""

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_compose_adopt
short_description: Turns the workers of a compose file into an inventory of this collection
version_added: 0.1.0
description:
  - Writes an inventory that renders the same services, hardened, and C(ADOPTED.md) with everything that differs, by
    service and key, and what is left to do.
  - The list of changes is what differs between Docker Compose's reading of the file and its reading of what
    M(driftguard.workers.worker_compose) renders. So nothing is dropped without being named.
  - Variables get the values that Compose gives them with O(env_files) and the files' own defaults, never those of the
    caller's shell.
  - Secrets in an environment become names in C(worker_secrets), whose contents belong into a vault. No value of a
    secret is in any output or file.
  - A file of the inventory that is there with another content is never overwritten without O(force).
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
      - Names of the services to adopt.
      - When it is empty, those that are built here or share an image with one that is; where nothing is built, all but
        well-known servers such as Redis and PostgreSQL. The others stay in the compose file.
    type: list
    elements: str
    default: []
  fleet:
    description:
      - Name of the fleet. The compose project's when it is not given.
    type: str
  host:
    description:
      - The fleet's first host, as the inventory names it.
    type: str
    default: localhost
  memory:
    description:
      - Memory limit of services that have none. It is marked as a guess.
    type: str
    default: 512M
  dest:
    description:
      - Directory of the inventory.
    type: path
    required: true
  force:
    description:
      - Overwrite files of the inventory that have another content.
    type: bool
    default: false
requirements:
  - Docker Compose v2 (command line)
  - PyYAML
author:
  - driftguard.workers contributors (@driftguard)
"""

EXAMPLES = r"""
- name: Adopt the workers of a compose file
  driftguard.workers.worker_compose_adopt:
    files: [docker-compose.workers.yml]
    fleet: shop
    dest: inventories/shop

- name: Adopt two of its services for another host
  driftguard.workers.worker_compose_adopt:
    files:
      - compose.yml
      - compose.production.yml
    env_files: [production.env]
    services: [mailer, extractor]
    host: worker1.example.org
    dest: inventories/mail
"""

RETURN = r"""
changes:
  description:
    - Everything that differs, by service. Each has C(service), C(key), C(kind) (V(changed), V(added), V(removed) or
      V(not carried over)), C(before) and C(after) as JSON, and C(reason).
  returned: success
  type: list
  elements: dict
fixed:
  description:
    - Variables of the compose file that have a fixed value in the inventory. Each has C(service), C(key), C(written) as
      it was, and C(unset), the variables in it without a value or a default.
  returned: success
  type: list
  elements: dict
left:
  description: Services that stay in the compose file, each with the reason.
  returned: success
  type: dict
services:
  description: Adopted services, name in the compose file to name in the fleet.
  returned: success
  type: dict
todo:
  description: What has to be seen to before the first deploy.
  returned: success
  type: list
  elements: str
fleet:
  description: Name of the fleet.
  returned: success
  type: str
files:
  description: Files of the inventory, relative to O(dest).
  returned: success
  type: list
  elements: str
dest:
  description: Directory of the inventory.
  returned: success
  type: str
"""

from ansible_collections.driftguard.workers.plugins.module_utils.compose_adopt import adopt
from ansible_collections.driftguard.workers.plugins.module_utils.module_base import run_module

ARGUMENTS = {
    "files": {"type": "list", "elements": "path", "required": True},
    "project_directory": {"type": "path"},
    "env_files": {"type": "list", "elements": "path", "default": []},
    "services": {"type": "list", "elements": "str", "default": []},
    "fleet": {"type": "str"},
    "host": {"type": "str", "default": "localhost"},
    "memory": {"type": "str", "default": "512M"},
    "dest": {"type": "path", "required": True},
    "force": {"type": "bool", "default": False},
}


def main() -> None:
    """Entry point of the module."""
    run_module(ARGUMENTS, lambda module: adopt(module.params, module.check_mode))


if __name__ == "__main__":
    main()
