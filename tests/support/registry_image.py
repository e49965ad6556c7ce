# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests' registries are built from: Debian's own, without pulling anything."""

from __future__ import annotations

__all__ = ["DOCKERFILE"]

DOCKERFILE = """\
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN apt-get update -q && apt-get install -qy --no-install-recommends docker-registry apache2-utils \\
    && rm -rf /var/lib/apt/lists
RUN printf '%s\\n' 'version: 0.1' 'storage: {filesystem: {rootdirectory: /data}, delete: {enabled: true}}' \
    'http: {addr: ":5000"}' >/registry.yml && mkdir /closed
CMD ["docker-registry", "serve", "/registry.yml"]
"""
