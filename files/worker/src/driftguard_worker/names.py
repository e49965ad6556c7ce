# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""Names and numbers that the deployer and every worker agree on.

The other sides read them from the guard contract (``files/guard/contract.json``); tests hold the two equal.
"""

from __future__ import annotations

__all__ = [
    "DRAIN_SECONDS",
    "FIELDS",
    "FLEET_PATTERN",
    "GUARD_DIRECTORY",
    "HEALTH_PORT",
    "HEARTBEAT_SECONDS",
    "HOST_LOOK_SECONDS",
    "IMAGE_FILE",
    "INDEX_RETENTION_SECONDS",
    "LEGACY_FIELDS",
    "LEGACY_TTL_SECONDS",
    "MAX_ALLOWED",
    "MAX_GENERATION",
    "MAX_RECORD_BYTES",
    "RECORD_FILE",
    "REGISTRATION_TTL_SECONDS",
    "RELEASE_PATTERN",
    "SERVICE_PATTERN",
    "SHA_PATTERN",
    "STARTS_TTL_SECONDS",
    "UNKNOWN",
    "events_channel",
    "flags_key",
    "index_key",
    "legacy_key",
    "member",
    "release_key",
    "starts_key",
    "version_key",
]

FLEET_PATTERN = r"^[a-z][a-z0-9-]{0,30}[a-z0-9]$"
SERVICE_PATTERN = r"^[a-z](?:[a-z0-9-]{0,39}[a-z0-9])?$"
RELEASE_PATTERN = r"^[0-9a-f]{12}\.[0-9a-f]{12}$"
SHA_PATTERN = r"^[0-9a-f]{40}$"

GUARD_DIRECTORY = "/opt/driftguard/guard"
RECORD_FILE = "guard.json"
MAX_RECORD_BYTES = 65_536
MAX_ALLOWED = 32
MAX_GENERATION = 10**15
IMAGE_FILE = "/etc/driftguard/image.json"
HEALTH_PORT = 8081

# The key's TTL is liveness: three beats may be lost before a worker counts as gone. No option, since the
# deployer's verdicts rely on the same number.
HEARTBEAT_SECONDS = 5
REGISTRATION_TTL_SECONDS = 3 * HEARTBEAT_SECONDS

# How often the host's record is looked at: it lies on a mounted directory, where no notification is sure to arrive.
HOST_LOOK_SECONDS = 0.5
DRAIN_SECONDS = 20

# From the worker deployment runbook: the record per worker type lives for a day after a start.
LEGACY_TTL_SECONDS = 86_400
# Members of the index that nobody has refreshed for this long belong to containers that were killed.
INDEX_RETENTION_SECONDS = 86_400

STARTS_TTL_SECONDS = 7 * 86_400

LEGACY_FIELDS = ("gitSha", "buildDate", "startedAt", "pid")
FIELDS = (*LEGACY_FIELDS, "host", "service", "containerId", "releaseId", "state", "heartbeatAt")

UNKNOWN = "unknown"


def version_key(fleet: str, service: str, instance: str) -> str:
    """Hash with the registration of one instance."""
    return f"{fleet}:worker:{service}:{instance}:version"


def legacy_key(fleet: str, service: str) -> str:
    """Hash per worker type, written at each start for readers that know only that one; nothing here reads it."""
    return f"{fleet}:worker:{service}:version"


def starts_key(fleet: str, service: str, instance: str) -> str:
    """How often an instance has started without a stop that was asked for; forgotten after a while."""
    return f"{fleet}:worker:{service}:{instance}:starts"


def index_key(fleet: str) -> str:
    """Sorted set of the instances, scored with the time of their last heartbeat."""
    return f"{fleet}:workers"


def release_key(fleet: str) -> str:
    """The fleet's release record."""
    return f"{fleet}:release"


def flags_key(fleet: str) -> str:
    """Hash of the fleet's kill switches."""
    return f"{fleet}:flags"


def events_channel(fleet: str) -> str:
    """Where a change of the record is announced."""
    return f"{fleet}:release:events"


def member(service: str, instance: str) -> str:
    """Name of one instance in the index; also its worker id in logs and answers."""
    return f"{service}:{instance}"
