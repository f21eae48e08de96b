"""The samples that count for a task, and their scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from model.questions import Question, question_of
from model.scored_tasks import Task, TaskScores
from model.training.data.samples import Sample


class ScoredSamples:
    """Iterate over the samples that count for a task, then score the answers to them.

    A sample without a last answer is not held back: generating an answer says what is wrong with it.
    """

    def __init__(self, samples: Iterable[Sample], task: Task) -> None:
        self._samples, self._task = samples, task
        self._questions: dict[str, Question] = {}
        self._left_out: list[str] = []

    def __iter__(self) -> Iterator[Sample]:
        self._questions.clear()
        self._left_out.clear()
        for sample in self._samples:
            question = question_of(sample)
            if question and (reason := self._task.left_out(question)):
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
        return self._task.scores(answered, self._left_out)
