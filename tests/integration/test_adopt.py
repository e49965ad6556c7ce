# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Adopting compose files: what is rendered from the inventory is what the file said, but for the listed changes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.driftguard.workers.plugins.module_utils.compose_host import write_compose
from ansible_collections.driftguard.workers.plugins.module_utils.compose_project import Project
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from support.compose_cases import CASES, IN_CLEAR, Case
from support.compose_diff import config, differing
from support.containers import FakeEngine
from support.modules import PROJECT, ModuleRun, run_module
from support.release_data import release_data

# What only the host's engine or the built image decides.
BY_HOST = ("healthcheck.start_interval",)
SECRET = "vault-text-of-a-secret"
RENDER = """
- hosts: workers
  gather_facts: false
  tasks:
    - driftguard.workers.worker_inventory:
        fleet: "{{ worker_fleet }}"
        hosts: "{{ {inventory_hostname: none} }}"
        services: "{{ worker_fleet_services }}"
        defaults: "{{ worker_service_defaults | default({}) }}"
    - driftguard.workers.worker_compose:
        fleet: "{{ worker_fleet }}"
        root: "{{ test_root }}"
        host: "{{ inventory_hostname }}"
        release: "{{ test_release }}"
        services: "{{ worker_fleet_services }}"
        redis_url: "{{ worker_redis_url }}"
        redis_password: "{{ worker_redis_password | default(omit) }}"
        secrets: "{{ worker_secrets | default({}) }}"
"""


def adopted(case: Case, dest: Path, **options: Any) -> ModuleRun:
    given = {"files": case.paths, "fleet": f"adopt-{case.name}", "dest": str(dest), **options}
    check = given.pop("check", False)
    return run_module("worker_compose_adopt", check=check, **given)


@pytest.fixture(params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def play(playbook: Path, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCAL_TEMP": str(directory / "tmp")}
    return subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), str(playbook), *arguments], cwd=PROJECT,
        env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False)


def release_for(dest: Path) -> dict[str, Any]:
    """A release with an image for each variant of the inventory."""
    release = release_data(loaded(dest / "group_vars/workers/fleet.yml")["worker_fleet"])
    variants = loaded(dest / "group_vars/workers/images.yml")["worker_image_variants"]
    return {**release, "variants": {name: {**release["variants"]["base"], "variant": name} for name in variants}}


def rendered_by_ansible(dest: Path, directory: Path) -> None:
    """Have Ansible read the inventory, the collection check it, and worker_compose render it below a directory."""
    vault = {f"vault_{name}": f"{SECRET}-{name}" for name in _vault_names(dest)}
    (dest / "group_vars/workers/vault.yml").write_text(yaml.safe_dump(vault))
    (directory / "render.yml").write_text(RENDER)
    extra = {"test_root": str(directory / "root"), "test_release": release_for(dest)}
    done = play(directory / "render.yml", directory, "-i", str(dest), "-e", json.dumps(extra))
    assert done.returncode == 0, done.stdout


def rendered_here(dest: Path, directory: Path) -> None:
    """The same without Ansible, in little time."""
    variables = {key: value for path in dest.glob("group_vars/workers/*.yml") for key, value in loaded(path).items()}
    engine: Any = FakeEngine()
    write_compose({
        "fleet": variables["worker_fleet"], "root": str(directory / "root"), "host": "localhost", "placement": None,
        "services": variables["worker_fleet_services"], "defaults": {}, "release": release_for(dest), "generation": 1,
        "run": "r", "lock_wait": 5.0, "redis_url": variables["worker_redis_url"], "networks": [], "production": True,
        "redis_user_per_release": False,
        "redis_password": f"{SECRET}-redis" if "worker_redis_password" in variables else None,
        "secrets": {name: f"{SECRET}-{name}" for name in variables.get("worker_secrets", {})},
    }, False, lambda: engine)


class UnsafeLoader(yaml.SafeLoader):
    """Reads what Ansible must not take for a template."""


UnsafeLoader.add_constructor("!unsafe", lambda loader, node: str(node.value))


def loaded(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(path.read_text(), Loader=UnsafeLoader)
    return found


def _vault_names(dest: Path) -> set[str]:
    texts = "".join(path.read_text() for path in dest.glob("group_vars/workers/*.yml"))
    return {part.split(" ")[0] for part in texts.split("{{ vault_")[1:]}


def mend_runners(case: Case, dest: Path) -> None:
    """What ADOPTED.md asks a person to do: name the built program."""
    path = dest / "group_vars/workers/fleet.yml"
    document = loaded(path)
    for name in case.runners:
        document["worker_fleet_services"][name]["command"] = ["node", "dist/built.js"]
    path.write_text(yaml.safe_dump(document))


def test_what_is_rendered_differs_from_the_file_exactly_as_listed(case: Case, tmp_path: Path) -> None:
    dest = tmp_path / "inventory"
    run = adopted(case, dest).must_pass()
    assert sorted(run["services"]) == sorted(case.services)
    assert IN_CLEAR not in run.output + "".join(path.read_text() for path in dest.rglob("*") if path.is_file())
    if case.runners:
        with pytest.raises(DriftguardError, match=f"{case.runners[0]}, key command: expected the built program"):
            rendered_here(dest, tmp_path)
        assert any(f"command of {case.runners[0]} starts" in one for one in run["todo"])
        mend_runners(case, dest)
    (rendered_by_ansible if case.name in ("anchors", "secrets") else rendered_here)(dest, tmp_path)
    result = tmp_path / "root" / f"adopt-{case.name}" / "revisions" / "1" / "compose.yml"
    values = [str(case.directory / ".env")] if (case.directory / ".env").exists() else []
    before, after = config(case.paths, case.directory, values), config([str(result)], tmp_path)
    assert sorted(after["services"]) == sorted(run["services"].values())
    for service, fleet_name in run["services"].items():
        listed = {one["key"] for one in run["changes"] if one["service"] == service}
        found = differing(before, service, after, fleet_name)
        mended = {"command"} if service in case.runners else set()
        assert [key for key in found if not _covered(key, {*listed, *mended, *BY_HOST})] == []
        assert [key for key in listed if not any(_covered(leaf, {key}) for leaf in found)] == []


def _covered(key: str, listed: set[str]) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in listed)


def entries(run: ModuleRun, service: str) -> dict[str, tuple[str, str]]:
    return {one["key"]: (one["kind"], one["reason"]) for one in run["changes"] if one["service"] == service}


def test_secrets_become_names_for_a_vault(tmp_path: Path) -> None:
    run = adopted(CASES["secrets"], tmp_path / "i").must_pass()
    services = loaded(tmp_path / "i/group_vars/workers/fleet.yml")["worker_fleet_services"]
    # Two services have different passwords of one name.
    assert services["reports"]["secrets"] == ["reports_smtp_password"]
    assert services["reports"]["environment"] == {
        "REPORT_STYLE": "brief", "SMTP_PASSWORD_FILE": "/run/secrets/reports_smtp_password"}
    assert set(services["invoices"]["secrets"]) == {
        "broker_password", "cert_key", "database_url", "invoices_smtp_password", "partner_password", "session_key",
        "payment_token", "vault_token"}
    redis = loaded(tmp_path / "i/group_vars/workers/redis.yml")
    assert redis == {
        "worker_redis_url": "redis://worker@redis:6379/2", "worker_redis_password": "{{ vault_redis_password }}"}
    assert any("secret in command of invoices" in one for one in run["todo"])
    assert any("build arguments NPM_TOKEN hold secrets" in one for one in run["todo"])


def test_what_cant_be_carried_over_is_named(tmp_path: Path) -> None:
    run = adopted(CASES["swarm"], tmp_path / "i").must_pass()
    assert run["left"] == {"postgres": "no worker by its image: nothing here builds it"}
    api = entries(run, "api-worker")
    assert loaded(tmp_path / "i/group_vars/workers/fleet.yml")["worker_fleet_services"]["api-worker"]["order"] == (
        "start-first")
    assert "deploy.update_config.order" not in api
    for key in ("deploy.update_config.parallelism", "deploy.update_config.failure_action", "deploy.placement",
                "configs./etc/shop/rules.yml", "stop_signal", "deploy.labels"):
        assert api[key][0] == "not carried over", key
    assert not any(key.startswith(("deploy.resources.limits.memory", "deploy.replicas", "networks")) for key in api)
    beat = entries(run, "Beat_Scheduler")
    assert run["services"]["Beat_Scheduler"] == "beat-scheduler"
    assert beat["networks.shared-data"][0] == "changed"
    assert "GUESS" in beat["deploy.resources.limits.memory"][1]
    nightly = entries(adopted(CASES["profiles"], tmp_path / "p").must_pass(), "nightly")
    for key in ("profiles", "ulimits", "sysctls", "extra_hosts", "hostname", "working_dir", "volumes./srv/jobs",
                "volumes./anonymous", "tmpfs./srv/app/cache"):
        assert nightly[key][0] == "not carried over", key


def test_variants_come_from_builds(tmp_path: Path) -> None:
    adopted(CASES["pipeline"], tmp_path / "i").must_pass()
    images = loaded(tmp_path / "i/group_vars/workers/images.yml")
    assert images["worker_source"]["dockerfile"] == "Dockerfile.worker"
    assert {name: one["build_args"] for name, one in images["worker_image_variants"].items()} == {
        "base": {"WITH_OCR": "true"}, "workerorchestrator": {"WITH_OCR": "false"}}
    services = loaded(tmp_path / "i/group_vars/workers/fleet.yml")["worker_fleet_services"]
    assert {name: one.get("variant", "base") for name, one in services.items()} == {
        "worker-ocr": "base", "worker-orchestrator": "workerorchestrator", "worker-scanner": "workerorchestrator"}
    assert services["worker-ocr"]["concurrency"] == 2


def test_variables_are_fixed_and_braces_are_no_templates(tmp_path: Path) -> None:
    run = adopted(CASES["anchors"], tmp_path / "i").must_pass()
    fixed = {"service": "mailer", "key": "image", "written": "shop/worker:${RELEASE}", "unset": ["RELEASE"]}
    assert fixed in run["fixed"]
    environment = loaded(tmp_path / "i/group_vars/workers/fleet.yml")["worker_fleet_services"]["mailer"]["environment"]
    assert environment["LOG_LEVEL"] == "debug"  # .env, not the default
    assert environment["GREETING"] == "costs $5, {{ not a template }}"


@pytest.mark.parametrize("environment", [
    '{DB_PASSWORD: "x${1-pass-hunter2", A: b}', '["DB_PASSWORD=x${1-pass-hunter2"]',
    '{URL: "redis://:x${1-pass-hunter2@h/"}', '{A_TOKEN: "x\\n${1-pass-hunter2"}'])
@pytest.mark.parametrize("module", ["worker_compose_adopt", "worker_compose_audit"])
def test_what_compose_quotes_of_a_secret_is_not_repeated(tmp_path: Path, module: str, environment: str) -> None:
    (tmp_path / "compose.yml").write_text(f"services:\n  w:\n    build: .\n    environment: {environment}\n")
    adopts = {"dest": str(tmp_path / "i"), "fleet": "shop"}
    more: dict[str, Any] = adopts if module.endswith("adopt") else {"fail_on": "never"}
    run = run_module(module, files=[str(tmp_path / "compose.yml")], **more)
    assert IN_CLEAR not in run.output
    if module.endswith("adopt"):
        run.must_fail("You may need to escape any $")


def test_the_callers_environment_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "compose.yml").write_text("services: {w: {build: ., environment: {A: '${A:-default}', B: }}}")
    for name in ("A", "B", "COMPOSE_FILE", "COMPOSE_PROFILES"):
        monkeypatch.setenv(name, "/the/callers")
    service = Project.open([str(tmp_path / "compose.yml")], None, []).resolved()["services"]["w"]
    assert service["environment"] == {"A": "default", "B": None}


def test_check_run_check_run_and_nothing_is_overwritten(tmp_path: Path) -> None:
    dest = tmp_path / "inventory"
    seen = []
    for check in (True, False, True, False):
        run = adopted(CASES["anchors"], dest, check=check).must_pass()
        seen.append((run.changed, dest.exists(), "diff" in run.result))
    assert seen == [(True, False, True), (True, True, True), (False, True, False), (False, True, False)]
    fleet = dest / "group_vars/workers/fleet.yml"
    fleet.write_text(mine := fleet.read_text() + "# mine\n")
    (dest / "hosts.yml").unlink()
    for check in (True, False):
        adopted(CASES["anchors"], dest, check=check).must_fail("group_vars/workers/fleet.yml with another content")
    assert fleet.read_text() == mine
    assert not (dest / "hosts.yml").exists()
    assert adopted(CASES["anchors"], dest, force=True).must_pass().changed
    assert fleet.read_text() != mine


@pytest.mark.parametrize(("content", "options", "said"), [
    ("services: {w: {build: ., image: '${X:?is asked for}'}}", {}, "is asked for"),
    ("services: {redis: {image: redis}}", {}, "a service that is a worker"),
    ("services: {w: {build: .}}", {"services": ["x"]}, "services of the compose file (w)"),
    ("services: {w: {build: .}}", {"memory": "much"}, "option memory"),
    ("services: {w: {build: .}}", {"fleet": "Not A Fleet"}, "option fleet"),
    ("services: {w: {build: .}, W: {build: .}}", {}, "a name of its own in the fleet"),
    ("services: {9w: {build: .}}", {}, "service '9w'"),
    ("services: {w: {build: ., env_file: /dev/zero}}", {}, "a regular file"),
    ("services: {w: {build: ., env_file: gone.env}}", {}, "gone.env"),
])
def test_what_cant_be_adopted_is_refused_and_nothing_is_written(
    tmp_path: Path, content: str, options: dict[str, Any], said: str,
) -> None:
    (tmp_path / "compose.yml").write_text(content)
    given: dict[str, Any] = {"fleet": "shop", "dest": str(tmp_path / "i"), **options}
    run_module("worker_compose_adopt", files=[str(tmp_path / "compose.yml")], **given).must_fail(said)
    assert not (tmp_path / "i").exists()


def test_the_playbook(tmp_path: Path) -> None:
    shutil.copytree(CASES["pipeline"].directory, tmp_path / "app")
    arguments = ["-e", f"adopt_compose={tmp_path}/app/docker-compose.workers.yml", "-e", f"adopt_dest={tmp_path}/i",
                 "-e", "adopt_fleet=shop"]
    playbook = PROJECT / "playbooks" / "adopt.yml"
    first = play(playbook, tmp_path, *arguments)
    assert first.returncode == 0, first.stdout
    assert "changed=1" in first.stdout
    assert "NOT CARRIED OVER volumes./var/run/docker.sock: the engine's raw socket" in first.stdout
    assert "changed=0" in play(playbook, tmp_path, *arguments).stdout
    refused = play(playbook, tmp_path)
    assert refused.returncode != 0
    assert "name them with -e adopt_compose=FILE" in " ".join(refused.stdout.split())
