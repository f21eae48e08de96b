"""Embeddings of the 1000 ImageNet classes by the sentence encoder, and their cache."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core.pretrained import package_folder, sha256
from filters.sentence_encoder import DIMENSIONS, SentenceEncoder, Vectors, sentence_model
from filters.vector_cache import cached_vectors

ENCODER = "conse-efflite0-minilm"
"""The name of this encoder. Its vectors and scores must never be mixed with those of CLIP."""

_CLASSES = 1000
_LEMMAS = 3  # synonyms of a class that are embedded
_VERSION = "1"  # raise it when the same texts and weights give other embeddings


def class_embeddings(stage: str, sentences: SentenceEncoder | None = None) -> Vectors:
    """Return the embeddings of the 1000 ImageNet classes, in its order: float32 (1000, 384), not of length 1.

    Computing them takes about 10 seconds on one core, in every actor and every run. So they are cached in the user's
    cache folder, under a hash of all inputs.

    Args:
        stage: Name of the stage, for errors.
        sentences: The encoder if it is loaded; else it is loaded only if the cache has no embeddings.
    """
    name = f"{ENCODER}-{_recipe()[:32]}"
    compute = lambda: _embed_classes(sentences or SentenceEncoder(stage))  # noqa: E731
    return cached_vectors(name, (_CLASSES, DIMENSIONS), np.float32, compute)


def _embed_classes(sentences: SentenceEncoder) -> Vectors:
    texts = [_class_texts(*entry) for entry in imagenet_classes()]
    ends = np.cumsum([len(group) for group in texts])
    vectors = sentences([text for group in texts for text in group])
    return np.stack([part.mean(axis=0) for part in np.split(vectors, ends[:-1])])


def _class_texts(lemmas: Sequence[str], definition: str) -> list[str]:
    return [*(f"a photo of a {lemma}" for lemma in lemmas[:_LEMMAS]), definition]


def imagenet_classes() -> list[tuple[list[str], str]]:
    """Return lemmas and definition of each class, in the order of the network's output, from timm's text files."""
    folder = package_folder("timm") / "data" / "_info"
    synsets = (folder / "imagenet_synsets.txt").read_text("utf-8").split()
    lemmas = _by_synset(folder / "imagenet_synset_to_lemma.txt")
    definitions = _by_synset(folder / "imagenet_synset_to_definition.txt")
    return [(lemmas[synset].replace("_", " ").split(", "), definitions[synset]) for synset in synsets]


def _by_synset(file: Path) -> dict[str, str]:
    pairs = (line.split("\t", 1) for line in file.read_text("utf-8").splitlines())
    return {synset: text for synset, text in pairs}


def _recipe() -> str:
    """Return a hash of everything that the class embeddings depend on."""
    texts = "\n".join(text for entry in imagenet_classes() for text in _class_texts(*entry))
    model = sentence_model()
    parts = (sha256([model / "model.safetensors", model / "tokenizer.json"]), texts, _VERSION)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
