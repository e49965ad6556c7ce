# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guard cases of files/guard/contract.json as files and expectations; its guard.caseFormat explains them."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence

GUARDS = Path(__file__).parents[2] / "files" / "guard"
CONTRACT: dict[str, Any] = json.loads((GUARDS / "contract.json").read_text(encoding="utf-8"))
GUARD: dict[str, Any] = CONTRACT["guard"]
FIXTURES: dict[str, Any] = GUARD["fixtures"]
CASES: list[dict[str, Any]] = GUARD["cases"]
FATAL = "[version] FATAL: "
WARNING = "[version] WARNING: "
WARNING_END = " (not enforced outside production)"
STARTED = "[stub] started"


@dataclass(frozen=True)
class Files:
    """Where a case's files are; ``record`` is the directory of the host record, None where none is mounted."""

    image: Path
    record: Optional[Path]


@dataclass(frozen=True)
class Outcome:
    """What a guard did."""

    status: int
    stdout: str
    stderr: str


def import_guard() -> Any:
    """The Python guard as a module, the way a worker loads it: from the file, not from a path of its own."""
    spec = importlib.util.spec_from_file_location("version_guard", GUARDS / "version_guard.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def environment_of(case: Mapping[str, Any]) -> dict[str, str]:
    changes = case.get("environment", {})
    merged = {**FIXTURES["environment"], **changes}
    return {name: text_of(value, {}) for name, value in merged.items() if value is not None}


def command_of(case: Mapping[str, Any]) -> list[str]:
    return list(case.get("command", FIXTURES["command"]))


def render_json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, sort_keys=True, indent=2) + "\n"


def render_env(record: Mapping[str, Any]) -> str:
    def pair(release: Mapping[str, str]) -> str:
        return f"{release['releaseId']}:{release['sha']}"

    lines = [f"{key.upper()}={record[key]}" for key in ("schema", "fleet", "generation", "phase")]
    lines += [f"TARGET={pair(record['target'])}", *(f"ALLOWED={pair(entry)}" for entry in record["allowed"])]
    return "\n".join(lines) + "\n"


def text_of(content: Any, fixtures: Mapping[str, str]) -> str:
    """The text that a content of the contract stands for."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(text_of(part, fixtures) for part in content)
    if "repeat" in content:
        return str(content["repeat"]) * int(content["times"])
    text = fixtures[content["fixture"]]
    for how, *details in content.get("edits", []):
        if how == "keep":
            text = text[:details[0]]
        else:
            assert details[0] in text, f"an edit that changes nothing: {details}"
            text = text.replace(details[0], details[1], 1 if how == "first" else -1)
    return text


def write_files(case: Mapping[str, Any], where: Path) -> Files:
    """Make a case's image file and host record below a directory that everybody may read."""
    image_directory = where / "image"
    image_directory.mkdir(parents=True)
    image = image_directory / "image.json"
    wanted = case.get("imageFile", "new")
    if isinstance(wanted, str) and wanted in FIXTURES["imageFiles"]:
        wanted = {"fixture": wanted}
    _write(image, wanted, FIXTURES["imageFiles"])
    record = _write_record(case.get("record"), where / "record")
    return Files(image, record)


def _write_record(record: Any, directory: Path) -> Optional[Path]:
    if record is None:
        return None
    directory.mkdir()
    if isinstance(record, str):
        record = {"fixture": record, "set": {}}
    if "fixture" in record:
        whole = {**FIXTURES["records"][record["fixture"]], **record["set"]}
        record = {"json": render_json(whole), "env": render_env(whole)}
    records = FIXTURES["records"]
    _write(directory / "guard.json", record["json"], {name: render_json(records[name]) for name in records})
    _write(directory / "guard.env", record["env"], {name: render_env(records[name]) for name in records})
    return directory


def _write(path: Path, content: Any, fixtures: Mapping[str, str]) -> None:
    special = content.get("special") if isinstance(content, dict) else None
    if content is None:
        return
    if special == "directory":
        path.mkdir()
    elif special == "dangling link":
        path.symlink_to("nowhere")
    elif special == "named pipe":
        os.mkfifo(path)
    elif special == "link":
        target = path.with_name("target")
        target.write_bytes(fixtures["new"].encode())
        path.symlink_to(target.name)
    elif special == "unreadable":
        path.touch(mode=0o000)
    else:
        path.write_bytes(text_of(content, fixtures).encode())


def needs_other_user(case: Mapping[str, Any]) -> bool:
    """Whether a file without permissions is part of it: root would read that all the same."""
    return '"unreadable"' in json.dumps([case.get("imageFile"), case.get("record")])


def reads_options(case: Mapping[str, Any]) -> bool:
    """Whether Node itself takes part: it reads NODE_OPTIONS before a guard that it is given as its program.

    With --require the guard comes first; test_guard_node.py runs these cases so.
    """
    return "NODE_OPTIONS" in case.get("environment", {})


def copy_guards(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name in CONTRACT["names"]["guardFiles"]:
        shutil.copy(GUARDS / name, directory / name)
        (directory / name).chmod(0o755)


def stub_names() -> list[str]:
    """The programs that the cases start, each to be found in PATH."""
    return sorted({command_of(case)[0] for case in CASES if "/" not in command_of(case)[0]})


def write_stubs(directory: Path) -> None:
    """Programs that say they were started, and with which arguments, under every name that a case starts."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in stub_names():
        stub = directory / name
        stub.write_text(f"#!/bin/sh\nprintf '%s\\n' '{STARTED}' \"$@\"\n", encoding="utf-8")
        stub.chmod(0o755)


def complaints(case: Mapping[str, Any], outcome: Outcome) -> Sequence[str]:
    """Everything in which an outcome isn't what the case expects; empty when the guard did right."""
    expect = case["expect"]
    fatal = [line[len(FATAL):] for line in outcome.stderr.splitlines() if line.startswith(FATAL)]
    warnings = [line[len(WARNING):] for line in outcome.stderr.splitlines() if line.startswith(WARNING)]
    checks = {
        f"exit status {expect['status']}": outcome.status == expect["status"],
        f"FATAL: {expect.get('fatal')}": fatal == ([expect["fatal"]] if "fatal" in expect else []),
        f"WARNING: {expect.get('warnings')}": warnings == [w + WARNING_END for w in expect.get("warnings", [])],
        "started exactly if allowed": _started(case, outcome) == (expect["status"] == 0),
        "every line begins with [version]": _is_clean(outcome.stderr) and _is_clean(outcome.stdout.split(STARTED)[0]),
    }
    checks.update({f"stdout: {text}": text in outcome.stdout for text in expect.get("stdout", [])})
    checks.update({f"stderr: {text}": text in outcome.stderr for text in expect.get("stderr", [])})
    return [f"not so: {check}" for check, holds in checks.items() if not holds]


def _started(case: Mapping[str, Any], outcome: Outcome) -> bool:
    arguments = "".join(argument + "\n" for argument in command_of(case)[1:])
    return outcome.stdout.endswith(f"{STARTED}\n{arguments}")


def _is_clean(text: str) -> bool:
    return all(line.startswith("[version] ") and line.isascii() and line.isprintable() for line in text.splitlines())
