# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Words that must not be in the repository, and links that must lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Iterator

# In brackets, so that this file passes its own rule.
REGISTRIES = (
    r"pypi\.or[g]", r"pythonhoste[d]\.", r"registry\.npmj[s]", r"deb\.debian\.or[g]", r"security\.debian\.or[g]",
    r"galaxy\.ansible\.co[m]", r"(?:hub|docker)\.docker\.(?:co[m]|i[o])", r"\bg(?:h)?cr\.i[o]\b", r"quay\.i[o]\b")
UNFINISHED = (r"\bTOD[O]\b", r"\bFIXM[E]\b", r"\bXX[X]\b", r"\bHAC[K]\b", r"NotImplemente[d]", r"pytest\.mark\.xfai[l]")
ELSEWHERE = (r"(?<![\w.])/Use[r]s/", r"(?<![\w.])/wor[k]/(?:main|shared)(?![\w.-])", r"\bseed 00[0-9]")
FORBIDDEN = re.compile("|".join((*REGISTRIES, *UNFINISHED, *ELSEWHERE)))
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
EXPLICIT_ANCHOR = re.compile(r"<a (?:id|name)=\"([^\"]+)\"")
CODE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def forbidden(text: str) -> Iterator[str]:
    """Lines with a word that has no place here: a registry's host name, unfinished work, one person's paths."""
    for number, line in enumerate(text.splitlines(), 1):
        for found in FORBIDDEN.finditer(line):
            yield f"line {number}: {found.group()}"


def broken_links(path: Path) -> Iterator[str]:
    """Relative links of a Markdown file that lead to no file, or to no heading of it; none to the web are followed."""
    text = CODE.sub("", path.read_text(encoding="utf-8"))
    for target in (match.group(1) or match.group(2) for match in LINK.finditer(text)):
        if re.match(r"[a-z][a-z+.-]*:", target):
            continue
        name, _hash, anchor = target.partition("#")
        place = path.parent / name if name else path
        if not place.exists():
            yield f"{target}: no such file"
        elif anchor and place.suffix == ".md" and anchor not in anchors(place.read_text(encoding="utf-8")):
            yield f"{target}: no such heading"


def anchors(text: str) -> set[str]:
    """The anchors that a Markdown file offers: its headings as GitHub writes them, and explicit ones."""
    headings = (heading.replace("`", "").lower() for heading in HEADING.findall(CODE.sub("", text)))
    slugs = {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}
    return slugs | set(EXPLICIT_ANCHOR.findall(text))
