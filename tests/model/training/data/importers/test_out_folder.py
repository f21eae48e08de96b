"""The folder of an import: whole or not there, and what killed imports leave is cleared away."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import UserError
from manifests.process import this_process
from model.training.data.importers.out_folder import aside, check_out

MACHINE, _, _ = this_process().partition("-")
GONE = f"{MACHINE}-999999999-1"
RUNNING = f"{MACHINE}-1-{Path('/proc/1/stat').read_text().rpartition(')')[2].split()[19]}"
ELSEWHERE = "0123456789abcdef-1-1"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "set"


def fill(folder: Path, *names: str) -> Path:
    for name in ("import.json", "records-00000.jsonl", *names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(folder.name)
    return folder


def check(out: Path, replace: bool = False) -> None:
    check_out(out, replace, out.parent / "set.json")


def test_what_killed_imports_left_is_cleared_away(out: Path) -> None:
    fill(out)
    left = [fill(out.parent / f".set.{what}-{GONE}") for what in ("import", "replaced")]
    others = [fill(out.parent / f".set.import-{name}") for name in (RUNNING, ELSEWHERE)]
    others += [fill(out.parent / f".settle.import-{GONE}")]
    check(out, replace=True)
    assert [folder.exists() for folder in (*left, *others)] == [False, False, True, True, True]
    assert (out / "import.json").read_text() == "set"


def test_import_that_was_moved_away_comes_back(out: Path) -> None:
    fill(out.parent / f".set.replaced-{GONE}")
    with pytest.raises(UserError, match="an import is there"):
        check(out)
    assert (out / "records-00000.jsonl").is_file()


def test_replacement_that_fails_puts_the_earlier_import_back(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(out)
    rename = Path.rename

    def stopped(self: Path, target: Path) -> Path:
        if ".import-" in self.name:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", stopped)
    with pytest.raises(KeyboardInterrupt), aside(out) as folder:
        fill(folder)
    assert (out / "import.json").read_text() == "set"
    assert [path.name for path in out.parent.iterdir()] == ["set"]


@pytest.mark.parametrize("name", ["0001.jpg", "media/my.jpg", "notes/a.txt"])
def test_files_of_the_user_are_not_replaced(out: Path, name: str) -> None:
    fill(out, "rejected.jsonl", "llava.jsonl", "media/ab/abcd.png")
    check(out, replace=True)
    fill(out, name)
    with pytest.raises(UserError, match=f"{name.removesuffix('/a.txt')} in it is of no import, .*: move it$"):
        check(out, replace=True)


def test_source_and_folder_lie_beside_each_other(tmp_path: Path) -> None:
    fill(tmp_path / "set")
    for source, out in (("set", "set/out"), ("set/records-00000.jsonl", "set"), ("set", "set")):
        with pytest.raises(UserError, match="give a folder beside it"):
            check_out(tmp_path / out, True, tmp_path / source)


def test_empty_folder_and_link_are_filled(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with aside(tmp_path / "link") as folder:
        fill(folder)
    assert (tmp_path / "real/import.json").is_file()
    assert (tmp_path / "link").is_symlink()


def test_place_that_cannot_be_written_is_an_error() -> None:
    with (
        pytest.raises(UserError, match="--out /proc/set/x: cannot be written: No such file"),
        aside(Path("/proc/set/x")),
    ):
        pass
