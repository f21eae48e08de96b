"""The similarity of a model's answers to references, and of captions to their images.

E width of an embedding
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from core.chrf import corpus_chrf

CLIP_WEIGHT, CLIP_PREFIX = 2.5, "A photo depicts "
"""Weight and prompt of CLIPScore: Hessel et al. 2021, arXiv 2104.08718, section 3."""

Vector = Sequence[float] | NDArray[np.floating] | Tensor

ClipEncoder = Callable[[bytes | str, str], tuple[Vector, Vector]]
"""Maps an image (bytes or path) and a text to their two embeddings (E,), of any norm.

It raises BadSampleError for an image that it cannot use.
"""


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


def caption_metrics(texts: Sequence[str], references: Sequence[str]) -> CaptionMetrics:
    """Compute chrF by sacrebleu (Popović 2015), ROUGE-L by rouge-score (Lin 2004; no stemming), and exact match.

    Raises:
        ValueError: There are no texts, or the number of references differs.
    """
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import DefaultTokenizer

    if not texts or len(texts) != len(references):
        raise ValueError(f"{len(texts)} texts for {len(references)} references: give one reference for each")
    chrf, signature = corpus_chrf(texts, references)
    words = DefaultTokenizer(use_stemmer=False)
    scorer = RougeScorer(["rougeL"], tokenizer=words)
    pairs = list(zip(texts, references, strict=True))
    rouge = [scorer.score(reference, text)["rougeL"].fmeasure for text, reference in pairs if words.tokenize(reference)]
    exact = [_folded(text) == _folded(reference) for text, reference in pairs]
    return CaptionMetrics(
        count=len(texts),
        chrf=chrf,
        chrf_signature=signature,
        rouge_l=mean(rouge),
        rouge_l_count=len(rouge),
        exact=mean(exact),
    )


def clip_score(image: bytes | str, text: str, encode: ClipEncoder) -> float:
    """Return the CLIPScore of a caption: 2.5 max(cos(image, "A photo depicts " + text), 0), 0 to 2.5.

    It needs no reference. An empty caption scores 0. If a caption is longer than the encoder's context (CLIP: 77
    tokens), only its start counts.
    """
    if not text.strip():
        return 0.0
    image_E, text_E = (torch.as_tensor(vector).float() for vector in encode(image, CLIP_PREFIX + text))
    return CLIP_WEIGHT * max(float(F.cosine_similarity(image_E, text_E, dim=0)), 0.0)


def mean(values: Sequence[float]) -> float:
    """Return the mean of values; NaN if there are none."""
    return sum(values) / len(values) if values else math.nan


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())
