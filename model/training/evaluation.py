"""How good a model is on samples that it was not trained on: its loss, its answers, how near they are to the samples'.

E width of an embedding
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from core.errors import BadSampleError
from model.processor import Processor, pack
from model.prompt import IGNORE, parse_conversation
from model.training.data.samples import SAMPLE_ERRORS, Sample, bad_sample
from model.videollama3 import VideoLLaMA3

CLIP_WEIGHT, CLIP_PREFIX = 2.5, "A photo depicts "
"""Of CLIPScore: Hessel et al. 2021, arXiv 2104.08718, section 3."""

ClipEncoder = Callable[[Any, str], tuple[Any, Any]]
"""An image (its bytes or path) and a text to the embeddings (E,) of both, of any length; arrays or tensors."""


@dataclass
class Loss:
    """A loss over samples.

    Attributes:
        total: Summed over learned tokens, nats.
        tokens: Learned tokens.
        samples: Samples.
        skipped: Why samples were not looked at, each with its name.
    """

    total: float = 0.0
    tokens: int = 0
    samples: int = 0
    skipped: list[str] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """Nats per token; NaN without any."""
        return self.total / self.tokens if self.tokens else math.nan


@dataclass(frozen=True)
class Answer:
    """What a model said where a sample ends with an assistant's message.

    Attributes:
        sample: Its name.
        text: The model's.
        reference: The sample's.
        media: The images and videos that it was asked about, as parts of messages.
    """

    sample: str
    text: str
    reference: str
    media: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class CaptionMetrics:
    """How near texts are to their references.

    Attributes:
        count: Texts.
        chrf: Of the corpus, 0 to 100.
        chrf_signature: sacrebleu's: what must be equal where two numbers are compared.
        rouge_l: F1, mean over texts, 0 to 1; NaN without any.
        rouge_l_count: Texts that it is about: rouge-score knows words of a-z and 0-9 only, so of a reference without
            any it says 0, whatever the text is.
        exact: Share of texts that are their reference, case and space folded, 0 to 1.
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
    """The loss per learned token, samples packed into rows in their order; one that is longer has a row of its own.

    A bad sample is left out, counted and named. All workers of a sharded model call it with the same samples.
    """
    result = Loss()
    with _evaluating(model):
        for row in _rows(processor, samples, tokens_per_row, result):
            out = model(**_moved(row, model), label_count=1.0)
            result.total += float(out.loss)
    return result


def generate_answers(
    model: VideoLLaMA3, processor: Processor, samples: Iterable[Sample], max_new_tokens: int = 128, batch: int = 1
) -> Iterator[Answer | str]:
    """Let the model answer the last question of each conversation, greedily.

    Args:
        model: In any mode; it is left in it.
        processor: Of the model.
        samples: Those whose last message is an assistant's: it is the reference, what is before it the prompt.
        max_new_tokens: Where an answer is cut at the latest.
        batch: Samples that are answered together.

    Yields:
        An answer, or in its place why there is none for a bad sample; within a batch the bad ones come first.
    """
    waiting: list[tuple[Sample, str, Mapping[str, Tensor]]] = []
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
    """chrF by sacrebleu (Popović 2015), ROUGE-L by rouge-score (Lin 2004; no stemming), and equality.

    Raises:
        ValueError: No texts, or not as many references.
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
    """CLIPScore of a caption, without a reference: 2.5 max(cos(image, "A photo depicts " + text), 0), 0 to 2.5.

    An empty caption has 0. Longer ones than the encoder's context (CLIP: 77 tokens) are judged by their beginning.
    """
    if not text.strip():
        return 0.0
    image_E, text_E = (torch.as_tensor(vector).float() for vector in encode(image, CLIP_PREFIX + text))
    return CLIP_WEIGHT * max(float(F.cosine_similarity(image_E, text_E, dim=0)), 0.0)


def _answered(
    model: VideoLLaMA3, processor: Processor, waiting: Sequence[tuple[Sample, str, Mapping[str, Tensor]]], most: int
) -> Iterator[Answer]:
    row = pack([tensors for _, _, tensors in waiting])
    with _evaluating(model):
        generated = model.generate(**_moved(row, model), max_new_tokens=most)
    for (sample, reference, _), ids in zip(waiting, generated, strict=True):
        yield Answer(sample.name, processor.decode(ids).strip(), reference, _media(sample))


def _text(message: Mapping[str, Any]) -> str:
    content = message["content"]
    parts = [content] if isinstance(content, str) else content
    return "".join(part if isinstance(part, str) else part.get("text", "") for part in parts)


def _media(sample: Sample) -> list[Mapping[str, Any]]:
    contents = [message["content"] for message in sample.conversation if not isinstance(message["content"], str)]
    return [part for parts in contents for part in parts if not isinstance(part, str) and part["type"] != "text"]


def _rows(
    processor: Processor, samples: Iterable[Sample], tokens_per_row: int, result: Loss
) -> Iterator[Mapping[str, Tensor]]:
    waiting: list[Any] = []
    tokens = 0
    for sample in samples:
        try:
            ready = processor(sample.conversation, labels=True, generation_prompt=False)
            learned = int((ready["labels"][1:] != IGNORE).sum())  # nothing is before the first to tell it from
            if not learned:
                raise BadSampleError("nothing is learned from it: it has no words of an assistant")
        except SAMPLE_ERRORS as error:
            result.skipped.append(_named(sample, error))
            continue
        result.samples += 1
        result.tokens += learned
        if waiting and tokens + len(ready["input_ids"]) > tokens_per_row:
            yield pack(waiting)
            waiting, tokens = [], 0
        waiting.append(ready)
        tokens += len(ready["input_ids"])
    if waiting:
        yield pack(waiting)


def _named(sample: Sample, error: Exception) -> str:
    return str(bad_sample(sample.name, error))


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _moved(row: Mapping[str, Tensor], model: VideoLLaMA3) -> dict[str, Any]:
    device = next(model.parameters()).device
    return {name: tensor.to(device) for name, tensor in row.items()}


@contextmanager
def _evaluating(model: VideoLLaMA3) -> Iterator[None]:
    """Without gradients, and every module back in the mode that it was found in."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in before:
            module.training = mode
