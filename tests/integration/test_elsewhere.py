# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks of the collection that another host does: one that can't be reached, and a record that a shell reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest
import yaml
from ansible_collections.driftguard.workers.plugins.module_utils.host_record import HostRecords
from ansible_collections.driftguard.workers.plugins.module_utils.record import Record
from support.modules import PROJECT
from support.releases import release

A = release("a")
# What a task with an environment of its own does is done in no process of the playbook's, though the host is this one.
APART = {"environment": {"SOMETHING": "else"}}


def play(directory: Path, tasks: list[dict[str, Any]], host: str = "here") -> str:
    """Run tasks on this host, beside one that nobody reaches, or on that one; the output."""
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    nowhere = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    (directory / "inventory.yml").write_text(yaml.safe_dump({"all": {"hosts": {"here": here, "nowhere": nowhere}}}))
    book = [{"hosts": host, "gather_facts": False, "tasks": tasks}]
    (directory / "book.yml").write_text(yaml.safe_dump(book))
    environment = {
        **os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_SSH_RETRIES": "0", "ANSIBLE_LOCAL_TEMP": str(directory / "tmp")}
    command = [
        str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(directory / "inventory.yml"),
        str(directory / "book.yml")]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("module", ["worker_release", "worker_history", "worker_version_info"])
def test_one_that_cant_be_reached_fails_what_was_to_be_done_there(tmp_path: Path, module: str) -> None:
    """And the host that the task is of isn't called unreachable for it."""
    asked = {"fleet": "demo", "redis_url": "redis://127.0.0.1:1/0"}
    output = play(tmp_path, [{
        "block": [{f"driftguard.workers.{module}": asked, "delegate_to": "nowhere"}],
        "rescue": [{"ansible.builtin.debug": {"msg": "RESCUED {{ ansible_failed_result.subject }}"}}]}])
    assert "RESCUED nowhere, where this is done" in output
    assert "unreachable=0" in output


def test_a_rollout_that_could_not_even_begin_says_so(tmp_path: Path) -> None:
    """What was lost in its middle may have done anything; this has certainly done nothing."""
    rollout = {"fleet": "demo", "host": "nowhere", "generation": 7}
    output = play(tmp_path, [
        {"driftguard.workers.worker_steps": {"steps": [
            {"name": "rollout", "module": "worker_rollout", "options": rollout}]},
         "ignore_unreachable": True, "register": "done"},
        {"ansible.builtin.debug": {"msg": "DONE {{ done is unreachable }} {{ done.by_step }}"}},
    ], "nowhere")
    assert "DONE True {}" in output


def settled(records: HostRecords) -> None:
    """A host with a record, which a deploy has entered since."""
    records.enter(7, "run")
    records.write(Record("demo", 3, "settled", A, (A,)))


def damaged(records: HostRecords) -> None:
    """One whose two files disagree."""
    settled(records)
    (records.directory / "guard" / "guard.env").write_text("PHASE=other\n")


def unreadable(records: HostRecords) -> None:
    """One whose record is no text."""
    settled(records)
    (records.directory / "guard" / "guard.json").write_bytes(b"\xff\xfe")


def bare(_records: HostRecords) -> None:
    """One where nothing is."""


@pytest.mark.parametrize("make", [settled, damaged, unreadable, bare])
def test_a_record_that_a_shell_reads_is_the_modules(tmp_path: Path, make: Callable[[HostRecords], None]) -> None:
    make(HostRecords(tmp_path / "root", "demo"))
    read = {"driftguard.workers.worker_release": {"fleet": "demo", "root": str(tmp_path / "root"), "scope": "host"}}
    # A Python is only needed for what a shell can't say.
    python = {} if make is unreadable else {"vars": {"ansible_python_interpreter": "/no/python"}}
    show = "{{ here | combine({'invocation': none}) | to_json }}"
    play(tmp_path, [
        {**read, "register": "here"}, {**read, **APART, **python, "register": "apart"},
        *({"ansible.builtin.copy": {
            "content": show.replace("here", name), "dest": str(tmp_path / f"{name}.json"), "mode": "0600"}}
          for name in ("here", "apart"))])
    here, apart = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("here", "apart"))
    assert {**here, "invocation": None} == {**apart, "invocation": None}
    assert (here["generation_next"], bool(here["problem"])) == {
        settled: (8, False), damaged: (8, True), unreadable: (8, True), bare: (1, False)}[make]
