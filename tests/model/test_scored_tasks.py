"""Which samples count for a task, and the scores over answers, computed by hand."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import UserError
from model.questions import Question
from model.scored_samples import ScoredSamples
from model.scored_tasks import TASKS, TaskScores
from model.training.data.samples import Sample


def _sample(name: str, question: str, reference: str, references: Any = None, **labels: str | int) -> Sample:
    user = {"role": "user", "content": [{"type": "image", "image": b""}, {"type": "text", "text": question}]}
    return Sample(name, [user, {"role": "assistant", "content": reference}], references, labels)


def _scores(
    task: str, samples: list[Sample], answers: list[str], scoring: str = "standard", by: tuple[str, ...] = ()
) -> TaskScores:
    """Score an answer to each sample that counts."""
    scored = ScoredSamples(samples, TASKS[task](scoring), by)
    return scored.scores({sample.name: answer for sample, answer in zip(scored, answers, strict=True)})


def _values(scores: TaskScores) -> dict[str, tuple[float, int]]:
    return {name: (score.value, score.count) for name, score in scores.means.items()}


def test_recall_of_grounding_is_of_the_first_span_of_each_answer() -> None:
    """IoU 1, 4/8, 4/10 and 0: mIoU 1.9/4. No span is an IoU of 0."""
    samples = [_sample(str(n), "When?", "2.0-6.0 s") for n in range(4)]
    answers = ["From 2 to 6 seconds.", "2.0-10.0 s, 20.0-30.0 s", "He sits 0:00 - 0:10", "Never."]
    scores = _scores("grounding", samples, answers)
    assert {name: score.value for name, score in scores.means.items()} == {
        "mIoU": pytest.approx(1.9 / 4), "R@1_0.3": 3 / 4, "R@1_0.5": 2 / 4, "R@1_0.7": 1 / 4,
    }  # fmt: skip
    assert {score.count for score in scores.means.values()} == {4}
    assert scores.unread == 1
    assert scores.answers["1"] == {
        "spans": [(2.0, 10.0), (20.0, 30.0)], "reference_spans": [(2.0, 6.0)], "IoU": 0.5,
    }  # fmt: skip


def test_videollama3_reads_and_scores_in_its_own_way() -> None:
    """It reads "0:00 - 0:10" as 0 to 0, and counts an answer that says the span twice as 2."""
    samples = [_sample(str(n), "When?", "2.0-6.0 s") for n in range(2)]
    scores = _scores("grounding", samples, ["0:00 - 0:10", "2.0-6.0 s, 2.0-6.0 s"], "videollama3")
    assert scores.scoring == "videollama3"
    assert scores.means["mIoU"].value == (0 + 2) / 2
    assert scores.means["R@1_0.7"].value == 1 / 2


def test_lmms_eval_reads_and_scores_in_its_own_way() -> None:
    """Of two numbers in a sentence it reads none; it takes people for seconds; a reversed span is turned round."""
    samples = [_sample(str(n), "When?", "2.0-6.0 s") for n in range(3)]
    answers = ["It starts at 2 s and ends at 6 s.", "2-3 people; 2.0 - 6.0 s", "6.0 - 4.0"]
    scores = _scores("grounding", samples, answers, "lmms-eval")
    assert scores.scoring == "lmms-eval"
    assert [scores.answers[str(n)]["IoU"] for n in range(3)] == [0, 1 / 4, 2 / 4]
    assert scores.unread == 1


@pytest.mark.parametrize("task", ["grounding", "dense-captions"])
def test_samples_without_spans_in_the_reference_are_named(task: str) -> None:
    samples = [_sample("spans", "When?", "2.0-6.0 s: he sits"), _sample("none", "What?", "A cat."),
               _sample("point", "When?", "2.0-2.0 s")]  # fmt: skip
    scores = _scores(task, samples, ["2.0-6.0 s: he sits"])
    assert list(scores.answers) == ["spans"]
    assert scores.left_out == [
        f"none: {(reason := 'its reference has no time span')}",
        f"point: {reason}",
    ]


def test_dense_captions_have_the_f1_of_mean_precision_and_recall() -> None:
    """Of the first, one of two spans is found: P 1, R 1/2. The second has none: P = R = 0. Means: 1/2, 1/4, F1 1/3.

    SODA: the only pair is worth 1 times ROUGE-L 2/3 ("he sits down" to "he sits": P 2/3, R 1, F1 4/5): 4/5; over one
    event and over two references: P 4/5, R 2/5, F1 8/15. The second has 0.
    """
    reference = "0.0-2.0 s: He sits.\n2.0-4.0 s: He stands."
    samples = [_sample("one", "What happens?", reference), _sample("none", "What happens?", reference)]
    scores = _scores("dense-captions", samples, ["0.0-2.0 s: He sits down.", "Nothing."])
    assert {name: score.value for name, score in scores.means.items()} == {
        **{name: pytest.approx(1 / 3) for name in ("F1", "F1_0.3", "F1_0.5", "F1_0.7", "F1_0.9")},
        "soda_rougeL": pytest.approx(8 / 15 / 2),
    }
    assert scores.unread == 1
    assert scores.answers["one"]["recall"] == {"0.3": 0.5, "0.5": 0.5, "0.7": 0.5, "0.9": 0.5}


def test_soda_leaves_out_references_that_rouge_cannot_read() -> None:
    scores = _scores("dense-captions", [_sample("one", "什么?", "0.0-2.0 s: 他坐下")], ["0.0-2.0 s: 他坐下"])
    assert scores.means["F1"].value == 1
    assert "soda_rougeL" not in scores.means
    assert scores.answers["one"]["soda_rougeL"] is None


def test_questions_are_scored_by_all_references() -> None:
    samples = [
        _sample("own", "What?", "kitten"),
        _sample("several", "What?", "no", ["kitten", "12"]),
        _sample("ten", "What?", "no", ["red"] * 2 + ["blue"] * 8),
        _sample("text", "What?", "no", "kitten"),
        _sample("empty", "What?", "no", []),
        _sample("number", "What?", "no", [12]),
        _sample("half", "What?", "no", ["\ud83d"]),
    ]
    scores = _scores("vqa", samples, ["sitten", "12.5", "red"])
    assert _values(scores) == {
        "ANLS": (pytest.approx((5 / 6 + 0.5 + 1) / 3), 3),  # "12.5" and "12" differ in two of four
        "relaxed_accuracy": (pytest.approx(2 / 3), 3),
        "vqa_accuracy": (pytest.approx(0.6), 1),
    }
    assert [line.split(":")[0] for line in scores.left_out] == ["text", "empty", "number", "half"]
    assert scores.unread is None
    assert scores.answers["several"]["references"] == ["kitten", "12"]


def test_anls_of_videollama3_counts_what_the_cut_drops() -> None:
    samples = [_sample("one", "What?", "xyc")]
    assert _scores("vqa", samples, ["abc"]).means["ANLS"].value == 0
    assert _scores("vqa", samples, ["abc"], "videollama3").means["ANLS"].value == pytest.approx(1 / 3)


def test_answer_that_names_no_option_is_wrong_and_counted() -> None:
    question = "Who?\n(A) a man\n(B) a boy"
    samples = [
        _sample(str(n), question, reference) for n, reference in enumerate(("B", "(A) a man", "a boy", "a girl"))
    ]
    scores = _scores("choice", samples, ["The answer is (B).", "A boy", "Somebody."])
    assert _values(scores) == {"accuracy": (pytest.approx(1 / 3), 3)}
    assert scores.unread == 1
    assert scores.left_out == ["3: its reference names no option of the question"]
    assert scores.answers["1"] == {"choice": "B", "reference_choice": "A", "accuracy": 0.0}


def test_accuracy_is_told_for_each_value_of_a_key() -> None:
    """MVBench's number is the mean over tasks, whatever their sizes: (1/2 + 1/1) / 2; the accuracy of all is 2/3."""
    question = "Who?\n(A) a man\n(B) a boy"
    tasks = ("Action Count", "Action Count", "State Change")
    samples = [_sample(str(n), question, "A", task_type=task, duration=n) for n, task in enumerate(tasks)]
    scores = _scores("choice", samples, ["A", "B", "A"], by=("task_type", "duration"))
    groups = scores.groups["task_type"]
    told = {value: (means["accuracy"].value, means["accuracy"].count) for value, means in groups.values.items()}
    assert told == {"Action Count": (1 / 2, 2), "State Change": (1, 1)}
    assert (groups.means["accuracy"].value, groups.means["accuracy"].count) == (3 / 4, 2)
    assert scores.means["accuracy"].value == 2 / 3
    assert list(scores.groups["duration"].values) == ["0", "1", "2"]


def test_mean_of_groups_is_over_those_that_have_the_score() -> None:
    samples = [
        _sample("ten", "What?", "no", ["red"] * 10, set="a"),
        _sample("one", "What?", "red", set="b"),
        _sample("other", "What?", "blue", set="b"),
    ]
    groups = _scores("vqa", samples, ["red"] * 3, by=("set",)).groups["set"]
    assert {name: (score.value, score.count) for name, score in groups.means.items()} == {
        "ANLS": (3 / 4, 2), "relaxed_accuracy": (3 / 4, 2), "vqa_accuracy": (1, 1),
    }  # fmt: skip


def test_sample_without_the_key_of_groups_does_not_count() -> None:
    question = "Who?\n(A) a man\n(B) a boy"
    samples = [
        _sample("good", question, "A", set="a"), _sample("none", question, "A"),
        _sample("empty", question, "A", set=""), _sample("half", question, "A", set="\ud83d"),
    ]  # fmt: skip
    scores = _scores("choice", samples, ["A"], by=("set",))
    assert (list(scores.answers), scores.means["accuracy"].count) == (["good"], 1)
    assert scores.left_out[:2] == [f"{name}: `set` is no text or whole number in it" for name in ("none", "empty")]
    assert scores.left_out[2].startswith("half: `set`: not valid Unicode")


def test_task_for_which_no_sample_counts_is_an_error() -> None:
    with pytest.raises(UserError, match="not one sample counts for --task grounding; the first: cat: its reference"):
        _scores("grounding", [_sample("cat", "What?", "A cat.")], [])


def test_samples_without_an_answer_are_left_to_the_generation() -> None:
    """There they are skipped by name."""
    silent = [Sample("silent", [{"role": "user", "content": "Hello?"}]), Sample("empty", [])]
    assert list(ScoredSamples(silent, TASKS["vqa"]())) == silent


def test_question_is_the_last_one() -> None:
    class Noting(TASKS["vqa"]):  # type: ignore[misc]
        def left_out(self, question: Question) -> str | None:
            return question.text

    first = _sample("two", "First?", "1").conversation
    samples = ScoredSamples([Sample("two", [*first, *_sample("", "Second?", "2").conversation])], Noting())
    assert list(samples) == []
    with pytest.raises(UserError, match="the first: two: Second"):
        samples.scores({})
