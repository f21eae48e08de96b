"""`vl3syn eval --task`: scores of right and wrong answers, with a small random model whose answers are known."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest


class Told(NamedTuple):
    code: int
    out: str
    err: str


Ask = Callable[..., Told]
BRIEF = ("--max-new-tokens", 4)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from model import Processor, VideoLLaMA3
    from model.config import preset
    from tests.model.oracles import widen

    folder = tmp_path_factory.mktemp("tasks") / "ckpt"
    model = VideoLLaMA3(preset("tiny"))
    widen(model)
    model.save_pretrained(folder)
    Processor.tiny().save_pretrained(folder)
    return folder


@pytest.fixture
def ask(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Call `vl3syn eval ckpt --data qa.jsonl --predictions out.jsonl` within this process."""
    from pipeline.commands.app import main

    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Told:
        given = ("--data", "qa.jsonl", "--predictions", "out.jsonl", *map(str, (*BRIEF, *arguments)))
        monkeypatch.setattr(sys, "argv", ["vl3syn", "eval", str(checkpoint), *given])
        code: Any = 0
        try:
            main()
        except SystemExit as left:
            code = left.code
        return Told(code or 0, *capsys.readouterr())

    return call


def _write(*entries: tuple[str, str] | tuple[str, str, Any]) -> None:
    """Write questions with their answers, and references if there are any, as annotations."""
    lines = []
    for question, answer, *references in entries:
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
        lines.append({"conversations": turns, **({"references": references[0]} if references else {})})
    Path("qa.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _predictions() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]


def _said(ask: Ask, question: str) -> str:
    """What the model answers to a question."""
    _write((question, "It."))
    assert ask().code == 0
    return str(_predictions()[0]["answer"])


def test_questions_are_scored_by_the_references_of_annotations(ask: Ask) -> None:
    said = _said(ask, "What?")
    _write(("What?", "It."), ("What?", "It.", ["no", said]), ("What?", "It.", {"a": 1}))
    done = ask("--task", "vqa", "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    lines = _predictions()
    assert [line["scores"]["references"] for line in lines] == [["It."], ["no", said]]
    assert lines[1]["scores"] | {"references": None} == {
        "references": None, "ANLS": 1.0, "relaxed_accuracy": 1.0, "vqa_accuracy": None,
    }  # fmt: skip
    assert result["answers"] is None
    assert result["scores"] == {
        "task": "vqa", "scoring": "standard", "unread": None,
        "means": {
            name: {"value": pytest.approx(sum(line["scores"][name] for line in lines) / 2), "count": 2}
            for name in ("ANLS", "relaxed_accuracy")
        },
        "groups": {},
        "left_out": ["eval: qa.jsonl line 3: `references` must be a list of texts"],
    }  # fmt: skip
    assert "left out eval: qa.jsonl line 3: `references` must be a list of texts\n" in done.err


def test_choices_are_scored_and_unread_answers_counted(ask: Ask) -> None:
    """An option whose text is the model's answer is named by it; in the other question no option is."""
    said = [_said(ask, "What?\n(A) no\n(B) yes"), "B"]
    _write(("What?\n(A) no\n(B) yes", "(B) yes"), ("What?\n(A) no\n(B) yes", "A cat."))
    done = ask("--task", "choice")
    assert done.code == 0, done.err
    table = [" ".join(line.split()) for line in done.out.splitlines()]
    assert "accuracy 0 1; 1 answer" in table
    assert "unread 1 1 answer; no option in it, so it scores 0" in table
    assert "left out 1 samples that do not count for this task" in table
    assert not any(line.startswith("chrF") for line in table)
    (line,) = _predictions()
    assert (line["answer"], line["scores"]) == (said[0], {"choice": None, "reference_choice": "B", "accuracy": 0.0})


@pytest.mark.parametrize("task", ["grounding", "dense-captions"])
def test_spans_are_scored_where_the_reference_has_some(ask: Ask, task: str) -> None:
    _write(("When?", "1.0-2.0 s: he sits"), ("What?", "A cat."))
    done = ask("--task", task, "--json")
    assert done.code == 0, done.err
    scores = json.loads(done.out)["scores"]
    assert (scores["unread"], len(scores["left_out"])) == (1, 1)
    assert {mean["value"] for mean in scores["means"].values()} == {0}
    assert {mean["count"] for mean in scores["means"].values()} == {1}
    (line,) = _predictions()
    assert (line["scores"]["spans"], line["scores"]["reference_spans"]) == ([], [[1.0, 2.0]])


def test_other_scoring_is_named_in_the_table(ask: Ask) -> None:
    _write(("When?", "1.0-2.0 s"))
    table = " ".join(ask("--task", "grounding", "--scoring", "videollama3").out.split())
    assert "mIoU 0 1; 1 answer; scored as videollama3 does" in table


def test_scores_by_a_key_are_rows_of_the_table(ask: Ask) -> None:
    turns = [{"from": "human", "value": "What?\n(A) no\n(B) yes"}, {"from": "gpt", "value": "B"}]
    entries = [{"conversations": turns, "task_type": name} for name in ("Action Count", "State Change")]
    entries += [{"conversations": turns, "task_type": ["Action Count"]}]
    Path("qa.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    done = ask("--task", "choice", "--by", "task_type")
    assert done.code == 0, done.err
    table = [" ".join(line.split()) for line in done.out.splitlines()]
    assert "accuracy, task_type Action Count 0 1; 1 answer" in table
    assert "accuracy, task_type State Change 0 1; 1 answer" in table
    assert "accuracy, mean by task_type 0 1; mean of 2 values of task_type" in table
    assert "left out eval: qa.jsonl line 3: `task_type` is no text or whole number in it\n" in done.err
    groups = json.loads(ask("--task", "choice", "--by", "task_type", "--json").out)["scores"]["groups"]
    score = {"accuracy": {"value": 0, "count": 1}}
    assert groups["task_type"]["values"] == {"Action Count": score, "State Change": score}
    assert groups["task_type"]["means"] == {"accuracy": {"value": 0, "count": 2}}


def test_data_without_a_sample_for_the_task_are_refused(ask: Ask) -> None:
    _write(("What?", "A cat."))
    done = ask("--task", "grounding")
    said = (
        "not one sample counts for --task grounding; the first: eval: qa.jsonl line 1: its reference has no time span"
    )
    assert (done.code, done.out, done.err) == (1, "", f"vl3syn: {said}\n")
    assert not Path("out.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("--task", "captioning"), "--task"),
        (("--task", "choice", "--scoring", "videollama3"), "--scoring"),
        (("--scoring", "videollama3"), "--scoring"),
        (("--task", "vqa", "--scoring", "mine"), "--scoring"),
        (("--task", "vqa", "--scoring", "lmms-eval"), "--scoring"),
        (("--by", "task_type"), "--by"),
        (("--task", "vqa", "--data", "shards", "--by", "task_type"), "--by"),
    ],
)
def test_unknown_task_or_scoring_is_wrong_usage(ask: Ask, arguments: tuple[str, ...], option: str) -> None:
    _write(("What?", "A cat."))
    done = ask(*arguments)
    assert done.code == 2
    assert option in done.err
