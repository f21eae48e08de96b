"""README.md and docs/ are run: the blocks of a page in order, in a folder of its own (tests/docs/page_folder.py)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, Block, blocks, pages
from tests.docs.page_folder import PageFolder, environment, film

pytestmark = [pytest.mark.docs, pytest.mark.timeout(3600)]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with demo/pool and demo/run, made as `make demo` makes them.

    VL3SYN_DEMO names such a folder that is there: whoever writes a page saves two minutes.
    """
    if made := os.environ.get("VL3SYN_DEMO"):
        return Path(made)
    folder = tmp_path_factory.mktemp("demo")
    (folder / "recipes").symlink_to(ROOT / "recipes")
    for command in (
        [sys.executable, "recipes/demo_pool.py", "demo/pool"],
        ["vl3syn", "run", "recipes/demo.yaml", "--run", "demo/run"],
    ):
        subprocess.run(command, cwd=folder, env=environment(), check=True, timeout=600)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny VideoLLaMA3 with its processor, which takes few visual tokens, so that answers take seconds."""
    from model import Processor, VideoLLaMA3
    from model.config import preset
    from model.processor_config import ProcessorConfig
    from model.tokenizer import byte_tokenizer

    folder = tmp_path_factory.mktemp("model") / "CKPT"
    VideoLLaMA3(preset("tiny")).save_pretrained(folder)
    Processor(byte_tokenizer(), ProcessorConfig(max_tokens=256)).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path, photographs: list[Path]) -> Iterator[PageFolder]:
    made = PageFolder(tmp_path / "page")
    for photograph in photographs:
        made.add(f"photos/{photograph.name}", photograph)
    (made.path / "photos/cut-off.jpg").write_bytes(photographs[0].read_bytes()[:100])
    made.add("a.jpg", next(path for path in photographs if path.suffix == ".jpg"))
    made.add("b.png", next(path for path in photographs if path.suffix == ".png"))
    made.add("clip.mp4", film())
    yield made
    made.close()


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_page_runs(page: Path, folder: PageFolder, request: pytest.FixtureRequest) -> None:
    found = blocks(page)
    code = "".join(block.code for block in found if block.is_run)
    if re.search(r"\bdemo/(pool|run)\b|\bRUN\b", code):
        made = request.getfixturevalue("demo") / "demo"
        folder.add("demo/pool", made / "pool")
        folder.add_run("demo/run", made)
        folder.add_run("RUN", made)
    if re.search(r"\bCKPT\b", code):
        folder.add("CKPT", request.getfixturevalue("checkpoint"))
    for block in found:
        try:
            run(block, folder)
        except AssertionError as error:
            pytest.fail(f"{block}\n{block.code}\n{error}", pytrace=False)


def run(block: Block, folder: PageFolder) -> None:
    """Run, write or compare a block."""
    if block.file:
        (folder.path / block.file).parent.mkdir(parents=True, exist_ok=True)
        (folder.path / block.file).write_text(block.code)
    elif block.output:
        assert is_like(folder.printed, block.code), f"printed:\n{folder.printed}"
    elif block.is_run:
        (folder.shell if block.language == "sh" else folder.python)(block.code)


def is_like(printed: str, documented: str) -> bool:
    """Whether two texts are the same, but for spaces, the length of rules, and what `…` stands for."""
    pattern = re.escape(_plain(documented)).replace("…", ".*")
    return re.fullmatch(pattern, _plain(printed), re.DOTALL) is not None


def _plain(text: str) -> str:
    return "\n".join(re.sub("─+", "─", " ".join(line.split())) for line in text.strip().splitlines())


@pytest.mark.parametrize(
    ("documented", "alike"),
    [
        ("1 row", True),
        ("1 row ", True),
        ("1  row", True),
        ("2 rows", False),
        ("…row", True),
        ("1", False),
        ("1 row\n…", False),
        ("…", True),
    ],
)
def test_output_is_compared_but_for_spaces_and_ellipses(documented: str, alike: bool) -> None:
    assert is_like("1 row\n", documented) == alike
