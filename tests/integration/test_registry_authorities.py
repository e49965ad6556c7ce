# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Role docker_host tells the engine which certificate authority signed a registry's certificate."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from support.fleet import Run
from support.role_run import LOCAL, Ansible


def apply(directory: Path, authorities: dict[str, Any], *arguments: str) -> Run:
    play = {
        "hosts": "workers", "gather_facts": False, "become": True,
        "vars": {"docker_host_registry_authorities": authorities},
        "tasks": [{"ansible.builtin.include_role": {
            "name": "driftguard.workers.docker_host", "tasks_from": "registries"}}]}
    path = directory / "play.yml"
    path.write_text(yaml.safe_dump([play]))
    return Ansible(directory, {"here": LOCAL}).playbook(path, *arguments)


def test_an_authority_is_written_where_the_engine_looks(tmp_path: Path) -> None:
    registry = f"{uuid4().hex}.invalid:5000"
    place = Path("/etc/docker/certs.d") / registry
    authority = tmp_path / "ca.crt"
    authority.write_text("-----BEGIN CERTIFICATE-----\n")
    try:
        apply(tmp_path, {registry: str(authority)}, "--check").must_pass()
        assert not place.exists()
        assert apply(tmp_path, {registry: str(authority)}).must_pass().changed == 2
        assert (place / "ca.crt").read_text() == authority.read_text()
        assert apply(tmp_path, {registry: str(authority)}).must_pass().changed == 0
    finally:
        shutil.rmtree(place, ignore_errors=True)


@pytest.mark.parametrize("registry", ["../../tmp/x", "r/../../x", "", "https://r", "r:", "a b"])
def test_what_is_no_registrys_name(tmp_path: Path, registry: str) -> None:
    apply(tmp_path, {registry: "/dev/null"}).must_fail("expected a registry's name with its port")
