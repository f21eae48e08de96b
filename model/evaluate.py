"""Evaluate a model on samples: its loss, its answers, and how similar these are to the samples' own answers.

>>> result = evaluate("OUT/1-encoder/model", ShardConfig(shards="shards"), limit=100)
>>> result.loss.mean, result.metrics.chrf, result.answers[0].answer
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from core.errors import BadSampleError, UserError
from core.text import printable
from model.answer_loss import Loss, compute_loss, device_of, evaluating, skip_line
from model.caption_metrics import CaptionMetrics, ClipEncoder, caption_metrics, clip_score, mean
from model.checkpoint import load_checkpoint
from model.language import end_tokens
from model.other_images import OtherImages, media_of
from model.packed_row import PackedRow
from model.processor import Processor
from model.prompt import Part, parse_conversation
from model.questions import message_text
from model.scored_samples import ScoredSamples
from model.scored_tasks import Task, TaskScores
from model.training.data.samples import SAMPLE_ERRORS, Sample
from model.training.data.source import SelectedRows, SourceConfig
from model.training.trained_source import trained_source
from model.videollama3 import VideoLLaMA3
from model.weights_io import weights_dtype


@dataclass(frozen=True)
class Answer:
    """A model's answer to the last question of a sample.

    Attributes:
        sample: Name of the sample.
        text: The model's answer.
        reference: The sample's own answer.
        media: All images and videos of the conversation, as message parts.
        cut: Whether the answer has the maximum length and no end token.
    """

    sample: str
    text: str
    reference: str
    media: Sequence[Part] = ()
    cut: bool = False


@dataclass(frozen=True)
class ScoredAnswer:
    """A line of the predictions file: an answer with its scores, without media.

    Attributes:
        sample: Name of the sample.
        answer: The model's answer.
        reference: The sample's own answer.
        clip_score: CLIPScore, 0 to 2.5. None without an encoder, or if the sample's media are not exactly one image.
        loss: Loss on all answers of the sample, in nats per token. None if it could not be computed.
        shuffled_loss: The same with another sample's images. None if they were not shuffled, or not for this sample.
        scores: What a task has read in the answer, and its scores. None without a task.
    """

    sample: str
    answer: str
    reference: str
    clip_score: float | None
    loss: float | None
    shuffled_loss: float | None
    scores: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class ShuffledLoss:
    """The loss with other samples' images, over the samples that got some.

    Attributes:
        mean: Nats per token with other samples' images.
        own: The same with the samples' own images. If the two are equal, the model sees nothing.
        tokens: Number of learned tokens of these samples.
        samples: Number of these samples.
    """

    mean: float
    own: float
    tokens: int
    samples: int


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`.

    Attributes:
        loss: The loss over all good samples.
        answers: One per good sample that ends with an answer, in order; empty if none were generated.
        metrics: Similarity of the answers to the references; None without answers, or with a task.
        skipped: One line per bad sample, and per answer without a CLIPScore, with the reason.
        shuffled: The loss with other samples' images; None unless `shuffle_images` was set.
        scores: The scores of a task; None without one.
    """

    loss: Loss
    answers: Sequence[ScoredAnswer]
    metrics: CaptionMetrics | None
    skipped: Sequence[str]
    shuffled: ShuffledLoss | None = None
    scores: TaskScores | None = None

    @property
    def clip_scores(self) -> list[float]:
        """The CLIPScores of all answers that have one."""
        return [answer.clip_score for answer in self.answers if answer.clip_score is not None]

    @property
    def mean_clip_score(self) -> float:
        """Mean CLIPScore, 0 to 2.5; NaN if no answer has one."""
        return mean(self.clip_scores)


def evaluate(
    checkpoint: str | Path,
    data: SourceConfig,
    *,
    held_out: bool | None = None,
    limit: int | None = None,
    max_new_tokens: int = 256,
    batch: int = 8,
    encode: ClipEncoder | None = None,
    shuffle_images: bool = False,
    dtype: str = "auto",
    task: Task | None = None,
    by: Sequence[str] = (),
) -> Evaluation:
    """Evaluate a checkpoint on a source, on a GPU if there is one.

    Args:
        checkpoint: A folder with model and processor, or a step's checkpoint of a training stage under way.
        data: The samples: a `ShardConfig`, an `AnnotationConfig`, or a source of your own.
        held_out: Use the held-out samples of its training (True) or the others (False). Default: all samples.
        limit: Maximum number of samples. Default: all.
        max_new_tokens: Maximum tokens of an answer; 0 computes the loss only, which is far quicker.
        batch: Number of samples that are answered together.
        encode: Embeds an image and a text, for the CLIPScore. Default: no CLIPScore.
        shuffle_images: Also compute the loss with other samples' images (`OtherImages`).
        dtype: Type of the weights, such as bfloat16. Default: bfloat16 on a GPU, float32 on a CPU.
        task: Scores the answers as right or wrong, instead of their similarity to the references. Samples that do not
            count for it are not answered.
        by: Keys of annotations, such as `task_type`: the task's scores also for each value of these.

    Raises:
        UserError: The checkpoint or the data cannot be read, two samples have one name, no sample is good, or none
            counts for the task. With `held_out` also: the checkpoint was not trained on the data, nothing of it was
            held out, or it has changed since. With `shuffle_images` also: no two samples can exchange their images.
    """
    trained = trained_source(checkpoint, data)
    if held_out is not None and trained is None:
        raise UserError(f"{checkpoint}: was not trained on {data.location}: leave out --held-out and --trained-on")
    source = data.open(trained.name if trained else "eval")
    rows = range(source.rows) if trained is None or held_out is None else trained.rows(source, held_out)
    chosen = SelectedRows(source, rows[:limit])
    model, processor = _load(checkpoint, dtype)
    losses = _sample_losses(model, processor, chosen)
    loss = Loss.sum(losses.values())
    skipped = [*chosen.skipped, *loss.skipped]
    if not loss.samples:
        raise UserError(f"{data.location}: not one of its samples could be looked at; the first: {skipped[0]}")
    others = _sample_losses(model, processor, OtherImages(chosen)) if shuffle_images else {}
    shuffled = _shuffled(losses, others) if shuffle_images else None
    answers, scored = [], ScoredSamples(chosen, task, by) if task else None
    for answer in generate_answers(model, processor, scored or chosen, max_new_tokens, batch) if max_new_tokens else ():
        if isinstance(answer, Answer):
            score = _clip_score(answer, encode, skipped) if encode else None
            own, other = (_mean_of(each, answer.sample) for each in (losses, others))
            answers.append(ScoredAnswer(answer.sample, answer.text, answer.reference, score, own, other))
        else:
            skipped.append(answer)
    scores = scored.scores({a.sample: a.answer for a in answers}) if scored and max_new_tokens else None
    if scores:
        answers = [replace(answer, scores=scores.answers[answer.sample]) for answer in answers]
    captions = answers if task is None else ()
    metrics = caption_metrics([a.answer for a in captions], [a.reference for a in captions]) if captions else None
    skipped = list(dict.fromkeys(skipped))  # loss and answers skip the same samples
    return Evaluation(loss, answers, metrics, skipped, shuffled, scores)


def generate_answers(
    model: VideoLLaMA3, processor: Processor, samples: Iterable[Sample], max_new_tokens: int = 128, batch: int = 1
) -> Iterator[Answer | str]:
    """Generate the model's answer to the last question of each conversation, by greedy decoding.

    Args:
        model: In train or eval mode; the mode is restored.
        processor: The model's processor.
        samples: Their last message must be an assistant's: it is the reference. The messages before it are the prompt.
        max_new_tokens: Maximum tokens of an answer.
        batch: Number of samples that are answered together.

    Yields:
        An answer, or for a bad sample one line with its name and the reason. In a batch the bad ones come first.
    """
    prompts: list[_Prompt] = []
    for sample in samples:
        try:
            *before, last = sample.conversation
            reference = message_text(last) if last["role"] == "assistant" and before else ""
            if not reference.strip():
                raise BadSampleError("does not end with an answer")
            parse_conversation([last])  # raises if the reference is invalid
            prompts.append(_Prompt(sample, reference, processor(before, generation_prompt=True)))
        except SAMPLE_ERRORS as error:
            yield skip_line(sample, error)
        if len(prompts) == batch:
            yield from _answer_batch(model, processor, prompts, max_new_tokens)
            prompts = []
    if prompts:
        yield from _answer_batch(model, processor, prompts, max_new_tokens)


class _Prompt(NamedTuple):
    """A sample's prompt as model input, and the answer that the sample has."""

    sample: Sample
    reference: str
    row: PackedRow


def _load(checkpoint: str | Path, dtype: str) -> tuple[VideoLLaMA3, Processor]:
    gpu = torch.cuda.is_available()
    model, processor = load_checkpoint(checkpoint, weights_dtype(dtype, gpu) or torch.float32)
    return model.to("cuda" if gpu else "cpu"), processor


def _sample_losses(model: VideoLLaMA3, processor: Processor, samples: Iterable[Sample]) -> dict[str, Loss]:
    """Return the loss of each sample by its name; of a bad one, a loss over no sample that names the reason."""
    losses: dict[str, Loss] = {}
    for sample in samples:
        if sample.name in losses:
            raise UserError(f"two samples are named {printable(sample.name)!r}: give each a name of its own")
        losses[sample.name] = compute_loss(model, processor, [sample])
    return losses


def _mean_of(losses: Mapping[str, Loss], sample: str) -> float | None:
    loss = losses.get(sample)
    return loss.mean if loss and loss.samples else None


def _shuffled(losses: Mapping[str, Loss], others: Mapping[str, Loss]) -> ShuffledLoss:
    """Compare the losses of the samples that are good with their own and with other images."""
    both = [name for name, loss in others.items() if loss.samples and losses[name].samples]
    if not both:
        raise UserError("no two samples with as many images, and other ones: leave out --shuffle-images")
    own, other = (Loss.sum(each[name] for name in both) for each in (losses, others))
    return ShuffledLoss(other.mean, own.mean, own.tokens, own.samples)


def _clip_score(answer: Answer, encode: ClipEncoder, skipped: list[str]) -> float | None:
    """Return the CLIPScore if the sample has one image and no other media."""
    if [part["type"] for part in answer.media] != ["image"]:
        return None
    try:
        return clip_score(answer.media[0]["image"], answer.text, encode)
    except BadSampleError as error:
        skipped.append(f"{answer.sample}: no CLIPScore: {' '.join(str(error).split())}")
        return None


def _answer_batch(
    model: VideoLLaMA3, processor: Processor, prompts: Sequence[_Prompt], max_new_tokens: int
) -> Iterator[Answer]:
    row: Mapping[str, Any] = PackedRow.pack([prompt.row for prompt in prompts]).to(device_of(model))
    with evaluating(model):
        generated = model.generate(**row, max_new_tokens=max_new_tokens)
    ends = end_tokens(model.language)
    for prompt, ids in zip(prompts, generated, strict=True):
        cut = len(ids) == max_new_tokens and int(ids[-1]) not in ends
        yield Answer(prompt.sample.name, processor.decode(ids).strip(), prompt.reference, media_of(prompt.sample), cut)
