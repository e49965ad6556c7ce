# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a lab knows of itself, and what is refused before anything is touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from lab import state
from lab.reach import slow_file, write_ssh_files
from lab.state import Host, Lab, host_plan, labs
from support.modules import PROJECT

HOSTS = PROJECT / "inventories" / "lab" / "hosts.py"


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Labs of this test's own."""
    monkeypatch.setattr(state, "PLACES", tmp_path / "labs")
    return tmp_path / "labs"


def made(name: str = "some") -> Lab:
    """A lab with two hosts, as far as files go."""
    lab = Lab(name, "0123ab", "10.213.7", "base:1")
    lab.hosts = {host.name: host for host in (host_plan(1, lab.subnet), host_plan(2, lab.subnet))}
    lab.write()
    return lab


def refused(call: Any, *arguments: Any) -> DriftguardError:
    """The failure of a call, with all its parts."""
    with pytest.raises(DriftguardError) as caught:
        call(*arguments)
    assert all((caught.value.expected, caught.value.found, caught.value.remedy))
    return caught.value


def test_what_was_written_is_read_again() -> None:
    assert Lab.read(made().name) == made()
    assert labs() == ["some"]


def test_its_files_are_for_its_owner_alone(places: Path) -> None:
    lab = made()
    secret = lab.secret("a-password")
    assert (len(secret) >= 24, lab.secret("a-password")) == (True, secret)
    assert {oct(path.stat().st_mode & 0o777) for path in lab.directory.iterdir() if path.is_file()} == {"0o600"}
    assert oct(lab.directory.stat().st_mode & 0o777) == "0o700"


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "1a", "a b", "a" * 17, "a\n"])
def test_a_name_that_could_lead_elsewhere_is_refused(name: str) -> None:
    refused(Lab.read, name)
    refused(Lab.new, name)


def test_one_that_is_not_up_is_said_with_the_remedy() -> None:
    error = refused(Lab.read, "some")
    assert "make lab" in error.remedy
    assert "host9" in refused(made().host, "host9").found


@pytest.mark.parametrize("content", [
    "", "[]", "{}", "null", '{"hosts": []}', '{"hosts": {}, "name": "some", "sockets": "/"}',
    '{"hosts": {}, "name": "some", "identity": "../..", "sockets": "/"}', "\0", '{"hosts": {"x": {"nme": 1}}}'])
def test_a_damaged_file_is_an_error_and_nothing_is_removed(places: Path, content: str) -> None:
    made().keep("lab.json", content)
    refused(Lab.read, "some")
    assert (places / "some").is_dir()


def test_forgetting_removes_its_own_directories_whatever_its_file_says(places: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    lab = made()
    facts = json.loads((lab.directory / "lab.json").read_text())
    for sockets in ("", ".", str(tmp_path / "precious")):
        lab.keep("lab.json", json.dumps({**facts, "sockets": sockets}))
        assert Lab.read("some").sockets == lab.sockets
    Lab.read("some").forget()
    assert (sorted(tmp_path.iterdir()), list(places.iterdir())) == ([places, tmp_path / "precious"], [])


def test_the_second_host_has_the_containerd_store_and_the_third_is_a_debian_12() -> None:
    assert [host_plan(number, "10.213.0") for number in (1, 2, 3, 4)] == [
        Host("host1", "10.213.0.11"), Host("host2", "10.213.0.12", store="containerd"),
        Host("host3", "10.213.0.13", suite="bookworm"), Host("host4", "10.213.0.14")]


def test_ssh_pins_host_keys_and_takes_the_slow_way_only_where_asked() -> None:
    lab = made()
    for host in lab.hosts:
        lab.keep(f"{host}.key.pub", f"ssh-ed25519 KEYOF{host} comment\n")
    write_ssh_files(lab)
    assert (lab.directory / "known_hosts").read_text().splitlines() == [
        "host1 ssh-ed25519 KEYOFhost1", "host2 ssh-ed25519 KEYOFhost2"]
    assert "ProxyCommand" not in (lab.directory / "ssh_config").read_text()
    lab.keep(slow_file(lab, lab.host("host2")).name, "{}")
    write_ssh_files(lab)
    config = lab.directory / "ssh_config"

    def asked(host: str) -> str:
        return subprocess.run(["ssh", "-G", "-F", str(config), host], capture_output=True, text=True, check=True).stdout

    assert "hostname 10.213.7.12" in asked("host2")
    assert "stricthostkeychecking true" in asked("10.213.7.11")
    assert ["proxycommand" in asked(host) for host in ("host1", "host2", "10.213.7.12")] == [False, True, True]


def run_inventory(places: Path, lab: str) -> subprocess.CompletedProcess[str]:
    """The inventory of a checkout whose labs are elsewhere."""
    script = places.parent / "inventories" / "lab" / "hosts.py"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(HOSTS.read_text().replace('".cache" / "lab"', '"labs"'))
    return subprocess.run(
        [sys.executable, "-IS", str(script), "--list"], env={**os.environ, "DRIFTGUARD_LAB": lab}, check=False,
        capture_output=True, text=True)


def test_the_inventory_has_the_labs_hosts(places: Path) -> None:
    lab = made()
    found = json.loads(run_inventory(places, lab.name).stdout)
    variables = found["workers"]["vars"]
    assert found["workers"]["hosts"] == ["host1", "host2"]
    assert found["_meta"]["hostvars"]["host2"] == {"ansible_host": "10.213.7.12"}
    # Said twice, as the inventory needs nothing but Python: here as the lab itself has it.
    assert (variables["lab_registry"], variables["lab_redis_url"], variables["ansible_control_path_dir"]) == (
        lab.registry, lab.redis_url, str(lab.sockets))


def test_the_inventory_of_no_lab_fails_with_the_remedy(places: Path) -> None:
    done = run_inventory(places, "none")
    assert (done.returncode, done.stdout) == (1, "")
    assert "remedy: make lab" in done.stderr
    assert "Traceback" not in done.stderr
