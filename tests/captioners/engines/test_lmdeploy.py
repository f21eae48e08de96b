"""The engine `lmdeploy` without lmdeploy: a stand-in has its signatures. What a GPU computes is not tested here."""

from __future__ import annotations

import ast
import inspect
import logging
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import yaml
from PIL import Image

from captioners.engines import lmdeploy as engine
from captioners.engines.base import Sampling
from captioners.engines.lmdeploy import Lmdeploy
from captioners.recaption import ShortCaption
from core.errors import UserError
from tests.captioners.engines import stand_in_lmdeploy
from tests.checkpoints import save_internvl
from tests.pipeline.execution.pipelines import compute_images

ROOT = Path(__file__).parents[3]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
GREEDY = Sampling(8, 0.0, 1.0, 0)


@pytest.fixture
def lmdeploy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The stand-in, installed as the package lmdeploy."""
    site = tmp_path / "site"
    (site / "lmdeploy").mkdir(parents=True)
    shutil.copy(stand_in_lmdeploy.__file__, site / "lmdeploy" / "__init__.py")
    (site / "lmdeploy-0.18.0.dist-info").mkdir()
    (site / "lmdeploy-0.18.0.dist-info" / "METADATA").write_text("Name: lmdeploy\nVersion: 0.18.0\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(engine, "check_driver", lambda what: None)
    import lmdeploy

    yield lmdeploy
    sys.modules.pop("lmdeploy")


@pytest.fixture
def with_code(tmp_path: Path) -> tuple[Path, Path]:
    """A model in the layout of InternVL2, whose tokenizer is a class in its folder, and the file that it writes."""
    folder, canary = save_internvl(tmp_path / "model"), tmp_path / "ran"
    source = "from pathlib import Path\nfrom transformers import PreTrainedTokenizerFast\n\n"
    source += f"Path({str(canary)!r}).touch()\n\nclass Words(PreTrainedTokenizerFast): pass\n"
    (folder / "tokenization_internlm2.py").write_text(source)
    settings = '{"tokenizer_class": "Words", "auto_map": {"AutoTokenizer": ["tokenization_internlm2.Words", null]}}'
    (folder / "tokenizer_config.json").write_text(settings)
    (folder / "config.json").write_text('{"model_type": "internvl_chat", "architectures": ["InternVLChatModel"]}')
    return folder, canary


@pytest.mark.usefixtures("lmdeploy")
def test_model_with_code_is_refused_and_its_code_not_run(with_code: tuple[Path, Path]) -> None:
    folder, canary = with_code
    with pytest.raises(UserError, match=r"needs code out of its own folder .* trust_remote_code: true and a rev"):
        Lmdeploy().load(str(folder), "short_caption", None, GREEDY)
    assert not canary.exists()


@pytest.mark.usefixtures("lmdeploy")
def test_trust_remote_code_loads_a_model_with_code(with_code: tuple[Path, Path]) -> None:
    folder, canary = with_code
    loaded = Lmdeploy(trust_remote_code=True).load(str(folder), "short_caption", None, GREEDY)
    assert canary.exists()
    assert loaded.provenance["trust_remote_code"] is True


def test_trust_remote_code_warns_once_and_names_the_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "config.json").write_text("{}")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            Lmdeploy(trust_remote_code=True).check_available(str(tmp_path), "short_caption", None)
        Lmdeploy().check_available(str(tmp_path), "short_caption", None)
    (said,) = caplog.messages
    code = f"Python code of the author of {tmp_path} runs with your rights on each node"
    assert said == f"short_caption: trust_remote_code: {code}"


@pytest.mark.usefixtures("lmdeploy")
@pytest.mark.parametrize("step", ["check_available", "load"])
def test_trust_remote_code_without_a_commit_is_refused(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.pretrained, "check_available", lambda *a, **k: None)  # the hub is not there
    arguments = ("OpenGVLab/InternVL2-8B", "short_caption", "main", *((GREEDY,) if step == "load" else ()))
    with pytest.raises(UserError, match="give `revision`, the commit that you have read"):
        getattr(Lmdeploy(trust_remote_code=True), step)(*arguments)


def test_load_passes_every_setting_to_lmdeploy(lmdeploy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []

    def pipeline(*arguments: Any, **named: Any) -> Any:
        calls.append(inspect.signature(stand_in_lmdeploy.pipeline).bind(*arguments, **named).arguments)
        return lmdeploy.Pipeline(named["backend_config"])

    monkeypatch.setattr(lmdeploy, "pipeline", pipeline)
    settings = Lmdeploy(tensor_parallel=2, session_len=8192, trust_remote_code=True)
    loaded = settings.load("OpenGVLab/InternVL2-8B", "short_caption", COMMIT, GREEDY)
    backend = lmdeploy.TurbomindEngineConfig(tp=2, session_len=8192, revision=COMMIT)
    assert calls == [
        {"model_path": "OpenGVLab/InternVL2-8B", "backend_config": backend, "trust_remote_code": True},
    ]
    assert loaded.provenance == {
        "engine": "lmdeploy",
        "lmdeploy": "0.18.0",
        "trust_remote_code": True,
        "revision": COMMIT,
    }
    assert "trust_remote_code" not in Lmdeploy().load("a/b", "short_caption", None, GREEDY).provenance
    assert calls[1]["trust_remote_code"] is False


def test_engine_settings_are_in_no_fingerprint() -> None:
    plain = ShortCaption(engine={"kind": "lmdeploy"}).fingerprint_settings()  # type: ignore[arg-type]
    changed = {"kind": "lmdeploy", "concurrency": 7, "trust_remote_code": True, "tensor_parallel": 2}
    assert ShortCaption(engine=changed).fingerprint_settings() == plain  # type: ignore[arg-type]


def test_long_answer_does_not_stop_the_images_behind_it(
    tmp_path: Path, tiny_internvl: Path, lmdeploy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first image is answered when all others are: more of them than one batch of earlier versions, 128."""
    images, answered, others_done = 140, [0], threading.Event()
    lock, beside_the_first = threading.Lock(), threading.Barrier(lmdeploy.Pipeline.slots - 1)

    def answer(prompt: str, image: Image.Image) -> str:
        if image.width == 1:
            assert others_done.wait(20), "the engine waits for its longest answer, and gets no more images"
        elif image.width <= lmdeploy.Pipeline.slots:
            beside_the_first.wait(20)  # all slots are in use
        with lock:
            answered[0] += 1
            if answered[0] == images - 1:
                others_done.set()
        return f"An image, {image.width} pixels wide."

    monkeypatch.setattr(lmdeploy.Pipeline, "answer", staticmethod(answer))
    (tmp_path / "pool").mkdir()
    for width in range(1, images + 1):
        Image.new("RGB", (width, 3)).save(tmp_path / "pool" / f"{width:03}.png")
    stage = ShortCaption(model=str(tiny_internvl), engine={"kind": "lmdeploy", "concurrency": 16})  # type: ignore[arg-type]
    names = [f"{width:03}.png" for width in range(1, images + 1)]
    rows = compute_images(tmp_path, stage, stage.load(), names, batch_size=stage.batch_size).to_pylist()
    assert [row["short_caption"] for row in rows] == [f"An image, {w} pixels wide." for w in range(1, images + 1)]


def test_recipes_start_servers_that_may_load_their_model() -> None:
    """InternVL2's tokenizer is code in its folder: the server needs the flag, and a commit of what it runs."""
    starts = 0
    for path in sorted((ROOT / "recipes").glob("*.yaml")):
        for stage in yaml.safe_load(path.read_text()).get("stages", []):
            command = str((stage.get("engine") or {}).get("start", "")) if isinstance(stage, dict) else ""
            if "lmdeploy serve" in command and not stage["model"].endswith("-hf"):
                assert {"--trust-remote-code", "--revision"} <= set(command.split()), path
                assert "{revision}" in command
                assert stage["revision"]
                starts += 1
    assert starts == 2


def parameters(function: ast.FunctionDef) -> dict[str, str | None]:
    """The parameters of a function in source text, with their defaults."""
    names = [argument.arg for argument in function.args.args if argument.arg != "self"]
    defaults = [ast.unparse(default) for default in function.args.defaults]
    return dict(zip(names, [None] * (len(names) - len(defaults)) + defaults, strict=True))


def fields(class_: ast.ClassDef) -> dict[str, str | None]:
    """The fields of a dataclass in source text, with their defaults."""
    lines = [line for line in class_.body if isinstance(line, ast.AnnAssign)]
    return {ast.unparse(line.target): line.value and ast.unparse(line.value) for line in lines}


def definition(source: str, *path: str) -> Any:
    node: Any = ast.parse(source)
    for name in path:
        node = next(child for child in node.body if getattr(child, "name", "") == name)
    return node


@pytest.fixture
def wheel() -> Callable[[str], str]:
    """`wheel(file)`: a file of lmdeploy 0.18's wheel, as text."""
    path = os.environ.get("VL3SYN_LMDEPLOY_WHEEL")
    if not path:
        pytest.skip("VL3SYN_LMDEPLOY_WHEEL names no wheel (pip download --no-deps 'lmdeploy==0.18.*')")
    return lambda file: ZipFile(path).read(f"lmdeploy/{file}").decode()


def test_stand_in_has_the_signatures_of_the_wheel(wheel: Callable[[str], str]) -> None:
    ours = Path(stand_in_lmdeploy.__file__).read_text()
    assert parameters(definition(ours, "pipeline")) == {
        name: default and default.replace("'", '"').replace('"', "'")
        for name, default in parameters(definition(wheel("api.py"), "pipeline")).items()
    }
    call = parameters(definition(wheel("pipeline.py"), "Pipeline", "__call__"))
    assert parameters(definition(ours, "Pipeline", "__call__")) == call
    messages = wheel("messages.py")
    for name in ("TurbomindEngineConfig", "GenerationConfig", "Response"):
        theirs = fields(definition(messages, name))
        assert fields(definition(ours, name)).items() <= theirs.items(), name


def test_flags_of_recipes_are_in_the_wheel(wheel: Callable[[str], str]) -> None:
    recipe = yaml.safe_load((ROOT / "recipes" / "vl3syn7m.yaml").read_text())
    commands = [(stage.get("engine") or {}).get("start", "") for stage in recipe["stages"]]
    flags = {word for command in commands for word in command.split() if word.startswith("--")}
    known = wheel("cli/serve.py") + wheel("cli/utils.py")
    assert len(flags) >= 6
    assert {flag for flag in flags if f"'{flag}'" not in known} == set()
