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


def pointless_tests(source: str) -> Iterator[str]:
    """Tests that nothing can make fail: they call nothing, or assert a constant, or anything ``or True``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, FUNCTIONS) and node.name.startswith("test_"):
            inside = list(ast.walk(ast.Module(node.body, [])))
            if not any(isinstance(below, (ast.Call, ast.Assert, ast.Raise)) for below in inside):
                yield f"line {node.lineno}: {node.name} does nothing"
        elif isinstance(node, ast.Assert) and _is_always_true(node.test):
            yield f"line {node.lineno}: an assertion that always holds"


def _is_always_true(test: ast.expr) -> bool:
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.Or):
        return any(_is_always_true(value) for value in test.values)
    return isinstance(test, ast.Constant) and bool(test.value)
