# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that name a fleet and its place on a host."""

from __future__ import annotations


class ModuleDocFragment:
    """``driftguard.workers.fleet`` is the name (FLEET_SPEC), ``driftguard.workers.fleet.root`` its root (ROOT_SPEC)."""

    DOCUMENTATION = r"""
options:
  fleet:
    description:
      - Name of the fleet. Its Redis keys and, unless told otherwise, its images begin with it.
      - Its compose project is C(<fleet>-workers).
      - Two to 32 lower-case letters, digits and dashes; begins with a letter, does not end with a dash.
    type: str
    required: true
"""

    ROOT = r"""
options:
  root:
    description:
      - Directory on the host below which every fleet has its own, C(<root>/<fleet>).
    type: path
    default: /opt/driftguard
"""
