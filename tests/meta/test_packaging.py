# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is declared in two places agrees, and the built collection has what it should and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from meta.rules import packaging, text
from meta.rules.files import ROOT, all_files, below, read

PUBLISHED = {
    "CHANGELOG.md", "FILES.json", "LICENSES", "MANIFEST.json", "README.md", "CONTRIBUTING.md", "changelogs", "docs",
    "files", "inventories", "meta", "playbooks", "plugins", "roles", "tests"}
# tests/apps stands for other people's applications, which are under whatever licence they like.
LICENCES = {"": "GPL-3.0-or-later", "files/worker/": "MIT", "files/guard/": "MIT", "tests/apps/": "MIT"}
LOCKS = [*below("requirements/", suffix=".txt"), *below("files/worker/", suffix=".lock")]
PROGRAMS = (".ci/run", "tools/setup", "tools/python", "files/guard/version_guard.sh")


def galaxy() -> dict[str, Any]:
    """galaxy.yml."""
    return dict(yaml.safe_load(read("galaxy.yml")))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Paths in the archive that ``ansible-galaxy collection build`` makes."""
    place = tmp_path_factory.mktemp("built")
    program = str(Path(sys.executable).with_name("ansible-galaxy"))
    command = [program, "collection", "build", "--output-path", str(place)]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with tarfile.open(next(place.glob("*.tar.gz"))) as archive:
        return [member.name for member in archive.getmembers() if member.isfile()]


def test_the_built_collection_has_no_junk(published: list[str]) -> None:
    assert {path.split("/")[0] for path in published} - PUBLISHED == set()
    assert sorted(set(published) - {*all_files(), "MANIFEST.json", "FILES.json"}) == []


def test_the_built_collection_has_what_its_users_need(published: list[str]) -> None:
    needed = below("plugins/", "roles/", "playbooks/", "files/", "LICENSES/", "meta/")
    assert sorted(set(needed) - set(published)) == []


def test_the_build_ignores_what_git_ignores() -> None:
    assert packaging.uncovered(read(".gitignore").splitlines(), galaxy()["build_ignore"]) == []


def test_licences_have_their_text() -> None:
    texts = {Path(path).stem for path in below("LICENSES/")}
    assert texts == set(galaxy()["license"]) == set(LICENCES.values())


def test_files_name_their_licence() -> None:
    paths = below("plugins/", "roles/", "playbooks/", "tools/", "tests/", "files/", "molecule/", suffix=".py")
    texts = {path: read(path) for path in (*paths, *PROGRAMS)}
    assert packaging.stale_licences(texts, LICENCES) == []


def test_versions_agree() -> None:
    version = str(galaxy()["version"])
    changes = yaml.safe_load(read("changelogs/changelog.yaml"))
    assert version in changes["releases"]
    oldest = re.search(r">=\s*(\d+\.\d+)", str(yaml.safe_load(read("meta/runtime.yml"))["requires_ansible"]))
    locked = next(iter(packaging.pins(read("requirements/controller.txt"))["ansible-core"]))[0]
    assert oldest
    assert tuple(map(int, oldest.group(1).split("."))) <= tuple(map(int, locked.split(".")[:2]))


def test_every_change_is_in_the_changelog() -> None:
    fragments = {Path(path).name for path in below("changelogs/fragments/")}
    assert fragments, "changelogs/fragments is empty: say there what changed"
    releases = yaml.safe_load(read("changelogs/changelog.yaml"))["releases"]
    told = {fragment for release in releases.values() for fragment in release.get("fragments", [])}
    assert fragments - told == set(), "run make changelog"


@pytest.mark.parametrize("path", LOCKS)
def test_a_lock_names_hashes_and_no_place(path: str) -> None:
    lock = read(path)
    assert packaging.pins(lock)
    assert packaging.without_hash(lock) == []
    assert "://" not in lock
    assert list(text.forbidden(lock)) == []


def test_locks_of_one_environment_agree() -> None:
    assert packaging.lock_conflicts(read("requirements/controller.txt"), read("requirements/dev.txt")) == []
    assert packaging.lock_conflicts(read("files/worker/requirements.lock"), read("requirements/dev.txt")) == []


def test_every_wanted_package_is_locked() -> None:
    for source in ROOT.glob("requirements/*.in"):
        wanted = re.findall(r"^([A-Za-z0-9][A-Za-z0-9_-]*)", source.read_text(), re.MULTILINE)
        locked = packaging.pins(source.with_suffix(".txt").read_text())
        assert [name for name in wanted if name.lower().replace("_", "-") not in locked] == []


def test_a_sanity_rule_is_ignored_for_a_reason() -> None:
    ignored = [line for path in below("tests/sanity/", suffix=".txt") for line in read(path).splitlines()]
    assert [line for line in ignored if len(line.partition(" # ")[2].split()) < 5] == []


def test_make_help_lists_every_target() -> None:
    assert list(packaging.undocumented_targets(read("Makefile"))) == []


@pytest.mark.parametrize("path", PROGRAMS)
def test_a_program_can_be_started(path: str) -> None:
    assert os.access(ROOT / path, os.X_OK)


def test_bash_is_strict() -> None:
    scripts = [path for path in PROGRAMS if "bash" in read(path).partition("\n")[0]]
    assert scripts
    assert [path for path in scripts if "\nset -euo pipefail\n" not in read(path)] == []


def test_gaps_between_the_ignore_lists_are_found() -> None:
    ignored = ["# x", ".venv/", "*.pyc", "a/b/", "gone/", ""]
    assert packaging.uncovered(ignored, [".venv", "*.pyc", "a"]) == ["gone"]


LOCK = "a==1.0 \\\n    --hash=sha256:00\nb-c==2 ; python_version < '3.9' \\\n    --hash=sha256:00\n    # via a\nd==3\n"


def test_pins_are_read() -> None:
    assert packaging.pins(LOCK) == {"a": {("1.0", "")}, "b-c": {("2", "python_version < '3.9'")}, "d": {("3", "")}}


def test_pins_without_hash_are_found() -> None:
    assert packaging.without_hash(LOCK) == ["d==3"]


def test_conflicts_of_locks_are_found() -> None:
    assert packaging.lock_conflicts(LOCK, "a==1.1\nb_c==2\n") == ["a: 1.0 and 1.1"]


def test_targets_without_help_are_found() -> None:
    makefile = ".PHONY: a b\na: ## fine\na b:\n\t@x\nc: a ## told\nX := 1\nd:\n\t@x\n"
    assert list(packaging.undocumented_targets(makefile)) == [
        "b: no ## comment", "c: not phony", "d: no ## comment", "d: not phony"]


def test_missing_licences_are_found() -> None:
    texts = {"plugins/a.py": "# SPDX-License-Identifier: MIT", "files/worker/b.py": "# SPDX-License-Identifier: MIT"}
    assert packaging.stale_licences(texts, LICENCES) == ["plugins/a.py: expected GPL-3.0-or-later"]
