# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attributes that every module of the collection declares; each states its own support."""

from __future__ import annotations


class ModuleDocFragment:
    """Use with ``extends_documentation_fragment: [driftguard.workers.attributes]``.

    A module that supports all of them needs no ``attributes:`` of its own; one that differs overrides ``support``
    and says why in ``details``.
    """

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    support: full
    description:
      - Runs in check mode, changes nothing, and predicts what the run would do.
  diff_mode:
    support: full
    description:
      - Returns what differs, before and after, in diff mode.
  idempotent:
    support: full
    description:
      - A second run with the same arguments and nothing else changed reports that nothing changed.
  platform:
    platforms: linux
    support: full
    description:
      - Target operating systems.
"""
