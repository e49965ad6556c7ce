# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that describe what a fleet should run."""

from __future__ import annotations


class ModuleDocFragment:
    """``driftguard.workers.spec``: the fleet spec of an inventory, as SPEC_SPEC of module_base."""

    DOCUMENTATION = r"""
options:
  services:
    description:
      - The fleet's services by name, each a dictionary. An empty value takes every default.
      - Keys are C(variant), C(command), C(replicas), C(concurrency), C(environment), C(secrets), C(memory), C(cpus),
        C(pids), C(reservations), C(healthcheck), C(stop_grace_period), C(drain_time), C(volumes), C(tmpfs),
        C(networks),
        C(read_only), C(singleton), C(guard) and C(order). C(docs/inventory.md) explains each.
      - An unknown key, a missing memory limit, C(GIT_SHA) in an environment, a mount over the code or a grace period
        shorter
        than the drain time is an error that names service, key and remedy.
    type: dict
    required: true
  defaults:
    description:
      - The same keys, for every service that does not say otherwise. Environments are merged.
    type: dict
    default: {}
  placement:
    description:
      - Names of the services that run on this host. All of them when it is not given.
    type: list
    elements: str
"""
