# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which line of which compose file says something: the YAML nodes of the source files, through anchors, merges,
``extends``, ``include`` and overrides.

Compose reads the files; this only finds the place. Where a place can't be told, the service's line is given, or none:
never a wrong one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional, Sequence

from .command_paths import normal
from .compose_variables import expand, read_source
from .errors import DriftguardError
from .secret_names import is_secret_name
from .untrusted import clean

try:
    import yaml

    HAS_YAML = True
except ImportError:
    HAS_YAML = False

MAX_FILES = 64
MAX_NODES = 100_000
MAX_DEPTH = 100
_MERGE = "tag:yaml.org,2002:merge"
_NAMED_BY = ("target", "path", "source")


@dataclass(frozen=True)
class Place:
    """A line of a file, counted from 1; None where the file is known and the line isn't."""

    file: str
    line: Optional[int]


@dataclass
class Sources:
    """The files of a compose project as YAML nodes.

    :param files: those that were named, in order.
    :param roots: absolute path → root node, of these and of all that they extend and include.
    :param directories: absolute path → where its relative paths begin.
    """

    files: list[str]
    variables: Mapping[str, str]
    roots: dict[str, Any] = field(default_factory=dict)
    directories: dict[str, Path] = field(default_factory=dict)

    @classmethod
    def load(cls, files: Sequence[Path], directory: Path, variables: Mapping[str, str]) -> Sources:
        """Read the named files and whatever they lead to.

        :param directory: the project's.
        :raises DriftguardError: a file can't be read, isn't YAML, or would expand without bounds.
        """
        sources = cls([str(path) for path in files], variables)
        waiting = [(path, directory) for path in files]
        while waiting:
            path, base = waiting.pop(0)
            if str(path) in sources.roots:
                continue
            if len(sources.roots) >= MAX_FILES:
                raise DriftguardError(
                    f"compose file {clean(str(path))}", f"a project of at most {MAX_FILES} files", "more",
                    "audit its parts one by one")
            sources.roots[str(path)] = _root(path)
            sources.directories[str(path)] = base
            # What isn't there is for Compose to miss.
            waiting += [found for found in sources._led_to(str(path)) if found[0].exists()]
        return sources

    def _led_to(self, file: str) -> Iterator[tuple[Path, Path]]:
        """Files that a file names, each with the directory where its own paths begin."""
        for service in _items(_child(self.roots[file], "services")):
            named = _child(_child(service, "extends"), "file")
            if named is not None:
                path = self._path(file, named)
                yield path, path.parent
        for element in _elements(_child(self.roots[file], "include")):
            directory = _child(element, "project_directory")
            for path in self._paths(file, element):
                yield path, self._path(file, directory) if directory is not None else path.parent

    def _included(self, file: str) -> Iterator[Path]:
        for element in _elements(_child(self.roots[file], "include")):
            yield from self._paths(file, element)

    def _paths(self, file: str, element: Any) -> list[Path]:
        paths = _child(element, "path") if isinstance(element, yaml.MappingNode) else element
        return [self._path(file, one) for one in _elements(paths) or ([paths] if paths is not None else [])]

    def _path(self, file: str, node: Any) -> Path:
        written = expand(str(node.value), self.variables).text if isinstance(node, yaml.ScalarNode) else ""
        if "://" in written or written.startswith("git@") or not written:
            raise DriftguardError(
                f"compose file {clean(file)}, line {node.start_mark.line + 1}", "the path of a file on this host",
                clean(written) or "none", "fetch it first, and name the copy")
        # Paths begin at the project's directory, or at the file's, as it was reached.
        found = [_absolute(directory, written) for directory in (self.directories[file], Path(file).parent)]
        return next((path for path in found if path.exists()), found[0])

    def place(self, service: str, path: Sequence[str]) -> Optional[Place]:
        """Where a service says something.

        :param path: keys below the service; of a list, the name, target or text of the element. Empty for the service.
        :returns: the line of the last one that says so; the service's line when nobody does; None when unknown.
        """
        definitions = list(self._definitions(service))
        for file, _line, node in definitions if path else ():
            line = _line_of(node, path)
            if line is not None:
                return Place(file, line)
        own = self._service_line(service)
        return own or (Place(self.files[0], None) if len(self.files) == 1 and not self._has_includes() else None)

    def texts(self) -> Iterator[tuple[str, str]]:
        """Every text in the files with its name: the key that it stands under, or what precedes ``=`` in it."""
        waiting, seen = [("", root) for root in self.roots.values() if root is not None], set()
        while waiting:
            name, node = waiting.pop()
            if isinstance(node, yaml.ScalarNode):
                head, sign, rest = str(node.value).partition("=")
                yield (head, rest) if sign and not is_secret_name(name) else (name, str(node.value))
            elif id(node) not in seen:
                seen.add(id(node))
                pairs = node.value if isinstance(node, yaml.MappingNode) else [(None, one) for one in node.value]
                waiting += [(str(getattr(key, "value", name)), one) for key, one in pairs]

    def _has_includes(self) -> bool:
        return any(_child(root, "include") is not None for root in self.roots.values())

    def _service_line(self, service: str) -> Optional[Place]:
        extended = {*self.files, *map(str, self._all_included())}
        for file in [*self.files, *(name for name in self.roots if name in extended and name not in self.files)]:
            entry = _entry(_child(self.roots.get(file), "services"), service)
            if entry is not None:
                return Place(file, entry[0].start_mark.line + 1)
        return None

    def _all_included(self) -> Iterator[Path]:
        for file in self.roots:
            yield from self._included(file)

    def _definitions(self, service: str) -> Iterator[tuple[str, int, Any]]:
        """Every node that has a say, the one that wins first."""
        named = list(reversed(self.files))
        for file in [*named, *dict.fromkeys(str(path) for path in self._all_included() if str(path) not in named)]:
            yield from self._chain(file, service, 0)

    def _chain(self, file: str, service: str, depth: int) -> Iterator[tuple[str, int, Any]]:
        entry = _entry(_child(self.roots.get(file), "services"), service)
        if entry is None or depth > MAX_DEPTH:
            return
        yield file, entry[0].start_mark.line + 1, entry[1]
        extends = _child(entry[1], "extends")
        if isinstance(extends, yaml.ScalarNode):
            yield from self._chain(file, str(extends.value), depth + 1)
        elif extends is not None:
            other, name = _child(extends, "file"), _child(extends, "service")
            base = file if other is None else str(self._path(file, other))
            yield from self._chain(base, str(getattr(name, "value", "")), depth + 1)


def _absolute(directory: Path, written: str) -> Path:
    return Path(normal(str(directory / written)))


def _root(path: Path) -> Any:
    text = read_source(path, "compose file")
    if not HAS_YAML:
        return None
    subject = f"compose file {clean(str(path))}"
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        # Compose itself would expand such a file for hours.
        size = _expanded(root, {}, 0)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        problem = clean(str(getattr(error, "problem", None) or "no YAML"))
        raise DriftguardError(subject, "one YAML document", f"{problem}{where}", "mend the file") from error
    except (RecursionError, ValueError) as error:
        raise DriftguardError(
            subject, f"YAML of at most {MAX_DEPTH} levels, without an anchor inside itself", "more, or such an anchor",
            "write it flat") from error
    if size > MAX_NODES:
        raise DriftguardError(
            subject, f"at most {MAX_NODES} values once anchors are expanded", "more", "use fewer aliases of aliases")
    return root


def _expanded(node: Any, known: dict[int, int], depth: int) -> int:
    """Number of values below a node with every alias written out.

    :raises ValueError: it contains itself, or is too deep.
    """
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1
    if depth > MAX_DEPTH or known.get(id(node)) == 0:
        raise ValueError(depth)
    if id(node) not in known:
        known[id(node)] = 0
        children = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        known[id(node)] = 1 + sum(_expanded(child, known, depth + 1) for child in children)
    return known[id(node)]


def _entry(node: Any, key: str) -> Optional[tuple[Any, Any]]:
    """Key and value of a mapping; a key of its own before merged ones, and of these the first."""
    if not HAS_YAML or not isinstance(node, yaml.MappingNode):
        return None
    own, merged = _index(node)
    return own.get(key) or next((found for found in (_entry(part, key) for part in merged) if found), None)


def _index(node: Any) -> tuple[dict[str, tuple[Any, Any]], list[Any]]:
    """A mapping's own keys, and what is merged into it. Kept with the node: a file may have thousands of services."""
    if not hasattr(node, "index"):
        own: dict[str, tuple[Any, Any]] = {}
        merged: list[Any] = []
        for name, value in node.value:
            if name.tag == _MERGE:
                merged += _elements(value) or [value]
            elif value.tag != "!reset" and isinstance(name, yaml.ScalarNode):
                own.setdefault(str(name.value), (name, value))
        node.index = own, merged
    found: tuple[dict[str, tuple[Any, Any]], list[Any]] = node.index
    return found


def _child(node: Any, key: str) -> Any:
    found = _entry(node, key)
    return found[1] if found else None


def _items(node: Any) -> list[Any]:
    return [value for _key, value in node.value] if HAS_YAML and isinstance(node, yaml.MappingNode) else []


def _elements(node: Any) -> list[Any]:
    return list(node.value) if HAS_YAML and isinstance(node, yaml.SequenceNode) else []


def _line_of(node: Any, path: Sequence[str]) -> Optional[int]:
    line = None
    for step in path:
        found = _entry(node, step)
        if found is None:
            element = next((one for one in _elements(node) or [node] if _is_named(one, step)), None)
            if element is None:
                return None
            found = element, element
        line, node = found[0].start_mark.line + 1, found[1]
    return line


def _is_named(element: Any, name: str) -> bool:
    """Whether an element of a list is meant: by its text, the name before ``=``, its target, or a path's end."""
    if isinstance(element, yaml.ScalarNode):
        text = str(element.value)
        ending = "/" + text.rsplit("./", maxsplit=1)[-1].lstrip("/")
        parts = {text, text.partition("=")[0], *(part.rstrip("/") or "/" for part in text.split(":"))}
        return name in parts or (name.startswith("/") and name.endswith(ending) and len(ending) > 1)
    return any(_is_named(child, name) for child in (_child(element, key) for key in _NAMED_BY) if child is not None)
