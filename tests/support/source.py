"""Checks of source text by its syntax tree: imports, purity, sizes, habits. Pure: (path, text) in, a list of complaints out.

Paths are relative to the repository, with forward slashes. The tests run these over the tree, and over small planted sources to show that
each can fail.
"""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDERS: Final = ("protocols", "models", "edge_agent", "hub", "mobile", "deploy", "tests")
FILE_LINES: Final = 500
FUNCTION_LINES: Final = 70

Function = ast.FunctionDef | ast.AsyncFunctionDef


@contextmanager
def uncollected() -> Iterator[None]:
    """For a pass over many sources: trees have no cycles; looked through for garbage while they grow, they take five times as long."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@dataclass(frozen=True)
class Source:
    """One Python file, parsed once."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    @property
    def folder(self) -> str:
        """The top-level folder, "" for a file at the top."""
        return self.path.partition("/")[0] if "/" in self.path else ""

    def at(self, node: ast.AST) -> str:
        return f"{self.path}:{getattr(node, 'lineno', 0)}"

    def matches(self, patterns: tuple[str, ...]) -> bool:
        """Whether the path is one of the patterns; `folder/**` is everything below."""
        return any(_matches(self.path, pattern) for pattern in patterns)


def _matches(path: str, pattern: str) -> bool:
    if pattern.endswith("/**"):
        return path.startswith(pattern.removesuffix("**"))
    return PurePosixPath(path).match(pattern) and path.count("/") == pattern.count("/")


def sources(*folders: str) -> list[Source]:
    """Every Python file below the named top-level folders (default: all), in a fixed order."""
    paths = (path for folder in folders or FOLDERS for path in sorted((ROOT / folder).rglob("*.py")))
    return [Source(path.relative_to(ROOT).as_posix(), path.read_text("utf-8")) for path in paths]


def imports(source: Source) -> Iterator[tuple[str, str]]:
    """(where, module) of each import anywhere in a file; `from a.b import c` gives `a.b`. Relative ones give "."; ruff refuses them."""
    for node in source.nodes:
        if isinstance(node, ast.Import):
            yield from ((source.at(node), alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield source.at(node), "." if node.level else node.module or ""


def top(module: str) -> str:
    return module.partition(".")[0]


def wrong_arrows(source: Source, allowed: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Imports of a top-level folder that this file's folder may not know."""
    may = (*allowed[source.folder], source.folder)
    return [f"{where} imports {module}: {source.folder} may import {', '.join(may)} only"
            for where, module in imports(source) if top(module) in FOLDERS and top(module) not in may]  # fmt: skip


def wrong_owners(source: Source, owners: Mapping[str, str]) -> list[str]:
    """Imports of a library outside the one module that owns it."""
    return [f"{where} imports {module}: only {owners[top(module)]} does"
            for where, module in imports(source) if top(module) in owners and owners[top(module)] != source.path]  # fmt: skip


def impurities(source: Source, modules: Mapping[str, tuple[str, ...]], calls: tuple[str, ...]) -> list[str]:
    """What a core may not have: imports of shell modules (save the named parts of one), and calls such as `datetime.now`.

    `modules` maps a forbidden module to the names that are fine in it: {"random": ("Random",)} allows a generator that is passed in, and
    refuses the global one. `calls` are the last two parts of a dotted name, or a bare name.
    """
    return [*_shell_imports(source, modules), *_shell_uses(source, modules, calls)]


def _shell_imports(source: Source, modules: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    for node in source.nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if top(alias.name) in modules and not modules[top(alias.name)]:
                    yield f"{source.at(node)} imports {alias.name}: a core has no clock, socket, thread, log or chance of its own"
        elif isinstance(node, ast.ImportFrom) and top(node.module or "") in modules:
            fine = modules[top(node.module or "")]
            for alias in node.names:
                if alias.name not in fine:
                    yield f"{source.at(node)} imports {alias.name} from {node.module}: pass it in as an argument"


def _shell_uses(source: Source, modules: Mapping[str, tuple[str, ...]], calls: tuple[str, ...]) -> Iterator[str]:
    for node in source.nodes:
        if not isinstance(node, ast.Attribute):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in calls:
                yield f"{source.at(node)} calls {node.func.id}(): input and output belong to the shell"
            continue
        owner = node.value.attr if isinstance(node.value, ast.Attribute) else node.value.id if isinstance(node.value, ast.Name) else ""
        if f"{owner}.{node.attr}" in calls:
            yield f"{source.at(node)} uses {owner}.{node.attr}: time and chance are arguments"
        elif owner in modules and modules[owner] and node.attr not in modules[owner]:
            yield f"{source.at(node)} uses {owner}.{node.attr}: the global generator is shared state"


def too_long(source: Source) -> list[str]:
    """Files and functions over their bounds."""
    lines = source.text.count("\n")
    found = [f"{source.path}: {lines} lines, more than {FILE_LINES}"] if lines > FILE_LINES else []
    for node in source.nodes:
        if isinstance(node, Function) and (length := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES:
            found.append(f"{source.at(node)} {node.name}: {length} lines, more than {FUNCTION_LINES}")
    return found


def blind_excepts(source: Source) -> list[str]:
    """`except Exception` (or wider) without a `# boundary: why` on its line or the one before."""
    lines = source.text.splitlines()
    found = []
    for node in source.nodes:
        if isinstance(node, ast.ExceptHandler) and _is_wide(node.type):
            near = lines[max(0, node.lineno - 2) : node.lineno]
            if not any("# boundary:" in line for line in near):
                found.append(f"{source.at(node)}: a wide except without `# boundary: why`")
    return found


def _is_wide(caught: ast.expr | None) -> bool:
    if caught is None:
        return True
    names = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(isinstance(name, ast.Name) and name.id in ("Exception", "BaseException") for name in names)


def sleeps(source: Source) -> list[str]:
    """Uses of `time.sleep`, however it was imported."""
    return [f"{source.at(node)}: time.sleep in a test; wait for the thing itself" for node in source.nodes if _sleep_at(node)]


def _sleep_at(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr == "sleep" and isinstance(node.value, ast.Name) and node.value.id == "time"
    return isinstance(node, ast.ImportFrom) and node.module == "time" and any(alias.name == "sleep" for alias in node.names)


def prints(source: Source) -> list[str]:
    """Calls of print()."""
    return [f"{source.at(node)}: print in a library module" for node in source.nodes
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"]  # fmt: skip


def undocumented(source: Source) -> list[str]:
    """Public functions and classes at the top of a file, and public methods of ports (Protocol or ABC classes), without a docstring."""
    found = [] if ast.get_docstring(source.tree) else [f"{source.path}: the module has no docstring"]
    for node in source.tree.body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            found += _without_docstring(source, node)
            if isinstance(node, ast.ClassDef) and _is_port(node):
                for method in node.body:
                    if isinstance(method, Function) and not method.name.startswith("_"):
                        found += _without_docstring(source, method)
    return found


def _without_docstring(source: Source, node: Function | ast.ClassDef) -> list[str]:
    return [] if ast.get_docstring(node) else [f"{source.at(node)}: {node.name} has no docstring"]


def _is_port(node: ast.ClassDef) -> bool:
    bases = [base.value if isinstance(base, ast.Subscript) else base for base in node.bases]
    return any(name in ("Protocol", "ABC") for base in bases for name in (getattr(base, "id", ""), getattr(base, "attr", "")))
