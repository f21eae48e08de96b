"""lmms-eval asks `vl3syn serve`: its published tasks, its own scores, and what `vl3syn eval` says of the same data.

lmms-eval has an environment of its own: `make setup-lmms`. Its tasks are the published ones; only the data are made
here (`tests/lmms_eval_tasks.py`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from captioners.engines.server_process import start_server
from model import Processor, VideoLLaMA3
from model.config import preset
from model.scored_samples import ScoredSamples
from model.scored_tasks import TASKS
from model.training.data.annotations import AnnotationSource
from tests.lmms_eval_tasks import Asked, make, teach
from tests.model.oracles import widen

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TOKENS = {"ai2d_here": 16, "mvbench_here": 16, "charades_here": 50}  # as the published tasks say
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def python() -> Path:
    """The Python with lmms-eval: of `make setup-lmms`, or of the variable VL3SYN_LMMS_PYTHON."""
    python = Path(os.environ.get("VL3SYN_LMMS_PYTHON") or ROOT / ".venv-lmms/bin/python")
    if not python.exists():
        pytest.fail("lmms-eval's environment is missing: run `make setup-lmms`")
    return python


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lmms")


@pytest.fixture(scope="module")
def asked(root: Path, python: Path) -> dict[str, list[Asked]]:
    where = "import importlib.util as u; print(u.find_spec('lmms_eval').submodule_search_locations[0])"
    package = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True).stdout.strip()
    return make(root, Path(package) / "tasks")


@pytest.fixture(scope="module")
def checkpoint(root: Path, asked: dict[str, list[Asked]]) -> Path:
    """A model that answers each question as it was taught."""
    config = preset("tiny")
    shape = preset("small").language | {"num_hidden_layers": 1, "tie_word_embeddings": False}
    model, processor = VideoLLaMA3(config.model_copy(update={"language": shape})), Processor.tiny()
    widen(model)
    teach(model, processor, [one for questions in asked.values() for one in questions])
    folder = root / "checkpoint"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def url(root: Path, checkpoint: Path) -> Iterator[str]:
    command = f"{sys.executable} -m pipeline serve {{model}} --port {{port}} --name mine --system '' --dtype float32"
    served = start_server(f"{command} --media {root}/hf", str(checkpoint), 240, "test")
    yield served.url
    served.stop()


@pytest.fixture
def evaluate(vl3syn: Command, checkpoint: Path) -> Command:
    return partial(vl3syn, "eval", checkpoint)


@dataclass(frozen=True)
class Results:
    """What lmms-eval wrote: the scores of each task, and the answers in the order of its questions."""

    scores: Mapping[str, Mapping[str, Any]]
    answers: Mapping[str, Sequence[str]]


@pytest.fixture(scope="module")
def results(root: Path, python: Path, url: str) -> Results:
    arguments = f"model=mine,base_url={url},api_key=none,pass_video_url=True,max_frames_num=180,timeout=120"
    command = [python, "-m", "lmms_eval", "--model", "openai", "--model_args", f"{arguments},num_concurrent=1"]
    command += ["--include_path", root / "tasks", "--tasks", ",".join(TOKENS), "--batch_size", "1"]
    command += ["--output_path", root / "out", "--log_samples"]
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    offline = {"HF_HOME": str(root / "hf"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(
        list(map(str, command)), env=kept | offline, cwd=root / "data", capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stderr[-5000:]
    scores = json.loads(next((root / "out").rglob("*_results.json")).read_text())["results"]
    answers = {}
    for task in TOKENS:
        lines = next((root / "out").rglob(f"*_samples_{task}.jsonl")).read_text().splitlines()
        samples = sorted(map(json.loads, lines), key=lambda sample: int(sample["doc_id"]))
        answers[task] = [sample["filtered_resps"] for sample in samples]
    return Results(scores, answers)


def test_every_question_is_answered_as_taught(results: Results, asked: dict[str, list[Asked]]) -> None:
    """No request failed: lmms-eval counts an error's text as an answer."""
    assert results.answers == {task: [one.logged for one in questions] for task, questions in asked.items()}


def _evaluated(evaluate: Command, root: Path, task: str, *arguments: str) -> tuple[dict[str, Any], list[str]]:
    """The scores of `vl3syn eval`, and its answers."""
    out = root / f"{task}.predictions.jsonl"
    done = evaluate(
        "--data", root / f"{task}.jsonl", "--root", root / "hf", "--max-new-tokens", TOKENS[task],
        "--dtype", "float32", "--predictions", out, "--json", *arguments,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["scores"], [json.loads(line)["answer"] for line in out.read_text().splitlines()]


def test_images_have_answers_and_accuracy_of_eval(results: Results, root: Path, evaluate: Command) -> None:
    scores, answers = _evaluated(evaluate, root, "ai2d_here", "--task", "choice")
    assert [answer[:1] for answer in answers] == results.answers["ai2d_here"]
    assert scores["means"]["accuracy"]["value"] == results.scores["ai2d_here"]["exact_match,flexible-extract"] == 4 / 6


def test_spans_have_answers_and_iou_of_eval(results: Results, root: Path, evaluate: Command) -> None:
    """IoU: 1, 2/4, nothing read, 1/2 and nothing."""
    theirs = results.scores["charades_here"]
    scores, answers = _evaluated(evaluate, root, "charades_here", "--task", "grounding", "--scoring", "lmms-eval")
    assert answers == results.answers["charades_here"]
    means = {name: mean["value"] for name, mean in scores["means"].items()}
    assert means == {
        "mIoU": pytest.approx(theirs["charades_sta_mIOU,none"] / 100),
        "R@1_0.3": pytest.approx(theirs["charades_sta_IOU@3,none"] / 100),
        "R@1_0.5": pytest.approx(theirs["charades_sta_IOU@5,none"] / 100),
        "R@1_0.7": pytest.approx(theirs["charades_sta_IOU@7,none"] / 100),
    }
    assert means["mIoU"] == pytest.approx(2 / 5)
    assert scores["unread"] == 2


def test_options_of_films_have_the_accuracy_of_our_scorer(results: Results, root: Path) -> None:
    """The answers are not compared: the published prompt ends with a line break, which annotations do not have."""
    source = AnnotationSource("mvbench", str(root / "mvbench_here.jsonl"), roots=[str(root / "hf")])
    samples = ScoredSamples([source.sample(row) for row in range(4)], TASKS["choice"]())
    answers = zip((sample.name for sample in samples), results.answers["mvbench_here"], strict=True)
    scores = samples.scores(dict(answers))
    assert scores.means["accuracy"].value * 100 == results.scores["mvbench_here"]["mvbench_accuracy,none"] == 75
