"""Code that lies in a model's folder is never run, whatever is piped to the command that opens it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.checkpoints import save_blip, save_blip2, save_clip, save_internvl
from tests.model.training import training_data

YES = "y\n" * 50

_CODE = """
import pathlib
pathlib.Path({canary!r}).write_text("ran")
from transformers import AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerFast, ProcessorMixin
class EvilConfig(BertConfig):
    model_type = "evil"
class EvilModel(BertModel):
    config_class = EvilConfig
class EvilTokenizer(PreTrainedTokenizerFast):
    pass
class EvilProcessor(ProcessorMixin):
    attributes = []
def generate(*args, **kwargs):
    pass
"""

_MAP = {
    "AutoConfig": "evil.EvilConfig",
    **dict.fromkeys(("AutoModel", "AutoModelForCausalLM", "AutoModelForImageTextToText"), "evil.EvilModel"),
    **dict.fromkeys(("AutoProcessor", "AutoImageProcessor", "AutoVideoProcessor"), "evil.EvilProcessor"),
}


class Told(NamedTuple):
    code: int
    out: str
    err: str


def poison(folder: Path, canary: Path, classes: bool) -> Path:
    """Put code into a model's folder; `classes`: the tokenizer's and processor's are known by no library."""
    (folder / "evil.py").write_text(_CODE.format(canary=str(canary)))
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate/generate.py").write_text(_CODE.format(canary=str(canary)))
    for file in folder.glob("*config.json"):
        settings = json.loads(file.read_text())
        settings["auto_map"] = {**_MAP, "AutoTokenizer": ["evil.EvilTokenizer", "evil.EvilTokenizer"]}
        settings["custom_generate"] = str(folder)
        for part in ("text_config", "vision_config"):
            if part in settings:
                settings[part]["auto_map"] = _MAP
        if classes:
            changed = {key: "EvilTokenizer" for key in ("tokenizer_class", "processor_class") if key in settings}
            settings |= changed
        file.write_text(json.dumps(settings))
    return folder


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.fixture
def vl3syn_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Told]:
    """A command, within this process, with yes piped into it."""
    from pipeline.commands.app import main

    def call(*arguments: object) -> Told:
        monkeypatch.setattr(sys, "argv", ["vl3syn", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(YES))
        code: Any = 0
        try:
            main()
        except SystemExit as left:
            code = left.code
        return Told(code or 0, *capsys.readouterr())

    return call


def _checkpoint(folder: Path) -> Path:
    from model import Processor, VideoLLaMA3
    from model.config import preset

    VideoLLaMA3(preset("tiny")).save_pretrained(folder)
    Processor.tiny().save_pretrained(folder)
    return folder


@pytest.mark.thorough
def test_chat_with_a_piped_yes_runs_no_foreign_code(tmp_path: Path, canary: Path) -> None:
    folder = poison(_checkpoint(tmp_path / "ckpt"), canary, classes=True)
    command = [sys.executable, "-m", "pipeline", "chat", str(folder)]
    done = subprocess.run(command, input=YES, capture_output=True, text=True, timeout=120, check=False)
    assert not canary.exists()
    assert done.returncode == 1
    assert (
        "its tokenizer is code of its own (auto_map in tokenizer_config.json), which is never run: give" in done.stderr
    )
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Do you wish to run" not in done.stdout


def _commands(folder: Path, tmp_path: Path) -> dict[str, list[object]]:
    shards = training_data.shards(tmp_path / "shards", images=4)
    written = training_data.recipe(tmp_path / "data", steps=1)
    written = {**written, "stages": written["stages"][:1]}
    written["sources"].pop("qa")
    language = tmp_path / "language.yaml"
    language.write_text(yaml.safe_dump({**written, "model": {"preset": "tiny", "tokenizer": str(folder)}}))
    start = tmp_path / "start.yaml"
    start.write_text(yaml.safe_dump({**written, "model": {"checkpoint": str(folder)}}))
    return {
        "chat": ["chat", folder, "What?", "--max-new-tokens", 2],
        "eval": ["eval", folder, "--data", shards, "--max-new-tokens", 0],
        "train from it": ["train", start, "--run", tmp_path / "out"],
        "train with its tokenizer": ["train", language, "--run", tmp_path / "out"],
    }


@pytest.mark.parametrize("name", ["chat", "eval", "train from it", "train with its tokenizer"])
@pytest.mark.parametrize("classes", [True, False], ids=["its own classes", "known classes"])
def test_model_commands_run_no_foreign_code(
    tmp_path: Path,
    canary: Path,
    vl3syn_here: Callable[..., Told],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    classes: bool,
) -> None:
    """With known classes the folder opens as they read it; else it is one line. Nobody is asked, who could say yes."""
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda question="": asked.append(question) or "y")
    folder = poison(_checkpoint(tmp_path / "ckpt"), canary, classes)
    done = vl3syn_here(*_commands(folder, tmp_path)[name])
    assert not canary.exists()
    assert done.code == (1 if classes else 0), done.err
    assert asked == []
    if classes:
        assert "which is never run: give a folder whose tokenizer.json" in done.err
        assert len(done.err.strip().splitlines()) == 1


def test_exported_model_has_no_foreign_code(tmp_path: Path, canary: Path, vl3syn_here: Callable[..., Told]) -> None:
    folder = poison(_checkpoint(tmp_path / "ckpt"), canary, classes=False)
    vl3syn_here(*_commands(folder, tmp_path)["train from it"])
    assert "auto_map" not in (tmp_path / "out/1-first/model/config.json").read_text()
    assert not canary.exists()


def test_training_from_parts_runs_no_foreign_code(
    tmp_path: Path, canary: Path, vl3syn_here: Callable[..., Told]
) -> None:
    """A language model's folder of its own."""
    from model import Processor
    from model.config import preset
    from model.language import build_language
    from model.training.recipe import Start

    config = preset("tiny")
    language = build_language(config.language)
    language.save_pretrained(tmp_path / "language")
    Processor.tiny().save_pretrained(tmp_path / "language")
    poison(tmp_path / "language", canary, classes=True)
    written = training_data.recipe(tmp_path / "data", steps=1)
    start = Start(vision=str(_checkpoint(tmp_path / "vision")), language=str(tmp_path / "language"))
    recipe = tmp_path / "parts.yaml"
    recipe.write_text(yaml.safe_dump({**written, "model": start.model_dump()}))
    done = vl3syn_here("train", recipe, "--run", tmp_path / "out")
    assert done.code == 1
    assert not canary.exists()
    assert "\nDo you wish" not in done.out


@pytest.mark.parametrize("classes", [True, False], ids=["its own classes", "known classes"])
@pytest.mark.parametrize("save", [save_blip, save_blip2])
def test_coarse_captioner_runs_no_foreign_code(
    tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch, save: Callable[[Path], Path], classes: bool
) -> None:
    from captioners.coarse import CoarseCaption

    monkeypatch.setattr(sys, "stdin", io.StringIO(YES))
    folder = poison(save(tmp_path / "model"), canary, classes)
    try:
        CoarseCaption(model=str(folder)).load()
    except ValueError as error:
        assert classes, error  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
    assert not canary.exists()


@pytest.mark.parametrize("classes", [True, False], ids=["its own classes", "known classes"])
def test_transformers_engine_runs_no_foreign_code(
    tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch, classes: bool
) -> None:
    from captioners.engines.base import Sampling
    from captioners.engines.transformers import Transformers

    monkeypatch.setattr(sys, "stdin", io.StringIO(YES))
    folder = poison(save_internvl(tmp_path / "model"), canary, classes)
    try:
        Transformers().load(str(folder), "short_caption", None, Sampling(4, 0.0, 1.0, 0))
    except ValueError as error:
        assert classes, error  # noqa: PT017
        assert "needs code out of its own folder (auto_map), which is never run: give a model" in str(error)  # noqa: PT017
    assert not canary.exists()


@pytest.mark.parametrize("trust", [True, False])
def test_tokenizer_of_a_clip_encoder_runs_no_foreign_code(
    tmp_path: Path, canary: Path, vl3syn_here: Callable[..., Told], trust: bool
) -> None:
    """open_clip hands what `tokenizer_kwargs` has to transformers, trust in code too."""
    from model import Processor

    clip = save_clip(tmp_path / "clip")
    Processor.tiny().save_pretrained(clip)
    poison(clip, canary, classes=True)
    settings = json.loads((clip / "open_clip_config.json").read_text())
    settings["model_cfg"]["text_cfg"] |= {"hf_tokenizer_name": "any"}
    if trust:
        settings["model_cfg"]["text_cfg"] |= {"tokenizer_kwargs": {"trust_remote_code": True}}
    (clip / "open_clip_config.json").write_text(json.dumps(settings))
    command = _commands(_checkpoint(tmp_path / "ckpt"), tmp_path)["eval"][:-1]
    said = vl3syn_here(*command, 2, "--encoder", clip)
    assert not canary.exists()
    assert said.code == 1
    assert "needs code out of its own folder (auto_map), which is never run" in said.err


def test_text_tower_of_a_clip_encoder_runs_no_foreign_code(
    tmp_path: Path, canary: Path, vl3syn_here: Callable[..., Told]
) -> None:
    clip, tower = save_clip(tmp_path / "clip"), tmp_path / "tower"
    tower.mkdir()
    (tower / "config.json").write_text(json.dumps({"model_type": "evil"}))
    poison(tower, canary, classes=True)
    settings = json.loads((clip / "open_clip_config.json").read_text())
    settings["model_cfg"] |= {"custom_text": True}
    settings["model_cfg"]["text_cfg"] |= {"hf_model_name": str(tower), "hf_tokenizer_name": str(tower)}
    (clip / "open_clip_config.json").write_text(json.dumps(settings))
    command = _commands(_checkpoint(tmp_path / "ckpt"), tmp_path)["eval"][:-1]
    said = vl3syn_here(*command, 2, "--encoder", clip)
    assert not canary.exists()
    assert said.code == 1
    assert f"its text tower {tower} needs code of its own, which is never run" in said.err
