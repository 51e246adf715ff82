"""House rules are a test: sizes, names, habits, and documents that cannot drift from what they describe."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

import pytest

from deploy.contracts import documents
from tests.support.source import FOLDERS, ROOT, Source, blind_excepts, prints, sleeps, sources, too_long, uncollected, undocumented

SPEAKS: Final = ("*/cli.py", "*/cli_*.py", "*/__main__.py", "deploy/**", "tests/**", "protocols/lifecycle.py")
"""Commands, and the generator of the lifecycle document; everything else answers with values."""
PUNISHED_NAMES: Final = ("utils.py", "util.py", "helpers.py", "misc.py", "common.py")

UNWANTED: Final = {
    "a path of somebody's machine": re.compile(r"(?<![\w.])/(?:work|tmp/ls|home/\w+|root|Users/\w+)/"),
    "a folder outside the repository": re.compile(r"\.\./(?:shared|\.library)(?![\w-])"),
    "a registry's host name": re.compile("|".join((r"pypi\." + "org", "files.python" + "hosted", "registry.np" + "mjs"))),
}
TEXT_ENDINGS: Final = (
    ".py",
    ".md",
    ".toml",
    ".yml",
    ".yaml",
    ".lock",
    ".sh",
    ".in",
    ".html",
    ".css",
    ".js",
    ".txt",
    ".cfg",
    ".conf",
    "Makefile",
    "run",
)


@pytest.fixture(autouse=True, scope="module")
def _trees_are_no_garbage() -> Iterator[None]:
    with uncollected():
        yield


def complaints(check: Any, *folders: str) -> list[str]:
    return [line for source in sources(*folders) for line in check(source)]


def shipped_files() -> list[Path]:
    """What is in the repository, or would be with the next `git add`."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / line for line in listed.splitlines() if (ROOT / line).is_file()]


def make_targets(makefile: str) -> list[str]:
    """Targets that `make` lists: the ones with a `##` text."""
    return re.findall(r"^([a-z-]+):.*## ", makefile, re.M)


def unmentioned(targets: list[str], readme: str) -> list[str]:
    return [target for target in targets if target != "help" and not re.search(rf"\bmake {target}\b", readme)]


# --- sizes and habits


def test_files_and_functions_keep_their_bounds() -> None:
    assert complaints(too_long) == []


def test_no_file_is_named_for_nothing() -> None:
    assert [source.path for source in sources() if source.path.rpartition("/")[2] in PUNISHED_NAMES] == []


def test_wide_excepts_stand_at_a_documented_boundary() -> None:
    assert complaints(blind_excepts) == []


def test_tests_never_sleep() -> None:
    assert complaints(sleeps, "tests") == []


def test_library_modules_do_not_print() -> None:
    assert [line for source in sources() if not source.matches(SPEAKS) for line in prints(source)] == []


def test_public_names_in_protocols_and_ports_are_documented() -> None:
    ports = [source for source in sources("hub", "edge_agent", "models") if "Protocol)" in source.text or "ABC)" in source.text]
    assert [line for source in [*sources("protocols"), *ports] for line in undocumented(source)] == []


def test_every_module_says_what_it_is_for() -> None:
    assert [source.path for source in sources() if not source.text.lstrip().startswith('"""')] == []


@pytest.mark.parametrize("what", sorted(UNWANTED))
def test_no_file_names(what: str) -> None:
    texts = [path for path in shipped_files() if path.name.endswith(TEXT_ENDINGS)]
    found = [str(path.relative_to(ROOT)) for path in texts if UNWANTED[what].search(path.read_text("utf-8", errors="replace"))]
    assert found == [], f"{what}: {found}"


# --- documents and packaging


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_folder_says_what_lives_there(folder: str) -> None:
    text = (ROOT / folder / "README.md").read_text("utf-8")
    assert text.startswith("# ")
    assert "import" in text, "it must say what it may import"


def test_the_readme_mentions_every_make_target() -> None:
    targets = make_targets((ROOT / "Makefile").read_text("utf-8"))
    assert len(targets) > 8
    assert unmentioned(targets, (ROOT / "README.md").read_text("utf-8")) == []


def test_the_contracts_are_what_the_code_says() -> None:
    assert documents.stale() == [], "run: make docs"


def test_every_package_is_shipped() -> None:
    listed = pyproject()["tool"]["setuptools"]["packages"]
    found = [
        str(path.parent.relative_to(ROOT)).replace("/", ".") for folder in FOLDERS for path in sorted((ROOT / folder).rglob("__init__.py"))
    ]
    assert sorted(listed) == sorted(name for name in found if not name.startswith("tests"))


def test_every_data_file_beside_the_code_is_shipped() -> None:
    """Templates, samples and dictionaries reach an installation; a file that no pattern covers would be missing there only."""
    folders = tuple(folder for folder in FOLDERS if folder not in ("tests", "deploy") and (ROOT / folder / "__init__.py").is_file())
    data = [path.relative_to(ROOT) for path in shipped_files() if path.relative_to(ROOT).parts[0] in folders and path.suffix != ".py"]
    assert [str(path) for path in data if not is_package_data(path, pyproject()["tool"]["setuptools"])] == []


def is_package_data(path: Path, setuptools: dict[str, Any]) -> bool:
    """Whether a data file (relative path) is covered by the pattern of its nearest package."""
    package = next(
        (".".join(parent.parts) for parent in path.parents if ".".join(parent.parts) in setuptools["packages"]),
        "",
    )
    inside = "/".join(path.parts[package.count(".") + 1 :])
    patterns = [*setuptools["package-data"].get(package, []), *setuptools["package-data"].get("*", [])]
    return bool(package) and any(fnmatch(inside, pattern) and inside.count("/") == pattern.count("/") for pattern in patterns)


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def test_locked_versions_satisfy_each_other() -> None:
    """The tools for development are resolved on top of what the product runs on, never beside it."""
    run, dev = (
        dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / name).read_text("utf-8"), re.M))
        for name in ("requirements.lock", "requirements-dev.lock")
    )
    assert run.items() <= dev.items()


def test_each_direct_dependency_is_locked() -> None:
    project = pyproject()["project"]
    wanted = [*project["dependencies"], *(dep for deps in project["optional-dependencies"].values() for dep in deps)]
    locked = re.findall(r"^([\w.-]+)==", (ROOT / "requirements-dev.lock").read_text("utf-8"), re.M)
    assert [dep for dep in wanted if re.split(r"[<>=;\[ ]", dep)[0] not in locked] == []


# --- the checks themselves can fail


def test_a_long_file_and_a_long_function_are_found() -> None:
    body = "\n".join("    pass" for _ in range(500))
    assert len(too_long(Source("hub/x.py", f"def f():\n{body}\n"))) == 2
    assert too_long(Source("hub/x.py", "def f():\n    pass\n")) == []


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("try:\n    f()\nexcept Exception:\n    pass", 1),
        ("try:\n    f()\nexcept:\n    pass", 1),
        ("try:\n    f()\nexcept (OSError, BaseException) as e:\n    pass", 1),
        ("try:\n    f()\nexcept Exception:  # boundary: a thread must not die silently\n    pass", 0),
        ("try:\n    f()\n# boundary: the plug-in is foreign code\nexcept Exception:\n    pass", 0),
        ("try:\n    f()\nexcept OSError:\n    pass", 0),
    ],
)
def test_a_wide_except_is_found(text: str, count: int) -> None:
    assert len(blind_excepts(Source("hub/x.py", text))) == count


@pytest.mark.parametrize(
    ("text", "count"),
    [("import time\ntime.sleep(1)", 1), ("from time import sleep", 1), ("import asyncio\nasyncio.sleep(0)", 0), ("time.monotonic()", 0)],
)
def test_a_sleep_is_found(text: str, count: int) -> None:
    assert len(sleeps(Source("tests/x.py", text))) == count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ('"""M."""\ndef f(): pass', 1),
        ('"""M."""\ndef _f(): pass\nclass C:\n    """C."""\n    def m(self): pass', 0),
        ('"""M."""\nfrom typing import Protocol\nclass C(Protocol):\n    """C."""\n    def m(self): ...', 1),
        ("x = 1", 1),
    ],
)
def test_a_missing_docstring_is_found(text: str, count: int) -> None:
    assert len(undocumented(Source("protocols/x.py", text))) == count


def test_a_print_is_found() -> None:
    assert len(prints(Source("hub/core.py", "print(1)\nlog.print(2)"))) == 1


def test_an_unmentioned_target_is_found() -> None:
    targets = make_targets("help: ## list\ntest: setup ## all\ndemo: ## show\nhidden:\n\ttrue\n")
    assert targets == ["help", "test", "demo"]
    assert unmentioned(targets, "Run `make test`; a make demonstration is near.") == ["demo"]


@pytest.mark.parametrize(
    ("path", "shipped"),
    [
        ("hub/web/static/a.css", True),
        ("hub/web/other/a.css", False),
        ("hub/a.txt", False),
        ("models/samples/x.csv.gz", True),
        ("edge_agent/README.md", True),
    ],
)
def test_a_data_file_without_a_pattern_is_found(path: str, shipped: bool) -> None:
    table = {
        "packages": ["hub", "hub.web", "models", "models.samples", "edge_agent"],
        "package-data": pyproject()["tool"]["setuptools"]["package-data"],
    }
    assert is_package_data(Path(path), table) is shipped


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("see /wo" + "rk/main", "a path of somebody's machine"),
        ("../sha" + "red/design", "a folder outside the repository"),
        ("https://py" + "pi.org/x", "a registry's host name"),
    ],
)
def test_an_unwanted_name_is_found(text: str, what: str) -> None:
    assert UNWANTED[what].search(text)
    assert not UNWANTED[what].search("GET /v1/work/orders from ../shared-nothing? no: `shared` and pypi")
