"""Evaluate a model on samples: its loss, its answers, and how similar these are to the samples' own answers.

>>> from model.evaluate import evaluate
>>> from model.training.data.shards import ShardConfig
>>> result = evaluate("OUT/1-encoder/model", ShardConfig(shards="shards"), limit=100)
>>> result.loss.mean, result.metrics.chrf, result.answers[0].answer
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from core.errors import BadSampleError, UserError
from model.caption_metrics import CaptionMetrics, ClipEncoder, caption_metrics, clip_score, mean
from model.packed_row import PackedRow
from model.processor import Processor
from model.prompt import Message, Part, parse_conversation
from model.training.data.samples import SAMPLE_ERRORS, Sample, bad_sample
from model.training.data.source import SelectedRows, SourceConfig
from model.training.trained_source import trained_source
from model.videollama3 import VideoLLaMA3
from model.weights_io import weights_dtype


@dataclass
class Loss:
    """A loss over samples.

    Attributes:
        total: Cross entropy in nats, summed over the tokens of the samples' answers.
        tokens: Number of these tokens.
        samples: Number of evaluated samples.
        skipped: One line per bad sample, with its name and the reason.
    """

    total: float = 0.0
    tokens: int = 0
    samples: int = 0
    skipped: list[str] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """Mean loss in nats per token; NaN without tokens."""
        return self.total / self.tokens if self.tokens else math.nan


@dataclass(frozen=True)
class Answer:
    """A model's answer to the last question of a sample.

    Attributes:
        sample: Name of the sample.
        text: The model's answer.
        reference: The sample's own answer.
        media: All images and videos of the conversation, as message parts.
    """

    sample: str
    text: str
    reference: str
    media: Sequence[Part] = ()


@dataclass(frozen=True)
class ScoredAnswer:
    """A line of the predictions file: an answer with its CLIPScore, without media.

    Attributes:
        sample: Name of the sample.
        answer: The model's answer.
        reference: The sample's own answer.
        clip_score: CLIPScore, 0 to 2.5. None without an encoder, or if the sample's media are not exactly one image.
    """

    sample: str
    answer: str
    reference: str
    clip_score: float | None


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`.

    Attributes:
        loss: The loss over all good samples.
        answers: One per good sample that ends with an answer, in order; empty if none were generated.
        metrics: Similarity of the answers to the references; None without answers.
        skipped: One line per bad sample, and per answer without a CLIPScore, with the reason.
    """

    loss: Loss
    answers: Sequence[ScoredAnswer]
    metrics: CaptionMetrics | None
    skipped: Sequence[str]

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
    dtype: str = "auto",
) -> Evaluation:
    """Evaluate a checkpoint on a source, on a GPU if there is one.

    Args:
        checkpoint: A folder with model and processor.
        data: The samples: a `ShardConfig`, an `AnnotationConfig`, or a source of your own.
        held_out: Of a source that the checkpoint was trained on, use the held-out samples (True) or the others (False).
            Default: all samples.
        limit: Maximum number of samples. Default: all.
        max_new_tokens: Maximum tokens of an answer; 0 computes the loss only, which is far quicker.
        batch: Number of samples that are answered together.
        encode: Embeds an image and a text, for the CLIPScore. Default: no CLIPScore.
        dtype: Type of the weights, such as bfloat16. Default: bfloat16 on a GPU, float32 on a CPU.

    Raises:
        UserError: The checkpoint or the data cannot be read, or no sample is good. With `held_out` also: the checkpoint
            was not trained on the data, or nothing of it was held out.
    """
    trained = trained_source(checkpoint, data)
    if held_out is not None and trained is None:
        raise UserError(f"{checkpoint}: was not trained on {data.location}: leave out --held-out and --trained-on")
    source = data.open(trained.name if trained else "eval")
    rows = range(source.rows) if trained is None or held_out is None else trained.rows(source, held_out)
    chosen = SelectedRows(source, rows[:limit])
    model, processor = _load(checkpoint, dtype)
    loss = compute_loss(model, processor, chosen)
    skipped = [*chosen.skipped, *loss.skipped]
    if not loss.samples:
        raise UserError(f"{data.location}: not one of its samples could be looked at; the first: {skipped[0]}")
    answers = []
    for answer in generate_answers(model, processor, chosen, max_new_tokens, batch) if max_new_tokens else ():
        if isinstance(answer, Answer):
            score = _clip_score(answer, encode, skipped) if encode else None
            answers.append(ScoredAnswer(answer.sample, answer.text, answer.reference, score))
        else:
            skipped.append(answer)
    metrics = caption_metrics([a.answer for a in answers], [a.reference for a in answers]) if answers else None
    return Evaluation(loss, answers, metrics, list(dict.fromkeys(skipped)))  # loss and answers skip the same samples


def compute_loss(
    model: VideoLLaMA3, processor: Processor, samples: Iterable[Sample], tokens_per_row: int = 4096
) -> Loss:
    """Return the loss on the answers of samples.

    Samples are packed into rows of `tokens_per_row` tokens in their order; a longer sample gets a row of its own. Bad
    samples are skipped and listed. All ranks of a sharded model must call this with the same samples.
    """
    loss = Loss()
    with _evaluating(model):
        for row in _packed_rows(processor, samples, tokens_per_row, loss):
            out = model(**row.to(_device(model)), label_count=1.0)
            loss.total += float(out.loss)
    return loss


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
            reference = _text(last) if last["role"] == "assistant" and before else ""
            if not reference.strip():
                raise BadSampleError("does not end with an answer")
            parse_conversation([last])  # raises if the reference is invalid
            prompts.append(_Prompt(sample, reference, processor(before, generation_prompt=True)))
        except SAMPLE_ERRORS as error:
            yield _skip_line(sample, error)
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
    model = VideoLLaMA3.from_pretrained(checkpoint, weights_dtype(dtype, gpu) or torch.float32)
    return model.to("cuda" if gpu else "cpu"), Processor.from_pretrained(checkpoint)


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
    row: Mapping[str, Any] = PackedRow.pack([prompt.row for prompt in prompts]).to(_device(model))
    with _evaluating(model):
        generated = model.generate(**row, max_new_tokens=max_new_tokens)
    for prompt, ids in zip(prompts, generated, strict=True):
        yield Answer(prompt.sample.name, processor.decode(ids).strip(), prompt.reference, _media(prompt.sample))


def _text(message: Message) -> str:
    content = message["content"]
    parts = [content] if isinstance(content, str) else content
    return "".join(part if isinstance(part, str) else part.get("text", "") for part in parts)


def _media(sample: Sample) -> list[Part]:
    contents = [message["content"] for message in sample.conversation if not isinstance(message["content"], str)]
    return [part for parts in contents for part in parts if not isinstance(part, str) and part["type"] != "text"]


def _packed_rows(
    processor: Processor, samples: Iterable[Sample], tokens_per_row: int, loss: Loss
) -> Iterator[PackedRow]:
    """Yield rows of packed samples. Count samples, learned tokens and bad samples in `loss`."""
    rows: list[PackedRow] = []
    tokens = 0
    for sample in samples:
        try:
            row = processor(sample.conversation, labels=True, generation_prompt=False)
            if not row.label_count:
                raise BadSampleError("nothing is learned from it: it has no words of an assistant")
        except SAMPLE_ERRORS as error:
            loss.skipped.append(_skip_line(sample, error))
            continue
        loss.samples += 1
        loss.tokens += row.label_count
        if rows and tokens + len(row.input_ids) > tokens_per_row:
            yield PackedRow.pack(rows)
            rows, tokens = [], 0
        rows.append(row)
        tokens += len(row.input_ids)
    if rows:
        yield PackedRow.pack(rows)


def _skip_line(sample: Sample, error: Exception) -> str:
    return str(bad_sample(sample.name, error))


def _device(model: VideoLLaMA3) -> torch.device:
    return next(model.parameters()).device


@contextmanager
def _evaluating(model: VideoLLaMA3) -> Iterator[None]:
    """Disable gradients and set eval mode; afterwards restore each module's mode."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in before:
            module.training = mode
