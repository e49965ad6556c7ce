# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lengths of functions and files."""

from __future__ import annotations

import ast
import io
import tokenize
from dataclasses import dataclass
from typing import Iterator, Union

DOCUMENTATION_BLOCKS = ("DOCUMENTATION", "EXAMPLES", "RETURN")
NO_CODE = (
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
Function = Union[ast.FunctionDef, ast.AsyncFunctionDef]


@dataclass(frozen=True)
class Length:
    """A function and the lines of code in its body: no docstring, no comments, no empty lines."""

    name: str
    lines: int


def functions(source: str) -> Iterator[Length]:
    """Every function of a file, nested ones too."""
    code = _lines_with_code(source)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield Length(node.name, len(code & _body(node)))


def file_lines(source: str) -> int:
    """Lines of a file without the blocks that document a module."""
    blocks = [
        (node.end_lineno or node.lineno) - node.lineno + 1 for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id in DOCUMENTATION_BLOCKS]
    return len(source.splitlines()) - sum(blocks)


def _lines_with_code(source: str) -> set[int]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {
        line for token in tokens if token.type not in NO_CODE
        for line in range(token.start[0], token.end[0] + 1)}


def _body(node: Function) -> set[int]:
    first = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return set(range(first[0].lineno, (node.end_lineno or node.lineno) + 1)) if first else set()
