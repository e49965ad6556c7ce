# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that say who one is for a registry."""

from __future__ import annotations


class ModuleDocFragment:
    """``driftguard.workers.registry``: the options of REGISTRY_SPEC."""

    DOCUMENTATION = r"""
options:
  registry_username:
    description:
      - Who the registry is asked as. They go with each request, and no login is left on the host.
      - Without them the engine is given what the user's Docker configuration has.
    type: str
  registry_password:
    description:
      - Password of O(registry_username), or a token. Keep it in a vault.
    type: str
"""
