# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No word that has no place here, and every link leads somewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from meta.rules import text
from meta.rules.files import ROOT, all_files, below, read
from meta.rules.report import expect_none

#: Vendored licence texts are not ours to change; lock files hold names of packages only (test_packaging looks at them).
NOT_OURS = ("LICENSES/",)


def test_no_forbidden_word() -> None:
    found = {}
    for path in all_files():
        if not path.startswith(NOT_OURS):
            found[path] = list(text.forbidden((ROOT / path).read_text(encoding="utf-8", errors="replace")))
    expect_none(found)


def test_links_in_documents_lead_somewhere() -> None:
    documents = below("", suffix=".md")
    assert documents
    found = {path: list(text.broken_links(ROOT / path)) for path in documents}
    expect_none(found)


@pytest.mark.parametrize("name", [
    "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/runbook.md", "docs/requirements.md",
])
def test_a_document_is_there(name: str) -> None:
    assert read(name).startswith("# ")


@pytest.mark.parametrize("line", [
    "see https://pypi" + ".org/simple", "# TO" + "DO: later", "raise NotImple" + "mentedError", "deb.debian" + ".org",
    "FROM ghcr" + ".io/x", "cd /Use" + "rs/ann/x", "as seed 0" + "01 says",
])
def test_forbidden_words_are_found(line: str) -> None:
    assert len(list(text.forbidden(f"fine\n{line}\n"))) == 1


@pytest.mark.parametrize("line", [
    "a todo list", "docs.docker.com/engine", "./work/x", "/work/main.py", "the homepage", "seed 42",
])
def test_harmless_words_pass(line: str) -> None:
    assert list(text.forbidden(line)) == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text('# A heading, `with` code\n<a id="v1"></a>\n')
    document = tmp_path / "x.md"
    document.write_text(
        "[a](other.md) [b](gone.md) [c](other.md#a-heading-with-code) [d](other.md#nowhere) [e](https://example.com/x)\n"
        "[f](#here) [g](other.md#v1) ![h](gone.png)\n\n## Here\n\n```\n[i](in-code.md)\n```\n")
    assert list(text.broken_links(document)) == [
        "gone.md: no such file", "other.md#nowhere: no such heading", "gone.png: no such file"]
