# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two fleets deployed by one ansible-playbook: the second knows nothing of the first, whatever that came to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from support.modules import PROJECT

SERVICE: dict[str, Any] = {"memory": "64M", "stop_grace_period": "3s", "drain_time": "1s"}
RELEASE = {"sha": "a" * 40, "release_id": f"{'a' * 12}.{'b' * 12}"}


def fleet(name: str, group: str, service: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Variables of a fleet whose Redis nobody reaches."""
    return {
        "worker_fleet": name, "worker_group": group, "worker_fleet_services": {"alpha": service},
        "worker_root": str(directory / "root"), "worker_redis_url": "redis://127.0.0.1:1/0",
        "worker_redis_password": "none", "worker_image_push": True, "worker_image_repository": "registry.test/x-worker",
        "worker_image_base": "base@sha256:" + "b" * 64, "worker_source": {"path": str(directory)},
        "worker_evidence_directory": str(directory / "evidence")}


def test_a_fleet_that_the_first_one_led_has_a_leader_of_its_own(tmp_path: Path) -> None:
    """The first fleet's leader is none of the second's hosts. Without one a run would decide nothing, and end well."""
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    groups = {"first": {"hosts": {"one": local, "two": local}}, "second": {"hosts": {"two": None}}}
    (tmp_path / "inventory.yml").write_text(yaml.safe_dump({"all": {"children": groups}}))
    deploy = str(PROJECT / "playbooks" / "deploy_workers.yml")
    book = [
        {"import_playbook": deploy, "vars": fleet("first", "first", SERVICE, tmp_path)},
        # What it would have left behind, had it come to its images.
        {"hosts": "all", "gather_facts": False, "tasks": [
            {"ansible.builtin.set_fact": {"worker_release": RELEASE, "worker_images_result": {"release": RELEASE}}}]},
        # Refused in its very beginning: a service without a memory limit.
        {"import_playbook": deploy, "vars": fleet("second", "second", {**SERVICE, "memory": None}, tmp_path)}]
    (tmp_path / "book.yml").write_text(yaml.safe_dump(book))
    environment = {
        **os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCAL_TEMP": str(tmp_path / "tmp")}
    command = [
        str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(tmp_path / "inventory.yml"),
        str(tmp_path / "book.yml")]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    assert done.returncode == 2, output
    for name, said in (("first", "Redis"), ("second", "memory")):
        records = [json.loads(path.read_text()) for path in (tmp_path / "evidence" / name).glob("*.json")]
        assert [record["result"] for record in records] == ["failed"], output
        assert not records[0]["release"], records
        assert any(said in host["message"] for host in records[0]["hosts"].values()), records
