"""The site of docs/: what programs write, links, and that it builds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from manifests.version import __version__
from tests.docs.blocks import ROOT

PAGES = {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index"}
LONGEST_README = 150


def test_command_page_is_what_the_commands_say() -> None:
    generator = "-m typer pipeline.commands.app utils docs --name vl3syn".split()
    command = [sys.executable, *generator, "--title", "All commands"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120).stdout
    assert (ROOT / "docs/cli.md").read_text().strip() == made.strip(), "run `make docs`, which writes docs/cli.md"


def test_every_page_is_in_the_navigation() -> None:
    trees = re.findall(r"```{toctree}\n(.*?)```", (ROOT / "docs/index.md").read_text(), re.DOTALL)
    named = [line for tree in trees for line in tree.splitlines() if line and not line.startswith(":")]
    assert sorted(named) == sorted(PAGES), "name it in docs/index.md"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_files_that_a_page_links_to_exist(page: str) -> None:
    """Of the pages in docs/ Sphinx looks at links."""
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_version_of_the_citation_is_that_of_the_code() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == __version__
    assert __version__ in (ROOT / "CHANGELOG.md").read_text()


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= LONGEST_README


@pytest.mark.docs
def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Broken links and anchors are warnings, and so is a page that no navigation names."""
    command = [sys.executable, *"-m sphinx -W --keep-going -n -q docs".split(), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tutorial.html").exists()


@pytest.mark.docs
def test_site_asks_no_other_host(tmp_path: Path) -> None:
    """Fonts, scripts, styles and pictures are its own."""
    subprocess.run([sys.executable, "-m", "sphinx", "-q", "docs", str(tmp_path)], cwd=ROOT, check=True, timeout=300)
    pages = [*tmp_path.rglob("*.html"), *tmp_path.rglob("*.css")]
    assert len(pages) > 20
    loaded = r'(?:src="|<link[^>]+href="|@import\s+["\']?|url\(["\']?)(https?:)?//'
    assert [page.name for page in pages if re.search(loaded, page.read_text())] == []
