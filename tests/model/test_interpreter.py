# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The interpreter does what ansible-playbook does: one playbook, run by both, says the same in the same order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from model import playbook
from model.interpreter import Inventory, Run
from model.playbook import PROJECT, Task

PLAY = """
- hosts: "{{ worker_group | default('workers') }}"
  gather_facts: false
  ignore_unreachable: true
  vars: {own: "play {{ inventory_hostname }}", weak: play}
  tasks:
    - ansible.builtin.include_role: {name: driftguard.workers.probe, tasks_from: first}
      vars: {given: "param {{ from_host }}"}
    - ansible.builtin.include_role: {name: driftguard.workers.probe, tasks_from: batch}
      loop: [[h1], [h2, h3]]
      loop_control: {loop_var: batch}
    - ansible.builtin.debug: {msg: "{{ inventory_hostname }} outside {{ weak }} {{ strong | default('none') }}"}
- hosts: "{{ worker_group | default('workers') }}"
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: driftguard.workers.probe, tasks_from: last}
"""
FIRST = """
- name: Facts over the variables of blocks, and below those of includes
  vars: {fact: block, given: block}
  block:
    - ansible.builtin.set_fact: {fact: "fact of {{ inventory_hostname }}", given: fact, seen: {status: going}}
    - ansible.builtin.debug: {msg: "{{ inventory_hostname }} {{ fact }} {{ given }} {{ strong }} {{ weak }} {{ own }}"}
    - ansible.builtin.include_tasks: inner.yml
      vars: {fact: "of the include in {{ from_host }}"}
      when: inventory_hostname != 'h2'
- name: A host that can't be reached rescues nothing
  block:
    - driftguard.workers.worker_release: {fleet: demo, root: "{{ root }}", scope: host}
      register: record
    - ansible.builtin.set_fact: {seen: "{{ seen | combine({'status': 'gone'}) }}"}
      when: record is unreachable
    - ansible.builtin.debug: {msg: "{{ inventory_hostname }} {{ record is failed }} {{ record is unreachable }}"}
  rescue:
    - ansible.builtin.debug: {msg: "{{ inventory_hostname }} rescued for nothing"}
- name: A condition of a block is asked for each of its tasks, also of those that rescue
  when: seen.status != 'bad'
  block:
    - ansible.builtin.set_fact:
        lazy: "{{ hostvars['h1'].seen.status }} {{ hostvars['h1'].strong | default('no role') }}"
    - ansible.builtin.assert: {that: inventory_hostname != 'h1', fail_msg: "no {{ inventory_hostname }}", quiet: true}
    - ansible.builtin.debug: {msg: "{{ inventory_hostname }} still here, {{ lazy }}"}
    - ansible.builtin.set_fact: {never: "{{ nothing.at.all }}"}
  rescue:
    - ansible.builtin.debug:
        msg: "{{ inventory_hostname }} rescued, {{ ansible_failed_result.msg is search('no h1') }}"
    - ansible.builtin.set_fact: {seen: "{{ seen | combine({'status': 'bad'}) }}"}
    - ansible.builtin.debug: {msg: "{{ inventory_hostname }} never said"}
- ansible.builtin.debug:
    msg: >-
      {{ inventory_hostname }} {{ never | default('undefined') }} {{ hostvars['h9'].x.y | default('no host') }}
      {{ ansible_play_hosts_all | map('extract', hostvars) | map(attribute='seen') | map(attribute='status')
         | reject('in', ['going']) | list | length }}
- driftguard.workers.worker_release: {fleet: demo, root: "{{ root }}", scope: host}
  register: skipped
  when: inventory_hostname == 'nobody'
- ansible.builtin.debug:
    msg: "{{ inventory_hostname }} {{ skipped is skipped }} {{ skipped.record | default('none') }}"
"""
INNER = """
- ansible.builtin.debug: {msg: "{{ inventory_hostname }} inner {{ fact }} {{ given }}"}
"""
BATCH = """
- ansible.builtin.include_tasks: one.yml
  when: inventory_hostname in batch
"""
ONE = """
- ansible.builtin.debug: {msg: "{{ inventory_hostname }} of {{ batch | join(',') }}"}
- ansible.builtin.debug: {msg: "once, by {{ inventory_hostname }}"}
  run_once: true
"""
LAST = """
- name: No rescue
  block:
    - ansible.builtin.fail: {msg: "{{ inventory_hostname }} fails"}
      when: inventory_hostname == 'h2'
    - ansible.builtin.fail: {msg: ignored}
      failed_when: false
      register: quiet
    - ansible.builtin.debug: {msg: "{{ inventory_hostname }} goes on, {{ quiet is failed }}"}
- ansible.builtin.debug: {msg: "{{ inventory_hostname }} {{ ansible_play_hosts | join(',') }}"}
"""
FILES = {"first": FIRST, "inner": INNER, "batch": BATCH, "one": ONE, "last": LAST}
HOSTS = ("h1", "h2", "h3")
SAID = 31


class _World:
    """Where h3 can't be reached, and modules find nothing."""

    def step(self, run: Run, host: str, task: Task) -> None:
        return None

    def reaches(self, run: Run, host: str) -> bool:
        return host != "h3"

    def module(self, run: Run, host: str, name: str, arguments: dict[str, Any], check_mode: bool) -> dict[str, Any]:
        return {"changed": False, "record": None}

    def functions(self) -> Mapping[str, Any]:
        return {}


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """A collection with the role ``probe``, and this one's modules."""
    place = tmp_path / "ansible_collections/driftguard/workers"
    role = place / "roles/probe"
    parts: dict[str, dict[str, Any]] = {
        "defaults": {"weak": "default", "strong": "default"}, "vars": {"strong": "role"}, "meta": {"dependencies": []}}
    for part, content in parts.items():
        (role / part).mkdir(parents=True)
        (role / part / "main.yml").write_text(yaml.safe_dump(content))
    (role / "tasks").mkdir()
    for name, text in FILES.items():
        (role / "tasks" / f"{name}.yml").write_text(text)
    (place / "plugins").symlink_to(PROJECT / "plugins")
    (tmp_path / "play.yml").write_text(PLAY)
    return place


def _variables(root: Path) -> dict[str, dict[str, Any]]:
    return {host: {"from_host": f"inventory of {host}", "root": str(root)} for host in HOSTS}


def _really(directory: Path) -> tuple[int, list[str]]:
    local: dict[str, Any] = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts = {host: {**values, **local} for host, values in _variables(directory).items()}
    hosts["h3"].update(ansible_connection="ssh", ansible_host="127.0.0.1", ansible_port=1)
    inventory = directory / "inventory.yml"
    inventory.write_text(yaml.safe_dump({"workers": {"hosts": hosts}}))
    environment = {
        **os.environ, "ANSIBLE_COLLECTIONS_PATH": str(directory), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORKS": "1",
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "ANSIBLE_LOCAL_TEMP": str(directory / "tmp")}
    environment.pop("ANSIBLE_CONFIG", None)
    program = Path(sys.executable).parent / "ansible-playbook"
    done = subprocess.run(
        [str(program), "-i", str(inventory), str(directory / "play.yml")], cwd=directory, env=environment,
        capture_output=True, text=True, check=False)
    found = re.findall(r'^ok: \[(\w+)\] => \{\s+"msg": "(.*)"\s+\}', done.stdout, re.MULTILINE)
    assert found, done.stdout + done.stderr
    return done.returncode, [text for _host, text in found]


def test_both_say_the_same(tmp_path: Path, collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playbook, "PROJECT", collection)
    run = Run(_World(), Inventory(_variables(tmp_path)), {})
    mine = run.playbook(playbook.plays(tmp_path / "play.yml"))
    said = [text for text in mine.said if ": " not in text]
    status, really = _really(tmp_path)
    assert said == really
    assert len(said) == SAID
    assert mine.status == status == 2
