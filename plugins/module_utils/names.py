# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names that the collection, the guards and the workers share.

The other sides read them from files/guard/contract.json; tests/contract holds the two equal.
"""

from __future__ import annotations

import re

FLEET_PATTERN = re.compile(r"^[a-z][a-z0-9-]{0,30}[a-z0-9]\Z")
SERVICE_PATTERN = re.compile(r"^[a-z](?:[a-z0-9-]{0,39}[a-z0-9])?\Z")
VARIANT_PATTERN = re.compile(r"^[a-z][a-z0-9]{0,20}\Z")
SHA_PATTERN = re.compile(r"^[0-9a-f]{40}\Z")
RELEASE_PATTERN = re.compile(r"^[0-9a-f]{12}\.[0-9a-f]{12}\Z")
IMAGE_ID_PATTERN = re.compile(r"^sha256:[0-9a-f]{64}\Z")
FLAG_PATTERN = re.compile(r"^[a-z][a-z0-9_-]{0,63}\Z")
FLAG_VALUES = ("true", "false")

LABEL_REVISION = "org.opencontainers.image.revision"
LABEL_CREATED = "org.opencontainers.image.created"
LABEL_BASE_NAME = "org.opencontainers.image.base.name"
LABEL_BASE_DIGEST = "org.opencontainers.image.base.digest"
LABEL_FLEET = "io.driftguard.fleet"
LABEL_VARIANT = "io.driftguard.variant"
LABEL_RELEASE = "io.driftguard.release"
LABEL_SERVICE = "io.driftguard.service"
LABEL_SPEC = "io.driftguard.spec"
LABEL_COMPOSE_PROJECT = "com.docker.compose.project"
LABEL_COMPOSE_SERVICE = "com.docker.compose.service"
LABEL_COMPOSE_NUMBER = "com.docker.compose.container-number"

IMAGE_FILE = "/etc/driftguard/image.json"
GUARD_MOUNT = "/opt/driftguard/guard"
SECRETS_MOUNT = "/run/secrets"
HOST_ROOT = "/opt/driftguard"
RESERVED_ENVIRONMENT = ("GIT_SHA", "BUILD_DATE")

HEARTBEAT_SECONDS = 5
REGISTRATION_TTL_SECONDS = 3 * HEARTBEAT_SECONDS
HEALTH_PORT = 8081
METRIC_JOBS = "driftguard_worker_jobs_total"
JOBS_DONE = ("completed",)
JOBS_FAILED = ("failed", "dead")
AUDIT_LENGTH = 10_000


def compose_project(fleet: str) -> str:
    """Name of the compose project of a fleet; its own suffix keeps it clear of the application's project."""
    return f"{fleet}-workers"


def guard_directory(root: str) -> str:
    """Directory on a host that its containers mount as :data:`GUARD_MOUNT`; root: the fleet's directory there."""
    return f"{root}/guard"


def repository_of(repository: str, variant: str) -> str:
    """Repository of one variant: the plain one for base, ``<repository>-<variant>`` for the others."""
    return repository if variant == "base" else f"{repository}-{variant}"
