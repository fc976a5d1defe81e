"""What holds for the whole repository: its files are short, and what the documents say of it is true."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import naturalist

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

ROOT = Path(__file__).parent.parent
PACKAGE = sorted((ROOT / "naturalist").rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ALLOWED = [
    Requirement(line)
    for lines in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for line in lines
]
"""What pyproject.toml asks for."""

MAX_LINES = 350
MAX_FUNCTION_LINES = 60
TABLES: set[str] = set()
"""Functions that may be longer, because they are tables: 'path:name'."""


def in_repository(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def paths_drawn() -> set[str]:
    """Files and folders in the drawing of the house, where an indented line lies in the folder above it."""
    section = (ROOT / "docs" / "house.md").read_text()
    folders: list[str] = []
    paths = set()
    for line in section.split("```")[1].strip().splitlines():
        depth = (len(line) - len(line.lstrip())) // 4
        names = line.strip().split("  ")[0].split()
        paths.update("".join(folders[:depth]) + name for name in names)
        folders[depth:] = names[-1:]
    return paths


def anchors(path: Path) -> set[str]:
    """What a link to a heading may end in, as GitHub makes it."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def pins(*files: str) -> list[Requirement]:
    """Pinned requirements, with their markers."""
    lines = [line.split(" #")[0] for file in files for line in (ROOT / file).read_text().splitlines()]
    return [Requirement(line) for line in lines if line and line[0] not in "#-"]


def test_no_file_of_the_package_is_long():
    lengths = {in_repository(path): len(path.read_text().splitlines()) for path in PACKAGE}
    assert {path: lines for path, lines in lengths.items() if lines > MAX_LINES} == {}


def test_no_function_of_the_package_is_long():
    long = {
        f"{in_repository(path)}:{function.name}": lines
        for path in PACKAGE
        for function in functions(path)
        if (lines := function.end_lineno - function.lineno + 1) > MAX_FUNCTION_LINES
    }
    assert {name: lines for name, lines in long.items() if name not in TABLES} == {}
    assert long.keys() >= TABLES


def test_the_two_scripts_are_read_in_one_sitting():
    lengths = {script: (ROOT / script).read_text().count("\n") for script in ("partA/train.py", "partB/finetune.py")}
    assert {script: lines for script, lines in lengths.items() if lines >= 120} == {}


def test_everything_that_the_drawing_of_the_house_names_is_there():
    assert [path for path in sorted(paths_drawn()) if not (ROOT / path).exists()] == []


def test_the_drawing_of_the_house_leaves_nothing_out():
    files = {in_repository(path) for path in PACKAGE if not path.name.startswith("__")}
    rooms = {in_repository(path.parent) + "/" for path in PACKAGE}
    assert sorted((files | rooms) - paths_drawn()) == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("[pdb]*/*.md")), ids=in_repository)
def test_every_link_in_a_document_leads_somewhere(path):
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", path.read_text(encoding="utf-8"))
    for place, anchor in links:
        target = path.parent / place if place else path
        assert target.exists(), place
        assert not anchor or anchor in anchors(target), f"{place}#{anchor}"


def test_every_path_in_the_walks_exists():
    named = re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`|\]\(([\w./-]+)\)", (ROOT / "CONTRIBUTING.md").read_text())
    assert len(named) > 10
    assert [path for path in map("".join, named) if not (ROOT / path).exists()] == []


def test_every_name_in_the_walks_is_in_the_file_that_its_step_names():
    """A step begins with its files; what it names in code's letters below has to be found in one of them."""
    _, *walks = (ROOT / "CONTRIBUTING.md").read_text().split("\n## Add ")
    steps = [step for walk in walks for step in walk.split("\n- ")[1:]]
    for step in steps:
        quoted = re.findall(r"`([^`]+)`", step)
        files = [ROOT / name for name in quoted if (ROOT / name).is_file()]
        names = [name for name in quoted if name.isidentifier()]
        text = "".join(file.read_text() for file in files)
        assert [name for name in names if name not in text] == [], step


def test_every_recipe_lies_where_tests_train_all_of_them():
    """test_train.py trains all of configs/partA, test_finetune.py all of configs/partB."""
    assert {path.parent.name for path in (ROOT / "configs").rglob("*.y*ml")} == {"partA", "partB"}


def test_every_dependency_says_its_oldest_version():
    for requirement in ALLOWED:
        assert [specifier.operator for specifier in requirement.specifier] == [">="], requirement


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13", "3.14"])
def test_every_dependency_is_pinned_once_to_a_version_that_is_allowed(python):
    pinned = [
        pin
        for pin in pins("requirements.txt", "requirements-app.txt")
        if pin.marker is None or pin.marker.evaluate({"python_version": python})
    ]
    names = [canonicalize_name(pin.name) for pin in pinned]
    assert len(names) == len(set(names))
    versions = {name: next(iter(pin.specifier)).version for name, pin in zip(names, pinned, strict=True)}
    for requirement in ALLOWED:
        assert versions[canonicalize_name(requirement.name)] in requirement.specifier


def test_all_documents_tell_the_same_version():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == naturalist.__version__
    assert re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == naturalist.__version__
