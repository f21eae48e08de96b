"""chrF, the similarity of texts by their sequences of characters, by sacrebleu (Popović 2015, W15-3049)."""

from __future__ import annotations

from collections.abc import Sequence


def corpus_chrf(texts: Sequence[str], references: Sequence[str]) -> tuple[float, str]:
    """Return the chrF of texts, one reference each, 0 to 100, and sacrebleu's signature.

    Only numbers with equal signatures can be compared.
    """
    from sacrebleu.metrics.chrf import CHRF

    chrf = CHRF()
    return chrf.corpus_score(texts, [references]).score, str(chrf.get_signature())


def chrf(text: str, reference: str) -> float:
    """Return the chrF of one text, 0 to 100."""
    return corpus_chrf([text], [reference])[0]
