# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Python file imports, catches and raises. Each rule gives back the lines that break it."""

from __future__ import annotations

import ast
from typing import Iterator, Optional

FAILURE = "DriftguardError"
FAILURE_PARTS = ("subject", "expected", "found", "remedy")
BROAD = {"Exception", "BaseException"}
PROCESS_STARTERS = {
    "system", "popen", "fork", "execv", "execve", "execvp", "execvpe", "posix_spawn", "spawnv", "run_command"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
CHECKING = ("assert", "check", "expect", "must", "raises", "wait", "warns")


def imported(source: str) -> dict[str, int]:
    """Absolute imports by dotted name, with the first line of each; those inside functions too."""
    found: dict[str, int] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found.setdefault(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            for alias in node.names:
                found.setdefault(f"{node.module}.{alias.name}", node.lineno)
    return found


def imports_of(source: str, packages: set[str]) -> list[str]:
    """Imports of these packages or of what is in them."""
    return [
        f"line {line}: import of {name}" for name, line in imported(source).items()
        if any(name == package or name.startswith(f"{package}.") for package in packages)]


def started_processes(source: str) -> list[str]:
    """Calls that start a process otherwise than by the one gateway."""
    return [
        f"line {node.lineno}: .{node.func.attr}()" for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in PROCESS_STARTERS]


def broad_handlers(source: str) -> list[str]:
    """Handlers of every exception, unless they end by raising it again."""
    return [
        f"line {node.lineno}: except {ast.unparse(node.type) if node.type else ''}".rstrip()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ExceptHandler) and _is_broad(node.type) and not _raises_again(node)]


def _is_broad(caught: Optional[ast.expr]) -> bool:
    if caught is None:
        return True
    names = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(isinstance(name, ast.Name) and name.id in BROAD for name in names)


def _raises_again(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def poor_failures(source: str) -> list[str]:
    """Failures that lack one of the four parts, or in which one says nothing."""
    return [
        f"line {node.lineno}: {reason}" for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == FAILURE
        for reason in _poor(node)]


def _poor(call: ast.Call) -> Iterator[str]:
    if any(isinstance(part, ast.Starred) for part in call.args) or any(word.arg is None for word in call.keywords):
        return
    parts = dict(zip(FAILURE_PARTS, call.args, strict=False))
    parts.update({word.arg: word.value for word in call.keywords if word.arg})
    for name in FAILURE_PARTS:
        if name not in parts:
            yield f"no {name}"
        elif not _says_something(parts[name]):
            yield f"{name} is empty"


def _says_something(part: ast.expr) -> bool:
    if isinstance(part, ast.Constant):
        return isinstance(part.value, str) and bool(part.value.strip(" .,;:"))
    return True


def tests_without_check(source: str) -> list[str]:
    """Tests that can't fail: nothing in them asserts or expects an error, themselves or in a helper that they call.

    Helpers in the same file are looked into; one that is imported counts when its name says that it checks.
    """
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, FUNCTIONS)]
    checking: set[str] = set()
    while True:
        more = {node.name for node in functions if any(_checks(below, checking) for below in ast.walk(node))}
        if more == checking:
            break
        checking = more
    return [
        f"line {node.lineno}: {node.name}" for node in functions
        if node.name.startswith("test_") and node.name not in checking]


def _checks(node: ast.AST, helpers: set[str]) -> bool:
    if isinstance(node, ast.Assert):
        return True
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name == "fail" or name in helpers or any(word in name for word in CHECKING)
