"""What CONTRIBUTING.md, docs/design.md and the files for tools say of the repository is true of it."""

import ast
import re
import tomllib

import pytest
import yaml
from conftest import ROOT
from setuptools.config.pyprojecttoml import read_configuration

PAGES = ("CONTRIBUTING.md", "docs/design.md")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())


def read(name: str) -> str:
    return (ROOT / name).read_text()


def headings(name: str) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    found = re.findall(r"^#+ (.*)", read(name), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_are_there(page):
    words = [word for quoted in re.findall(r"`([^`\n]+)`", read(page)) for word in quoted.split()]
    named = [word for word in words if re.fullmatch(r"[\w./-]+(/|\.py|\.js|\.md|\.toml)", word)]
    assert len(named) > 5
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize("page", [*PAGES, "README.md"])
def test_links_of_a_page_lead_somewhere(page):
    for target in re.findall(r"\]\((?!http)([^)]+)\)", read(page)):
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), target
        assert not anchor or anchor in headings(name or page), target


def test_the_map_of_the_house_is_whole():
    scripts = {path.name for path in ROOT.glob("*.py")}
    folders = {f"{path.parent.name}/" for path in ROOT.glob("*/*.py")}
    named = {word for row in re.findall(r"^\| (`.*?) \|", read("CONTRIBUTING.md"), re.M) for word in row.split("`")}
    assert scripts | folders == named - {"", ", "}


@pytest.mark.parametrize("name", [*PAGES, "CHANGELOG.md", "README.md", ".github/workflows/ci.yml"])
def test_targets_of_make_are_there(name):
    called = set(re.findall(r"(?:^ +|run: |`)make (\w+)", read(name), re.M))
    assert called and called <= set(re.findall(r"^(\w+):", read("Makefile"), re.M))


def importers(package: str) -> set[str]:
    """The top-level scripts and folders that import a package; those of tests and benchmarks may."""
    found = set()
    for path in [*ROOT.glob("*.py"), *ROOT.glob("*/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            if any(name.split(".")[0] == package for name in names):
                found.add(path.relative_to(ROOT).parts[0])
    return found - {"tests", "benchmarks"}


@pytest.mark.parametrize(
    ("package", "allowed"), [("nni", {"nni_main.py", "main_hpo.py", "runner", "tuners"}), ("tonic", {"loaders"})]
)
def test_who_imports_what_the_design_confines(package, allowed):
    assert importers(package) == allowed


def test_pythons_and_versions_agree():
    pythons = WORKFLOW["jobs"]["test"]["strategy"]["matrix"]["python"]
    lowest, highest = (int(python.split(".")[1]) for python in (pythons[0], pythons[-1]))
    assert pythons == [f"3.{minor}" for minor in range(lowest, highest + 1)]
    assert PROJECT["project"]["requires-python"] == f">=3.{lowest},<3.{highest + 1}"
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py3{lowest}"
    assert PROJECT["tool"]["mypy"]["python_version"] == f"3.{lowest}"
    assert f"Python 3.{lowest} to 3.{highest}" in read("README.md")
    version = re.search(r"^## (\d\S*)", read("CHANGELOG.md"), re.M)[1]
    assert version == PROJECT["project"]["version"] == yaml.safe_load(read("CITATION.cff"))["version"]


def test_the_project_needs_what_requirements_say():
    lines = [line.split(" #")[0].strip() for line in read("requirements.txt").splitlines()]
    found = read_configuration(ROOT / "pyproject.toml")["project"]["dependencies"]
    assert [line.split(" #")[0].strip() for line in found] == [line for line in lines if line and line[0] != "#"]


def test_commit_hooks_run_what_lint_runs():
    hooks = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"][0]["hooks"]
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", read("Makefile"), re.M)[1]
    tools = re.findall(r"\$\(BIN\)/(\w+(?: \w+)?)", recipe)
    assert [hook["entry"] for hook in hooks] == [f".venv/bin/{tool}" for tool in tools]
