# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules that hold for the whole package, read from its source."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import driftguard_worker
from driftguard_worker.errors import ExitStatus
from driftguard_worker.settings import Settings

ROOT = Path(__file__).parents[3]
PACKAGE = Path(driftguard_worker.__file__).parent
MODULES = sorted(PACKAGE.glob("*.py"))
# The command hands the environment to the guard; the settings are read by pydantic; the health check stands alone.
MAY_READ_ENVIRONMENT = {"cli.py", "healthcheck.py"}
DOCUMENT = (ROOT / "docs" / "worker.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_environment_is_read_in_one_place(module: Path) -> None:
    names = {node.attr for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.Attribute)}
    if module.name not in MAY_READ_ENVIRONMENT:
        assert not names & {"environ", "environb", "getenv"}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_nothing_of_the_collection_is_imported(module: Path) -> None:
    imported = [
        node for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    names = {alias.name for node in imported for alias in node.names} | {
        node.module or "" for node in imported if isinstance(node, ast.ImportFrom)
    }
    assert not {name for name in names if name.startswith(("ansible", "plugins", "version_guard"))}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_redis_clients_are_made_from_the_options(module: Path) -> None:
    calls = [node.func for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.Call)]
    made = [
        call.id for call in calls if isinstance(call, ast.Name) and call.id in ("Redis", "from_url", "ConnectionPool")
    ]
    assert made == (["Redis"] if module.name == "redis_options.py" else [])


def test_broad_handlers_are_in_one_place() -> None:
    found = [
        module.name
        for module in MODULES
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")))
    ]
    assert found == ["consumer.py", "process.py"]


def test_exit_statuses_are_documented() -> None:
    documented = re.findall(r"^\| (\d+) \| `(\w+)` \|", DOCUMENT, flags=re.MULTILINE)
    assert documented == [(str(int(status)), status.name) for status in ExitStatus]


def test_settings_are_documented() -> None:
    documented = re.findall(r"^\| `([A-Z_]+)` \|", DOCUMENT, flags=re.MULTILINE)
    assert documented == [name.upper() for name in Settings.model_fields]


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-build.lock"])
def test_locks_hold_hashes_and_no_place(name: str) -> None:
    text = (ROOT / "files" / "worker" / name).read_text(encoding="utf-8")
    packages = re.findall(r"^[a-z][^\n]*(?:\n    --hash=sha256:[0-9a-f]{64}[^\n]*)+", text, flags=re.MULTILINE)
    assert len(packages) == len(re.findall(r"^[a-z]", text, flags=re.MULTILINE)) > 0
    assert "://" not in text
    assert "index" not in text


def test_the_documented_example_is_the_one_that_is_deployed() -> None:
    place = ROOT / "tests" / "apps" / "pricing"
    program = (place / "pricing.py").read_text(encoding="utf-8").partition('"""')
    dockerfile = (place / "Dockerfile").read_text(encoding="utf-8").partition("ARG ")
    assert f"```python\n{program[1]}{program[2]}```" in DOCUMENT
    assert f"```dockerfile\n{dockerfile[1]}{dockerfile[2]}```" in DOCUMENT
    assert len(program[2].strip().splitlines()) <= 23


def test_bullmq_is_known_in_one_place_and_given_one_prefix() -> None:
    """Each queue and worker is made there, with a connection of its own from the one set of options."""
    users = [module.name for module in MODULES if "bullmq" in _imported(module)]
    assert users == ["bull.py"]
    calls = [node for node in ast.walk(ast.parse((PACKAGE / "bull.py").read_text())) if isinstance(node, ast.Call)]
    made = [call for call in calls if ast.unparse(call.func) in ("bullmq.Queue", "bullmq.Worker")]
    assert len(made) == 3
    assert all("self._common()" in ast.unparse(call) for call in made)
    prefixes = [module.name for module in MODULES if re.search(r'"prefix":', module.read_text())]
    assert prefixes == ["bull.py"]


def test_only_the_drainer_knows_the_flags() -> None:
    users = [module.name for module in MODULES if re.search(r"^from \.flags import", module.read_text(), re.MULTILINE)]
    assert users == ["drainer.py", "runtime.py"]
    assert [module.name for module in MODULES if ".enabled(" in module.read_text()] == ["drainer.py"]


def _imported(module: Path) -> set[str]:
    nodes = ast.walk(ast.parse(module.read_text()))
    return {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
