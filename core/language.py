"""The language of a text, by py3langid, whose model is in its wheel."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def language_identifier() -> Any:
    """Return py3langid's identifier of 133 languages, whose scores are probabilities."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
