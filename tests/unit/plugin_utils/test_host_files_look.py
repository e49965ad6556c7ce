# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are read with a shell alone: what is there to the byte, and nothing where that can't be said."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Callable, Optional

import pytest
from ansible_collections.driftguard.workers.plugins.plugin_utils.host_files_look import parsed_files, read_command

SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]


def read(*paths: Path, shell: str = "dash") -> Optional[list[Optional[str]]]:
    command = [shell, *(["sh"] if shell == "busybox" else []), "-c", read_command(paths, os.getuid())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return parsed_files(f"a banner\n{done.stdout}", len(paths))


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("text", [
    "", "42 run\n", '{"a": "ü\\n\u2028"}\r\n\x00', "driftguard-file 1 -\n", "x" * 200_000])
def test_to_the_byte(tmp_path: Path, shell: str, text: str) -> None:
    path = tmp_path / "it's $(here) *"
    path.write_bytes(text.encode())
    assert read(path, tmp_path / "none", path, shell=shell) == [text, None, text]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("kind", ["directory", "dangling", "large", "binary", "pipe"])
def test_what_is_no_plain_text_isnt_taken_for_something(tmp_path: Path, shell: str, kind: str) -> None:
    path = tmp_path / "it"
    make: dict[str, Callable[[], object]] = {
        "directory": path.mkdir, "dangling": lambda: path.symlink_to("nowhere"), "pipe": lambda: os.mkfifo(path),
        "large": lambda: path.write_bytes(b"x" * 300_000), "binary": lambda: path.write_bytes(b"\xff\xfe")}
    make[kind]()
    assert read(tmp_path / "none", path, shell=shell) is None


def test_another_user_says_nothing(tmp_path: Path) -> None:
    command = ["sh", "-c", read_command([tmp_path / "none"], os.getuid() + 1)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")


@pytest.mark.parametrize("said", [
    "", "nonsense", "driftguard-file 0 -", "driftguard-file 0 -\ndriftguard-file 1 ?", "driftguard-file 0 -\n1 -",
    "driftguard-file 0 -\ndriftguard-file 1 =xy", "driftguard-file 0 -\ndriftguard-file 2 -",
    "driftguard-file 0 - x\ndriftguard-file 1 -"])
def test_what_is_no_answer_is_none(said: str) -> None:
    assert parsed_files(said, 2) is None
