"""The samples that count for a task, and their scores, over all of them and by what their annotations say of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from core.text import not_unicode, printable
from model.caption_metrics import mean
from model.questions import Question, question_of
from model.scored_tasks import GroupScores, MeanScore, Task, TaskScores
from model.training.data.samples import Sample


class ScoredSamples:
    """Iterate over the samples that count for a task, then score the answers to them.

    A sample without a last answer is not held back: generating an answer says what is wrong with it.
    """

    def __init__(self, samples: Iterable[Sample], task: Task, by: Sequence[str] = ()) -> None:
        """Score `samples`, and also each group of those that have the same value of a key in `by`.

        A sample without one of these keys does not count: it would be missing in the groups.
        """
        self._samples, self._task, self._by = samples, task, by
        self._questions: dict[str, Question] = {}
        self._left_out: list[str] = []

    def __iter__(self) -> Iterator[Sample]:
        self._questions.clear()
        self._left_out.clear()
        for sample in self._samples:
            question = question_of(sample)
            if question and (reason := self._task.left_out(question) or self._without_label(question)):
                self._left_out.append(f"{sample.name}: {reason}")
                continue
            if question:
                self._questions[sample.name] = question
            yield sample

    def scores(self, answers: Mapping[str, str]) -> TaskScores:
        """Score answers, which are given by the sample's name, of the last iteration.

        Raises:
            UserError: There are none.
        """
        answered = [(self._questions[sample], answer) for sample, answer in answers.items()]
        scores = self._task.scores(answered, self._left_out)
        return replace(scores, groups={key: self._group_scores(key, scores.answers) for key in self._by})

    def _without_label(self, question: Question) -> str | None:
        for key in self._by:
            label = question.labels.get(key)
            if label is None or label == "":
                return f"`{printable(key)}` is no text or whole number in it"
            if reason := not_unicode(str(label)):
                return f"`{printable(key)}`: {reason}"
        return None

    def _group_scores(self, key: str, answers: Mapping[str, Mapping[str, Any]]) -> GroupScores:
        groups: dict[str, list[Mapping[str, Any]]] = {}
        for sample, scores in answers.items():
            groups.setdefault(str(self._questions[sample].labels[key]), []).append(scores)
        values = {value: self._task.means(scored) for value, scored in groups.items()}
        names = dict.fromkeys(name for means in values.values() for name in means)
        of_groups = {name: [means[name].value for means in values.values() if name in means] for name in names}
        return GroupScores(values, {name: MeanScore(mean(each), len(each)) for name, each in of_groups.items()})
