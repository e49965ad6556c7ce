# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules through Ansible: one result, in the task's process and in one of their own.

Where worker_inventory and worker_evidence run in the task's process they have an interpreter that doesn't exist, so
that one that was started anyhow fails. Of those that need a host's libraries, Ansible says where they run.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Optional

import pytest
import yaml
from support.releases import release
from support.role_run import LOCAL, Ansible

INVENTORY = "driftguard.workers.worker_inventory"
EVIDENCE = "driftguard.workers.worker_evidence"
NOWHERE = {"ansible_python_interpreter": "/nonexistent/python"}
# With an environment of its own a task can't run in this process; the module reads no such variable.
APART = {"environment": {"WORKERS_TEST": "apart"}}



class Unsafe(str):
    """Text that Ansible must not read as a template."""

    __slots__ = ()


class Dumper(yaml.SafeDumper):
    """Writes it as such."""


Dumper.add_representer(Unsafe, lambda dumper, text: dumper.represent_scalar("!unsafe", str(text)))

FLEET: dict[str, Any] = {
    "fleet": "demo", "hosts": {"one": ["alpha"], "two": None, "three": False},
    "services": {"alpha": None, "beta": {"replicas": 2}}, "defaults": {"memory": "64M"}}
GOOD = {"status": "good", "stage": "roll", "moved": True, "message": ""}
BAD = {"status": "bad", "stage": "roll", "moved": True, "message": Unsafe("crashed {{ 1 + 1 }} {% nonsense")}
DECIDE: dict[str, Any] = {"fleet": "demo", "hosts": ["one", "two", "away"], "outcomes": {"one": GOOD, "two": GOOD}}
WRITE: dict[str, Any] = {
    **DECIDE, "state": "written", "directory": "evidence", "decision": "keep",
    "run": {"id": "r1", "action": "deploy", "started": "2024-01-02T03:04:05Z", "generation": 7},
    "release": {"fleet": "demo", "release_id": "a.b", "sha": "c" * 40, "created": "{{ text }}", "variants": {}},
    "details": {"one": {"compose": {"revision": "{{ text }}", "changed": True}}}}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "good": (INVENTORY, {**FLEET, "batches": [1, "50%"], "single_engine": "no"}, {}),
    "all_from_variables": (INVENTORY, {name: f"{{{{ given.{name} }}}}" for name in FLEET}, {}),
    "keys_that_are_no_text": (INVENTORY, {**FLEET, "services": {1: None, False: None}}, {}),
    "no_hosts": (INVENTORY, {**FLEET, "hosts": {}}, {}),
    "bad_spec": (INVENTORY, {**FLEET, "services": {"alpha": {"memori": "1M", "replicas": "x"}}}, {}),
    "hosts_that_are_text": (INVENTORY, {**FLEET, "hosts": "one"}, {}),
    "missing": (INVENTORY, {"fleet": "demo", "hosts": {}}, {}),
    "unsupported": (INVENTORY, {**FLEET, "more": "{{ text }}"}, {}),
    "hidden": (INVENTORY, FLEET, {"no_log": True}),
    "decided": (EVIDENCE, DECIDE, {}),
    "text_with_braces": (EVIDENCE, {**WRITE, "outcomes": {"one": "{{ broken }}", "two": GOOD}}, {}),
    "bad_choice": (EVIDENCE, {**DECIDE, "state": "{{ text }}"}, {}),
    "no_directory": (EVIDENCE, {**WRITE, "directory": "{{ omit }}"}, {}),
    "no_way": (EVIDENCE, {**WRITE, "directory": "/proc/none"}, {}),
    "odd_outcomes": (EVIDENCE, {**DECIDE, "outcomes": {"one": 5}}, {}),
    "predicted": (EVIDENCE, WRITE, {"check_mode": True}),
    "difference": (EVIDENCE, WRITE, {"diff": True}),
    "written": (EVIDENCE, WRITE, {}),
}
LOCK = "driftguard.workers.worker_lock"
SECRET = "s3cret-of-redis"
NO_REDIS: dict[str, Any] = {"fleet": "demo", "redis_url": "redis://127.0.0.1:1/0", "redis_password": SECRET}
RECORD: dict[str, Any] = {
    "fleet": "demo", "scope": "host", "state": "rolling", "target": release("a").as_result(), "generation": 1,
    "root": "{{ text }}"}
PROOF = {**NO_REDIS, "host": "here", "services": {"alpha": None}, "redis_password": "{{ password }}"}
STEPS = {"steps": [
    {"name": "rolling", "module": "worker_release", "options": {**RECORD, "root": "{{ root }}/{{ where }}"}},
    {"name": "proof", "module": "worker_version_assert", "options": PROOF}]}
# These need a host's libraries.
HOST_CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "no_redis": (LOCK, {**NO_REDIS, "state": "read"}, {}),
    "no_token": (LOCK, {**NO_REDIS, "state": "renewed"}, {}),
    "no_history": ("driftguard.workers.worker_history", NO_REDIS, {}),
    "no_versions": ("driftguard.workers.worker_version_info", {**NO_REDIS, "hosts": "one,two"}, {}),
    "no_users": ("driftguard.workers.worker_redis_user", {**NO_REDIS, "state": "pruned", "services": 5}, {}),
    "no_guard": ("driftguard.workers.worker_guard", {"fleet": "demo", "files": {"../x": "text"}}, {}),
    "no_proof": ("driftguard.workers.worker_version_assert", PROOF, {}),
    "secret_in_the_url": (LOCK, {**NO_REDIS, "redis_url": f"redis://:{SECRET}@127.0.0.1:1/0", "state": "read"}, {}),
    "looked_at": ("driftguard.workers.worker_release", RECORD, {"check_mode": True, "diff": True}),
    "steps_looked_at": ("driftguard.workers.worker_steps", STEPS, {"check_mode": True, "diff": True}),
    "steps_taken": ("driftguard.workers.worker_steps", STEPS, {"diff": True}),
}
# Ansible's own additions to whatever returns a path.
OF_A_PATH = {"uid", "gid", "owner", "group", "mode", "state", "size", "secontext"}
REFUSED = {
    "keys_that_are_no_text", "no_hosts", "bad_spec", "hosts_that_are_text", "missing", "unsupported",
    "bad_choice", "no_directory", "no_way", "odd_outcomes", *HOST_CASES} - {"looked_at"}


def play(
    directory: Path, tasks: dict[str, dict[str, Any]], hosts: Optional[dict[str, Any]] = None, **variables: Any,
) -> tuple[dict[str, Any], str]:
    """Run a playbook of single tasks on the host here, failed or not; their results by name, and the output.

    :param hosts: more of the inventory's, by name.
    """
    path, results = directory / "book.yml", directory / "results.json"
    shown = "{{ {" + ", ".join(f"'{name}': {name}" for name in tasks) + "} | to_json }}"
    keep = {"content": shown, "dest": str(results), "mode": "600"}
    book = [{"hosts": "here", "gather_facts": False, "vars": variables, "tasks": [
        *({"register": name, "ignore_errors": True, **task} for name, task in tasks.items()),
        {"ansible.builtin.copy": keep, "check_mode": False, "diff": False, "no_log": True}]}]
    path.write_text(yaml.dump(book, Dumper=Dumper, sort_keys=False))
    output = Ansible(directory, {"here": LOCAL, **(hosts or {})}).playbook(path, "-vvv").output
    assert results.exists(), output
    assert "Traceback" not in output
    return dict(json.loads(results.read_text())), output


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the playbook is, and its records."""
    return tmp_path_factory.mktemp("book")


@pytest.fixture(scope="module")
def played(directory: Path) -> tuple[dict[str, Any], str]:
    """Every case in the task's process as ``here_…`` and in one of its own as ``apart_…``; the output."""
    tasks = {}
    for name, (module, arguments, keywords) in CASES.items():
        tasks[f"here_{name}"] = {module: arguments, **keywords, "vars": NOWHERE}
        tasks[f"apart_{name}"] = {module: arguments, **keywords, **APART}
    for name, (module, arguments, keywords) in HOST_CASES.items():
        tasks[f"here_{name}"] = {module: arguments, **keywords, "vars": {"where": "here"}}
        tasks[f"apart_{name}"] = {module: arguments, **keywords, "vars": {"where": "apart"}, **APART}
    given = {name: f"{{{{ again.{name} }}}}" for name in FLEET}
    return play(
        directory, tasks, given=given, again=FLEET, text="some text", broken=BAD, password=SECRET, root=str(directory))


@pytest.fixture(scope="module")
def pairs(played: tuple[dict[str, Any], str]) -> dict[str, Any]:
    """The results."""
    return played[0]


def same(value: dict[str, Any]) -> dict[str, Any]:
    """Without what differs between two runs of whatever kind."""
    text = re.sub(r"\d{4}-?\d\d-?\d\dT\d\d:?\d\d:?\d\dZ(-deploy-\d+)?", "NOW", json.dumps(value, sort_keys=True))
    text = text.replace("/apart/", "/here/").replace('/apart"', '/here"')
    return dict(json.loads(text))


@pytest.mark.parametrize("name", [*CASES, *HOST_CASES])
def test_a_task_returns_the_same(pairs: dict[str, Any], name: str) -> None:
    here, apart = pairs[f"here_{name}"], pairs[f"apart_{name}"]
    added = OF_A_PATH if "path" in apart else set()
    assert same(here) == same({key: value for key, value in apart.items() if key not in added})
    assert bool(here["failed"]) == (name in REFUSED), here


def test_no_secret_is_said(played: tuple[dict[str, Any], str]) -> None:
    results, output = played
    assert SECRET not in output + json.dumps(results)
    assert output.count("VALUE_SPECIFIED_IN_NO_LOG_PARAMETER") >= 2 * len(HOST_CASES) - 6


@pytest.mark.parametrize("module", sorted({module for module, *_rest in HOST_CASES.values()}))
def test_each_ran_here_and_apart(played: tuple[dict[str, Any], str], module: str) -> None:
    cases = sum(module == other for other, *_rest in HOST_CASES.values())
    assert played[1].count(f"{module} runs in this process") == cases


def test_steps_that_were_taken(pairs: dict[str, Any], directory: Path) -> None:
    records = [json.loads((directory / where / "demo/guard/guard.json").read_text()) for where in ("here", "apart")]
    assert same(records[0]) == same(records[1])
    assert [pairs["here_steps_taken"][key] for key in ("changed", "failed_step")] == [True, "proof"]


def test_the_record_is_the_same(pairs: dict[str, Any], directory: Path) -> None:
    here, apart = (Path(pairs[f"{where}_written"]["path"]) for where in ("here", "apart"))
    assert (here == apart, here.is_absolute()) == (False, False)
    records = [json.loads((directory / path).read_text()) for path in (here, apart)]
    assert same(records[0]) == same(records[1])
    assert records[0]["hosts"]["one"]["compose"]["revision"] == "some text"
    assert [path.stat().st_mode & 0o777 for path in (directory / here, directory / here.parent)] == [0o600, 0o700]


def test_text_of_a_result_is_no_template(pairs: dict[str, Any]) -> None:
    assert any(BAD["message"] in line for line in pairs["here_text_with_braces"]["summary"])


def test_check_mode_writes_nothing(pairs: dict[str, Any], directory: Path) -> None:
    assert pairs["here_predicted"]["path"] == ""
    written = [pairs[f"{where}_{name}"]["path"] for where in ("here", "apart")
               for name in ("written", "difference", "text_with_braces")]
    assert sorted(str(path.relative_to(directory)) for path in directory.glob("evidence/**/*.json")) == sorted(written)


def test_where_a_task_runs(tmp_path: Path) -> None:
    elsewhere = {"ansible_connection": "ssh", "ansible_ssh_common_args": "-oProxyCommand=false"}
    decide = {EVIDENCE: DECIDE}
    root, nobody = {"become": True, "become_method": "su"}, {"become_user": "nobody"}
    results, output = play(tmp_path, {
        "plain": {**decide, "vars": NOWHERE},
        "delegated": {**decide, "vars": {**NOWHERE, "ansible_connection": "local"}, "delegate_to": "127.0.0.1"},
        "empty_environment": {**decide, "vars": NOWHERE, "environment": {}},
        "own_environment": {**decide, "vars": NOWHERE, **APART},
        "becoming": {**decide, "vars": NOWHERE, **root, **nobody},
        "becoming_the_same": {**decide, "vars": NOWHERE, **root},
        "other_host": {**decide, "vars": {**NOWHERE, **elsewhere}, "ignore_unreachable": True},
        "asynchronous": {**decide, "async": 60, "poll": 1},
        "looped": {EVIDENCE: WRITE, "loop": [1, 2]},
    }, text="some text")
    assert {name: bool(result.get("failed") or result.get("unreachable")) for name, result in results.items()} == {
        "plain": False, "delegated": False, "empty_environment": False, "own_environment": True, "becoming": True,
        "becoming_the_same": False, "other_host": True, "asynchronous": False, "looped": False}
    assert results["other_host"].get("unreachable")
    assert results["asynchronous"]["decision"] == results["plain"]["decision"]
    assert len({item["path"] for item in results["looped"]["results"]}) == 2
    assert output.count(f"{EVIDENCE} runs in this process") == 4


def test_where_a_task_runs_that_needs_libraries(tmp_path: Path) -> None:
    """In a process of the interpreter that the host has, unless that is this one."""
    read = {LOCK: {**NO_REDIS, "state": "read"}}
    ours, other = (
        {"ansible_python_interpreter": python} for python in ("{{ ansible_playbook_python }}", "/bin/python3"))
    tasks: dict[str, dict[str, Any]] = {
        "ours": {**read, "vars": ours}, "another": {**read, "vars": other}, "there": {**read, "delegate_to": "there"},
        "from_there": {**read, "delegate_to": "here", "vars": ours}}
    ran = {}
    for name, task in tasks.items():
        (tmp_path / name).mkdir()
        results, output = play(tmp_path / name, {name: task}, hosts={"there": {**LOCAL, **other}})
        assert results[name]["failed"]
        ran[name] = f"{LOCK} runs in this process" in output
    assert ran == {"ours": True, "another": False, "there": False, "from_there": True}
