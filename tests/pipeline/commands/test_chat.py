"""`vl3syn chat` with a small random model, through the command line."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from tests.model.clips import grey, write

BRIEF = ("--max-new-tokens", 12)


class Answer(NamedTuple):
    code: int
    out: str
    err: str


Ask = Callable[..., Answer]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ckpt`, two images, a clip of 4 s whose shade drifts, and one that stands still."""
    from model import Processor, VideoLLaMA3
    from model.config import preset
    from tests.model.oracles import widen

    parent = tmp_path_factory.mktemp("chat")
    model = VideoLLaMA3(preset("tiny"))
    widen(model)
    model.language.generation_config.eos_token_id = None  # else an answer may be over at once
    model.save_pretrained(parent / "ckpt")
    Processor.tiny().save_pretrained(parent / "ckpt")
    Image.fromarray(grey(90)).save(parent / "a.png")
    Image.fromarray(grey(30, 100, 60)).save(parent / "b.png")
    write(parent / "clip.mp4", [k / 10 for k in range(40)])
    return parent


@pytest.fixture
def ask(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Call the command as `vl3syn chat` would be, within this process."""
    from pipeline.commands.app import main

    monkeypatch.chdir(folder)

    def call(*arguments: object, stdin: str = "") -> Answer:
        monkeypatch.setattr(sys, "argv", ["vl3syn", "chat", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code: Any = 0
        try:
            main()
        except SystemExit as left:
            code = left.code
        return Answer(code or 0, *capsys.readouterr())

    return call


def _expected(folder: Path, question: str, *media: dict[str, Any], system: str | None = None) -> str:
    """What generate and decode give."""
    from model import Processor, VideoLLaMA3
    from model.prompt import SYSTEM_PROMPT

    instructions = SYSTEM_PROMPT if system is None else system
    model, processor = (kind.from_pretrained(folder / "ckpt") for kind in (VideoLLaMA3, Processor))
    start = [{"role": "system", "content": instructions}] if instructions else []
    row = processor([*start, {"role": "user", "content": [*media, question] if media else question}])
    return processor.decode(model.generate(**row, max_new_tokens=12)[0])


def test_chat_answers_about_one_image(folder: Path, ask: Ask) -> None:
    answer = ask("ckpt", "--image", "a.png", "What?", *BRIEF)
    assert answer.code == 0
    assert answer.out == _expected(folder, "What?", {"type": "image", "image": str(folder / "a.png")}) + "\n"
    line = r"35 visual tokens, 100% kept; first token after \d+\.\d\d s, then \d+\.\d tokens/s\n"
    assert re.fullmatch(line, answer.err)


def test_chat_reads_two_images_in_order(folder: Path, ask: Ask) -> None:
    answer = ask("ckpt", "--image", "b.png", "--image", "a.png", "What?", *BRIEF)
    media = [{"type": "image", "image": str(folder / name)} for name in ("b.png", "a.png")]
    assert answer.out == _expected(folder, "What?", *media) + "\n"
    assert answer.out != ask("ckpt", "--image", "a.png", "--image", "b.png", "What?", *BRIEF).out


def test_chat_passes_the_options_of_a_video(folder: Path, ask: Ask) -> None:
    options = {"fps": 2.0, "max_frames": 3, "start": 1.0, "end": 3.0}
    options_given = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", value)]
    answer = ask("ckpt", "--video", "clip.mp4", *options_given, "What?", *BRIEF)
    clip = {"type": "video", "video": str(folder / "clip.mp4"), **options}
    assert answer.out == _expected(folder, "What?", clip) + "\n"
    assert int(answer.err.split()[0]) % 3 == 0, "three frames"


def test_chat_reads_a_folder_of_frames(folder: Path, ask: Ask) -> None:
    (folder / "frames").mkdir()
    for number in range(8):
        Image.fromarray(grey(20 * number)).save(folder / "frames" / f"{number}.png")
    answer = ask("ckpt", "--video", "frames", "--frames-fps", 2, "What?", *BRIEF)
    clip = {"type": "video", "video": str(folder / "frames"), "frames_fps": 2}
    assert answer.out == _expected(folder, "What?", clip) + "\n"
    assert int(answer.err.split()[0]) % 4 == 0, "four frames of four seconds"


def test_keep_prunes_by_grey_levels(ask: Ask) -> None:
    """From second to second the clip gets 20 levels brighter, but for its white corner."""
    shares = {}
    for keep in ("all", 0, 19, 30):
        answer = ask("ckpt", "--video", "clip.mp4", "--keep", keep, "?", *BRIEF)
        match = re.search(r"visual tokens, (\d+)% kept", answer.err)
        assert match is not None
        shares[keep] = int(match[1])
    assert shares["all"] == 100
    assert shares[0] >= shares[19] > shares[30]
    assert shares[30] < 60


def test_chat_answers_text_with_the_system_prompt(folder: Path, ask: Ask) -> None:
    answer = ask("ckpt", "Who are you?", *BRIEF)
    assert answer.out == _expected(folder, "Who are you?") + "\n"
    assert answer.err.startswith("no visual tokens; first token")
    for system in ("", "Be brief."):
        other = ask("ckpt", "Who are you?", "--system", system, *BRIEF)
        assert other.out == _expected(folder, "Who are you?", system=system) + "\n"
        assert other.out != answer.out


def test_lines_of_a_pipe_are_turns_of_one_conversation(ask: Ask) -> None:
    answer = ask("ckpt", "--image", "a.png", *BRIEF, stdin="What?\n\n  \nSure?\n/quit\nWhat else?\n")
    assert answer.code == 0
    assert answer.err.count("35 visual tokens") == 2, "two answers, and the image stays"
    assert re.search(r"35 visual tokens, 100% kept, \d+ of \d+ tokens known; first token", answer.err.splitlines()[1])
    first = ask("ckpt", "--image", "a.png", "What?", *BRIEF).out
    assert answer.out.startswith(first)
    alone = ask("ckpt", "--image", "a.png", "Sure?", *BRIEF).out
    assert answer.out.removeprefix(first) != alone, "what was said before is known"


def test_dash_reads_the_whole_prompt_from_a_pipe(folder: Path, ask: Ask) -> None:
    answer = ask("ckpt", "-", *BRIEF, stdin="What\n\nis it?\n")
    assert answer.out == _expected(folder, "What\n\nis it?") + "\n"


@pytest.mark.parametrize("prompt", ["-", None])
def test_pipe_with_invalid_utf8_is_a_one_line_error(
    folder: Path, prompt: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipeline.commands.app import main

    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["vl3syn", "chat", "ckpt", *filter(None, [prompt])])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Caf\xe9?\n"), encoding="utf-8"))
    with pytest.raises(SystemExit) as left:
        main()
    output = capsys.readouterr()
    assert (left.value.code, output.out) == (1, "")
    assert output.err.startswith("vl3syn: message 1: not valid Unicode: U+DCE9 at character 3 is half of one")
    assert output.err.count("\n") == 1


def test_dtype_can_be_chosen(ask: Ask) -> None:
    exact, half = (ask("ckpt", "Who?", "--dtype", dtype, "--max-new-tokens", 60) for dtype in ("float32", "bfloat16"))
    assert exact.code == half.code == 0
    assert exact.out != half.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ckpt", "--image", "none.jpg", "?"), "none.jpg: no such file"),
        (("ckpt", "--video", "a.txt", "?"), "a.txt: cannot be read as a video"),
        (("ckpt", "--image", "a.txt", "?"), "cannot read a.txt"),
        (("ckpt", "--image", ".", "?"), ".: a folder, not a file: name an image or a film in it"),
        (("ckpt", "--video", ".", "?"), "is no frame: leave only the film's frames there, as .jpg, .jpeg, .png"),
        (("ckpt", "\udcff?"), "message 1: not valid Unicode: U+DCFF at character 0 is half of one"),
        (("ckpt", "?", "--system", "a\udcff"), "message 0: not valid Unicode: U+DCFF at character 1 is half of one"),
        (("none", "?"), "config.json: cannot be read: give a folder with a checkpoint"),
        (("ckpt", "--video", "clip.mp4", "--start", "60", "?"), "behind the end: start 60 s, the film ends at"),
        (("ckpt", "--device", "nonsense", "?"), "--device nonsense: "),
        (("ckpt", "--device", "meta", "?"), "--device meta: holds no weights: use cuda or cpu"),
        (("ckpt", "--image", "/dev/zero", "?"), "/dev/zero: not a file, but a pipe, socket or device"),
        (("ckpt", "--max-new-tokens", "40000", "?"), "the model reads 32768"),
    ],
)
def test_user_errors_are_one_line_with_exit_code_1(
    folder: Path, ask: Ask, arguments: tuple[str, ...], message: str
) -> None:
    (folder / "a.txt").write_text("neither an image nor a video")
    answer = ask(*arguments)
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("vl3syn: ")
    assert message in answer.err
    assert answer.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("ckpt", "?", "--keep", "3"),
        ("ckpt", "?", "--fps", "2"),
        ("ckpt", "?", "--video", "clip.mp4", "--keep", "most"),
        ("ckpt", "?", "--video", "clip.mp4", "--keep", "300"),
        ("ckpt", "?", "--dtype", "int8"),
        ("ckpt", "?", "--top-p", "2"),
        ("ckpt", "?", "--temperature", "1e-320"),
        ("ckpt", "?", "--temperature", "nan"),
        ("ckpt", "?", "--video", "clip.mp4", "--part", "5"),
        (),
    ],
)
def test_wrong_usage_is_exit_code_2(ask: Ask, arguments: tuple[str, ...]) -> None:
    answer = ask(*arguments)
    assert (answer.code, answer.out) == (2, "")


@pytest.mark.thorough
def test_ctrl_c_stops_an_answer_and_the_chat_goes_on(folder: Path) -> None:
    command = [sys.executable, "-m", "pipeline", "chat", folder / "ckpt", "--max-new-tokens", "30000"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, **pipes, env=environment) as running:  # type: ignore[call-overload]
        for _ in range(2):
            running.stdin.write(b"What?\n")
            running.stdin.flush()
            assert running.stdout.read(20)
            running.send_signal(signal.SIGINT)
            assert b"no visual tokens" in running.stderr.readline()
        out, err = running.communicate(timeout=60)  # which also ends the pipe
        assert running.returncode == 0, err.decode()
    assert len(out) < 25_000
    assert err == b""


def test_long_film_is_read_in_parts_and_answered_in_text(ask: Ask) -> None:
    said = ask("ckpt", "What happens?", "--video", "clip.mp4", "--long", "--part", 2, "--fps", 1, *BRIEF)
    assert said.code == 0
    assert re.findall(r"^(\d\.\d)-(\d\.\d) s: ", said.err, re.MULTILINE) == [("0.0", "2.0"), ("2.0", "4.0")]
    assert "no visual tokens" in said.err
    assert said.out.strip()


@pytest.mark.parametrize(
    ("film", "part", "error"),
    [
        ("clip.mp4", "0", "parts of 0 s: give at least 2"),
        ("clip.mp4", "nan", "parts of nan s: give at least 2"),
        ("ckpt/config.json", "5", "ckpt/config.json: "),
    ],
)
def test_long_film_is_checked_before_the_model(ask: Ask, film: str, part: str, error: str) -> None:
    said = ask("none", "What?", "--video", film, "--long", "--part", part)
    assert (said.code, said.out) == (1, "")
    assert error in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("others", [["--image", "a.png"], ["--start", "1"], ["--video", "clip.mp4"]])
def test_long_takes_one_whole_film(ask: Ask, others: list[str]) -> None:
    said = ask("ckpt", "What?", "--video", "clip.mp4", "--long", *others)
    assert (said.code, said.out) == (2, "")
