# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the make targets run. Needs nothing but Python's standard library until ``tools/setup`` has made ``.venv``."""

from __future__ import annotations

import sys
from pathlib import Path

# The collection's own modules (its error, its names) under their real name, also before Ansible is installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / ".collections"))
