"""Tasks of `vl3syn eval` whose answers are right or wrong: temporal grounding, dense captions, questions, choices.

A task says which samples count by their questions and references, and scores the answers to those.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from core.choices import choice_of, options_of
from core.errors import UserError
from core.text import not_unicode
from model.caption_metrics import mean
from model.grounding_scores import (
    EVENT_THRESHOLDS,
    THRESHOLDS,
    Span,
    f1,
    grounding_iou,
    localisation,
    rouge_l,
    soda,
    videollama3_iou,
    videollama3_spans,
)
from model.lmms_eval_grounding import lmms_eval_iou, lmms_eval_spans
from model.questions import Question
from model.training.data.grounding import events_of, spans_of
from model.vqa_scores import ANLS_CUT, anls, relaxed_accuracy, vqa_accuracy

Answered = tuple[Question, str]
"""A question and a model's answer."""


_GROUNDING: Mapping[str, tuple[Callable[[str], list[Span]], Callable[[list[Span], list[Span]], float]]] = {
    "standard": (spans_of, grounding_iou),
    "videollama3": (videollama3_spans, videollama3_iou),
    "lmms-eval": (lmms_eval_spans, lmms_eval_iou),
}
"""How spans of an answer are read, and the IoU of these and the reference's, by the scoring."""


@dataclass(frozen=True)
class MeanScore:
    """A score over several answers.

    Attributes:
        value: The score.
        count: Number of answers that it is about.
    """

    value: float
    count: int


@dataclass(frozen=True)
class GroupScores:
    """The scores of groups of answers, one for each value of a key of the annotations, such as `task_type`.

    Attributes:
        values: The scores of each group, by the key's value.
        means: Of each score the mean over groups, whatever their sizes; the count is the number of groups.
    """

    values: Mapping[str, Mapping[str, MeanScore]]
    means: Mapping[str, MeanScore]


@dataclass(frozen=True)
class TaskScores:
    """The scores of answers to a task.

    Attributes:
        task: Name of the task.
        scoring: Whose formulas: standard, videollama3, or lmms-eval.
        means: The scores by their names. They are 0 to 1, but for videollama3's IoU, which can exceed 1.
        answers: What was read in each answer and its scores, by the sample's name.
        unread: Answers in which no span or option was found: they score 0. None if every answer is read as it is.
        left_out: One line per sample that does not count, with the reason.
        groups: The scores of groups, by the key that makes them.
    """

    task: str
    scoring: str
    means: Mapping[str, MeanScore]
    answers: Mapping[str, Mapping[str, Any]]
    unread: int | None
    left_out: Sequence[str] = ()
    groups: Mapping[str, GroupScores] = field(default_factory=dict)


@dataclass(frozen=True)
class Task(ABC):
    """A task.

    Attributes:
        name: Name of the task.
        scoring: Whose formulas.
        scorings: The choices of that.
    """

    name: ClassVar[str]
    scorings: ClassVar[tuple[str, ...]] = ("standard",)

    scoring: str = "standard"

    @abstractmethod
    def left_out(self, question: Question) -> str | None:
        """Return why a sample does not count, or None if it counts."""

    @abstractmethod
    def answer_scores(self, question: Question, answer: str) -> Mapping[str, Any]:
        """Return what is read in an answer, and its scores."""

    @abstractmethod
    def means(self, scored: Sequence[Mapping[str, Any]]) -> dict[str, MeanScore]:
        """Return the scores over all answers, of which there is at least one."""

    def is_unread(self, scores: Mapping[str, Any]) -> bool | None:
        """Whether nothing was found in an answer. None if every answer is read as it is."""
        return not scores["spans"]

    def scores(self, answered: Sequence[Answered], left_out: Sequence[str] = ()) -> TaskScores:
        """Score all answers.

        Raises:
            UserError: There are none.
        """
        if not answered:
            first = left_out[0] if left_out else "no sample was answered"
            raise UserError(f"not one sample counts for --task {self.name}; the first: {first}")
        answers = {question.sample: self.answer_scores(question, answer) for question, answer in answered}
        unread = [self.is_unread(scores) for scores in answers.values()]
        means = self.means(list(answers.values()))
        count = None if None in unread else sum(map(bool, unread))
        return TaskScores(self.name, self.scoring, means, answers, count, left_out)


class Grounding(Task):
    """When something happens: R@1 and mIoU of time spans. Samples count whose reference has a time span."""

    name = "grounding"
    scorings = tuple(_GROUNDING)

    def left_out(self, question: Question) -> str | None:
        return None if _lengths(spans_of(question.reference)) else "its reference has no time span"

    def answer_scores(self, question: Question, answer: str) -> Mapping[str, Any]:
        read, iou = _GROUNDING[self.scoring]
        spans, references = read(answer), spans_of(question.reference)
        return {"spans": spans, "reference_spans": references, "IoU": iou(spans, references)}

    def means(self, scored: Sequence[Mapping[str, Any]]) -> dict[str, MeanScore]:
        ious = [scores["IoU"] for scores in scored]
        recalls = {f"R@1_{least}": mean([float(iou >= least) for iou in ious]) for least in THRESHOLDS}
        return {name: MeanScore(value, len(ious)) for name, value in {"mIoU": mean(ious), **recalls}.items()}


class DenseCaptions(Task):
    """What happens when: where events are, and SODA with ROUGE-L. Samples count whose reference has a time span.

    Precision and recall at a threshold are means over samples; F1 is that of these means. The mean is over thresholds.
    """

    name = "dense-captions"

    def left_out(self, question: Question) -> str | None:
        return None if _lengths(spans_of(question.reference)) else "its reference has no time span"

    def answer_scores(self, question: Question, answer: str) -> Mapping[str, Any]:
        events, references = events_of(answer), events_of(question.reference)
        spans, reference_spans = [span for span, _ in events], [span for span, _ in references]
        at = {str(t): localisation(spans, reference_spans, t) for t in EVENT_THRESHOLDS}
        readable = any(re.search("[a-z0-9]", caption, re.IGNORECASE) for _, caption in references)
        return {
            "spans": spans,
            "reference_spans": reference_spans,
            "precision": {threshold: precision for threshold, (precision, _) in at.items()},
            "recall": {threshold: recall for threshold, (_, recall) in at.items()},
            "soda_rougeL": soda(events, references, rouge_l()) if readable else None,
        }

    def means(self, scored: Sequence[Mapping[str, Any]]) -> dict[str, MeanScore]:
        precisions, recalls = (
            {t: mean([scores[what][str(t)] for scores in scored]) for t in EVENT_THRESHOLDS}
            for what in ("precision", "recall")
        )
        by_threshold = {f"F1_{t}": f1(precisions[t], recalls[t]) for t in EVENT_THRESHOLDS}
        values = {"F1": mean(list(by_threshold.values())), **by_threshold}
        means = {name: MeanScore(value, len(scored)) for name, value in values.items()}
        return means | _mean_of("soda_rougeL", scored)


class VisualQuestions(Task):
    """Short answers: ANLS, relaxed accuracy, and VQA accuracy where a sample has four references or more.

    All samples count. Right answers are those of the key `references` of an annotation, else the sample's own answer.
    """

    name = "vqa"
    scorings = ("standard", "videollama3")

    def left_out(self, question: Question) -> str | None:
        references = question.references
        if references is None:
            return None
        texts = isinstance(references, list | tuple) and all(isinstance(one, str) for one in references)
        if not texts or not references:
            return "`references` must be a list of texts"
        return not_unicode("".join(references)) or None

    def answer_scores(self, question: Question, answer: str) -> Mapping[str, Any]:
        references = list(question.references or [question.reference])
        return {
            "references": references,
            "ANLS": anls(answer, references, 0.0 if self.scoring == "videollama3" else ANLS_CUT),
            "relaxed_accuracy": relaxed_accuracy(answer, references),
            "vqa_accuracy": vqa_accuracy(answer, references),
        }

    def means(self, scored: Sequence[Mapping[str, Any]]) -> dict[str, MeanScore]:
        names = ("ANLS", "relaxed_accuracy", "vqa_accuracy")
        return {name: score for each in names for name, score in _mean_of(each, scored).items()}

    def is_unread(self, scores: Mapping[str, Any]) -> bool | None:
        return None


class MultipleChoice(Task):
    """Options: accuracy. Samples count whose reference names an option of the question."""

    name = "choice"

    def left_out(self, question: Question) -> str | None:
        named = choice_of(question.reference, options_of(question.text))
        return None if named else "its reference names no option of the question"

    def answer_scores(self, question: Question, answer: str) -> Mapping[str, Any]:
        options = options_of(question.text)
        choice, right = choice_of(answer, options), choice_of(question.reference, options)
        return {"choice": choice, "reference_choice": right, "accuracy": float(choice == right)}

    def means(self, scored: Sequence[Mapping[str, Any]]) -> dict[str, MeanScore]:
        return _mean_of("accuracy", scored)

    def is_unread(self, scores: Mapping[str, Any]) -> bool | None:
        return scores["choice"] is None


TASKS: Mapping[str, type[Task]] = {
    task.name: task for task in (Grounding, DenseCaptions, VisualQuestions, MultipleChoice)
}


def _mean_of(name: str, scored: Sequence[Mapping[str, Any]]) -> dict[str, MeanScore]:
    """Return the mean of a score over the answers that have it, if any."""
    values = [scores[name] for scores in scored if scores[name] is not None]
    return {name: MeanScore(mean(values), len(values))} if values else {}


def _lengths(spans: Sequence[tuple[float, float]]) -> bool:
    return any(end > start for start, end in spans)
