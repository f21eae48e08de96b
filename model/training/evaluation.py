"""Evaluate a model on held-out samples: its loss, its answers, and the similarity of answers to references.

E width of an embedding
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional as F

from core.errors import BadSampleError
from model.packed_row import PackedRow
from model.processor import Processor
from model.prompt import parse_conversation
from model.training.data.samples import SAMPLE_ERRORS, Sample, bad_sample
from model.videollama3 import VideoLLaMA3

CLIP_WEIGHT, CLIP_PREFIX = 2.5, "A photo depicts "
"""Weight and prompt of CLIPScore: Hessel et al. 2021, arXiv 2104.08718, section 3."""

ClipEncoder = Callable[[Any, str], tuple[Any, Any]]
"""Maps an image (bytes or path) and a text to their two embeddings (E,), of any norm; arrays or tensors."""


@dataclass
class Loss:
    """A loss over samples.

    Attributes:
        total: Sum over learned tokens, in nats.
        tokens: Number of learned tokens.
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
        reference: The sample's answer.
        media: All images and videos of the conversation, as message parts.
    """

    sample: str
    text: str
    reference: str
    media: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class CaptionMetrics:
    """Similarity of texts to their references.

    Attributes:
        count: Number of texts.
        chrf: chrF of the corpus, 0 to 100.
        chrf_signature: sacrebleu's signature. Only numbers with equal signatures can be compared.
        rouge_l: Mean ROUGE-L F1, 0 to 1; NaN if `rouge_l_count` is 0.
        rouge_l_count: Number of texts in that mean. rouge-score knows words of a-z and 0-9 only, so a reference without
            such words would always score 0; its text is left out.
        exact: Share of texts that equal their reference after folding case and whitespace, 0 to 1.
    """

    count: int
    chrf: float
    chrf_signature: str
    rouge_l: float
    rouge_l_count: int
    exact: float


def held_out_loss(
    model: VideoLLaMA3, processor: Processor, samples: Iterable[Sample], tokens_per_row: int = 4096
) -> Loss:
    """Return the loss per learned token.

    Samples are packed into rows of `tokens_per_row` tokens in their order; a longer sample gets a row of its own. Bad
    samples are skipped and listed. All ranks of a sharded model must call this with the same samples.
    """
    result = Loss()
    with _evaluating(model):
        for row in _rows(processor, samples, tokens_per_row, result):
            out = model(**row.to(_device(model)), label_count=1.0)
            result.total += float(out.loss)
    return result


def generate_answers(
    model: VideoLLaMA3, processor: Processor, samples: Iterable[Sample], max_new_tokens: int = 128, batch: int = 1
) -> Iterator[Answer | str]:
    """Generate the model's answer to the last question of each conversation, by greedy decoding.

    Args:
        model: In train or eval mode; the mode is restored.
        processor: The model's processor.
        samples: Their last message must be an assistant's. It is the reference; the messages before it are the prompt.
        max_new_tokens: Maximum tokens of an answer.
        batch: Number of samples that are answered together.

    Yields:
        An answer, or for a bad sample one line with the reason. Within a batch the bad ones come first.
    """
    waiting: list[tuple[Sample, str, PackedRow]] = []
    for sample in samples:
        try:
            *before, last = sample.conversation
            reference = _text(last) if last["role"] == "assistant" and before else ""
            if not reference.strip():
                raise BadSampleError("does not end with an answer")
            parse_conversation([last])  # a reference is checked as a prompt is
            waiting.append((sample, reference, processor(before, generation_prompt=True)))
        except SAMPLE_ERRORS as error:
            yield _named(sample, error)
        if len(waiting) == batch:
            yield from _answered(model, processor, waiting, max_new_tokens)
            waiting = []
    if waiting:
        yield from _answered(model, processor, waiting, max_new_tokens)


def caption_metrics(texts: Sequence[str], references: Sequence[str]) -> CaptionMetrics:
    """Compute chrF by sacrebleu (Popović 2015), ROUGE-L by rouge-score (Lin 2004; no stemming), and exact match.

    Raises:
        ValueError: There are no texts, or the number of references differs.
    """
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import DefaultTokenizer
    from sacrebleu.metrics.chrf import CHRF

    if not texts or len(texts) != len(references):
        raise ValueError(f"{len(texts)} texts for {len(references)} references: give one reference for each")
    chrf = CHRF()
    corpus = chrf.corpus_score(texts, [references]).score
    words = DefaultTokenizer(use_stemmer=False)
    scorer = RougeScorer(["rougeL"], tokenizer=words)
    pairs = list(zip(texts, references, strict=True))
    rouge = [scorer.score(reference, text)["rougeL"].fmeasure for text, reference in pairs if words.tokenize(reference)]
    exact = [_folded(text) == _folded(reference) for text, reference in pairs]
    signature = str(chrf.get_signature())
    return CaptionMetrics(len(texts), corpus, signature, _mean(rouge), len(rouge), _mean(exact))


def clip_score(image: Any, text: str, encode: ClipEncoder) -> float:
    """Return the CLIPScore of a caption: 2.5 max(cos(image, "A photo depicts " + text), 0), 0 to 2.5.

    It needs no reference. An empty caption scores 0. If a caption is longer than the encoder's context (CLIP: 77
    tokens), only its start counts.
    """
    if not text.strip():
        return 0.0
    image_E, text_E = (torch.as_tensor(vector).float() for vector in encode(image, CLIP_PREFIX + text))
    return CLIP_WEIGHT * max(float(F.cosine_similarity(image_E, text_E, dim=0)), 0.0)


def _answered(
    model: VideoLLaMA3, processor: Processor, waiting: Sequence[tuple[Sample, str, PackedRow]], most: int
) -> Iterator[Answer]:
    row = PackedRow.pack([inputs for _, _, inputs in waiting])
    with _evaluating(model):
        generated = model.generate(**row.to(_device(model)), max_new_tokens=most)
    for (sample, reference, _), ids in zip(waiting, generated, strict=True):
        yield Answer(sample.name, processor.decode(ids).strip(), reference, _media(sample))


def _text(message: Mapping[str, Any]) -> str:
    content = message["content"]
    parts = [content] if isinstance(content, str) else content
    return "".join(part if isinstance(part, str) else part.get("text", "") for part in parts)


def _media(sample: Sample) -> list[Mapping[str, Any]]:
    contents = [message["content"] for message in sample.conversation if not isinstance(message["content"], str)]
    return [part for parts in contents for part in parts if not isinstance(part, str) and part["type"] != "text"]


def _rows(processor: Processor, samples: Iterable[Sample], tokens_per_row: int, result: Loss) -> Iterator[PackedRow]:
    waiting: list[PackedRow] = []
    tokens = 0
    for sample in samples:
        try:
            ready = processor(sample.conversation, labels=True, generation_prompt=False)
            if not ready.label_count:
                raise BadSampleError("nothing is learned from it: it has no words of an assistant")
        except SAMPLE_ERRORS as error:
            result.skipped.append(_named(sample, error))
            continue
        result.samples += 1
        result.tokens += ready.label_count
        if waiting and tokens + len(ready.input_ids) > tokens_per_row:
            yield PackedRow.pack(waiting)
            waiting, tokens = [], 0
        waiting.append(ready)
        tokens += len(ready.input_ids)
    if waiting:
        yield PackedRow.pack(waiting)


def _named(sample: Sample, error: Exception) -> str:
    return str(bad_sample(sample.name, error))


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


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
