# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of every module that reads or writes the fleet's Redis."""

from __future__ import annotations


class ModuleDocFragment:
    """Use with ``extends_documentation_fragment: [driftguard.workers.redis]``; they are REDIS_SPEC of module_base."""

    DOCUMENTATION = r"""
options:
  redis_url:
    description:
      - URL of the fleet's Redis, as the workers use it, C(redis://user@host:6379/0) or C(rediss://) for TLS.
      - User, database and TLS of the URL are honoured. A password has its place in O(redis_password), not here.
    type: str
    required: true
  redis_password:
    description:
      - Password for Redis.
    type: str
  redis_ca_file:
    description:
      - File with the certificate authorities that may have signed the server's certificate, for C(rediss://) URLs.
      - The system's own are used when it is not given.
    type: path
  redis_timeout:
    description:
      - Seconds to wait for a connection and for each answer.
    type: float
    default: 5.0
"""
