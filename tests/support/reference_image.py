# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The reference worker's image, as a base for applications with workers of their own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Iterator

import docker
import pytest

__all__ = ["build_reference", "reference_image"]

CONTEXT = Path(__file__).resolve().parents[2] / "files" / "worker"
AUTHORITIES = Path(os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt")


def build_reference(base: str, tag: str, *more: str, **variables: str) -> None:
    """Build it as the README of files/worker says.

    :param more: further arguments.
    :param variables: further environment, for secrets.
    """
    command = ["docker", "buildx", "build", "--load", "-q", "-t", tag, "--build-arg", f"BASE_IMAGE={base}", *more]
    if AUTHORITIES.exists():
        command += ["--secret", f"id=ca,src={AUTHORITIES}"]
    command += ["-f", str(CONTEXT / "Dockerfile.worker"), str(CONTEXT)]
    found = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


@pytest.fixture(scope="session")
def reference_image(base_reference: str) -> Iterator[str]:
    """By a tag that is its own id, which no later build can move."""
    engine = docker.from_env()
    build_reference(base_reference, "driftguard.local/test-reference:new")
    image = engine.images.get("driftguard.local/test-reference:new")
    digest = str(image.id).partition(":")[2]
    image.tag("driftguard.local/test-reference", digest)
    yield f"driftguard.local/test-reference:{digest}"
    for tag in ("new", digest):
        engine.images.remove(f"driftguard.local/test-reference:{tag}", force=True)
    engine.close()
