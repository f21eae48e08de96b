"""A benchmark in memory, and the search for it in the rows of other data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from core.errors import BadSampleError, UserError
from core.images import decode
from core.text import printable
from filters.overlap.copies import BenchmarkImage, CopyIndex, benchmark_image
from filters.overlap.embeddings import COSINE, Embedder, EmbeddingIndex, Vectors
from filters.overlap.files import Problems, add_to_digest, read_items
from filters.overlap.items import Item
from filters.overlap.texts import TextIndex
from filters.overlap.windows import SIDE

_EXCERPT = 120  # characters


@dataclass(frozen=True)
class Hit:
    """What was found of a benchmark in one row of the data.

    Attributes:
        kind: `file`, `pixels`, `picture`, `crop`, `embedding` or `text`.
        benchmark_id: Id of the row of the benchmark.
        overlap: How much of it was found: 1 for the same picture; 1 - distance/64 for one that was changed; the cosine
            of embeddings; for a text the share of its n-grams.
        distance: Bits by which perceptual hashes differ; None where they were not compared.
        with_question: Whether the question of the same row of the benchmark was found too.
        benchmark_text: First words of the row of the benchmark.
        text: The words that were found.
    """

    kind: str
    benchmark_id: str
    overlap: float
    distance: int | None = None
    with_question: bool = False
    benchmark_text: str = ""
    text: str = ""


@dataclass(frozen=True)
class Found:
    """The hits of one row of the data, best first, and how many generic questions it shares with the benchmark."""

    hits: Sequence[Hit] = ()
    generic: int = 0


class Benchmark:
    """The index of a benchmark, all in memory.

    Attributes:
        items: Number of rows.
        images: Number of images, of each row.
        texts: Number of rows with a text.
        content: Hash of the content: of ids, texts, and the bytes of images.
        problems: What could not be used.
    """

    def __init__(self, path: str, embed: Embedder | None = None, cosine: float = COSINE) -> None:
        """Read a benchmark.

        Args:
            path: A folder of images, or a file of rows with images or questions (`filters.overlap.rows`).
            embed: The encoder whose cosines are compared too; None: none are.
            cosine: The smallest cosine that is a hit.

        Raises:
            UserError: It cannot be read, or nothing of it can be used.
        """
        self.problems = Problems()
        self._rows: list[Item] = []
        images: list[BenchmarkImage] = []
        vectors: list[Vectors] = []
        known: dict[bytes, tuple[BenchmarkImage, list[Vectors]]] = {}  # a picture of many questions is decoded once
        self._embed, self._cosine = embed, cosine
        digest = hashlib.sha256()
        for item, encoded in read_items(path, self.problems):
            add_to_digest(digest, item, encoded)
            for data in encoded:
                file = hashlib.sha256(data).digest()
                try:
                    known[file] = known.get(file) or self._indexed(data)
                except BadSampleError as error:
                    self.problems.add("images that cannot be decoded", f"{item.id}: {error}")
                    continue
                images.append(known[file][0]._replace(row=len(self._rows)))
                vectors += known[file][1]
            self._rows.append(_without_images(item))
        self.content = digest.hexdigest()[:32]
        self._copies, self._texts = CopyIndex(images), TextIndex([item.variants for item in self._rows])
        self._embedded = EmbeddingIndex([image.row for image in images], vectors) if embed else None
        self.items, self.images = len(self._rows), len(images)
        self.texts = sum(bool(item.variants) for item in self._rows)
        if not self.images and not self.texts:
            raise UserError(f"{path}: no image and no question in it could be used{self._first_problem()}")

    def _indexed(self, encoded: bytes) -> tuple[BenchmarkImage, list[Vectors]]:
        """Return what is kept of an image, and its vector if embeddings are compared."""
        picture = decode(encoded)
        return benchmark_image(0, encoded, picture), [self._embed(picture)] if self._embed else []

    def decoded(self, encoded: bytes) -> Image.Image:
        """Decode an image as `search` needs it: a large JPEG at a reduced scale.

        Raises:
            BadSampleError: It cannot be decoded.
        """
        side = self._embed.side if self._embed else SIDE
        return decode(encoded, None if side is None else max(SIDE, side))

    def search(self, pictures: Sequence[tuple[bytes, Image.Image]], texts: Sequence[str]) -> Found:
        """Search for the images and texts of one row of the data.

        Args:
            pictures: The bytes of each image, and the picture, from `decoded`.
            texts: Its turns in their order, or its captions.
        """
        matches = self._texts.search(texts)
        found = {match.row: match.at for match in matches.matches}
        asked = {row: self._rows[row].question for row in matches.generic} | found
        images = [hit for data, picture in pictures for hit in self._of_picture(data, picture, asked)]
        images.sort(key=lambda each: (_ORDER.index(each[1].kind), each[1].distance or 0))
        rows = {row for row, _ in images}
        hits = [hit for _, hit in images]
        hits += [
            Hit("text", self._rows[m.row].id, m.share, None, True, _excerpt(self._rows[m.row]), m.at[:_EXCERPT])
            for m in matches.matches
            if m.row not in rows
        ]
        return Found(tuple(hits), len(matches.generic))

    def _of_picture(self, data: bytes, picture: Image.Image, asked: Mapping[int, str]) -> Iterator[tuple[int, Hit]]:
        """Yield the rows of which a picture is an image, each with its hit. `asked`: rows whose question was found."""

        def hit(kind: str, row: int, overlap: float, distance: int | None) -> tuple[int, Hit]:
            item, text = self._rows[row], printable(asked.get(row, "")[:_EXCERPT])
            return row, Hit(kind, item.id, overlap, distance, bool(text), _excerpt(item), text)

        copies = self._copies.search(data, picture, decode)
        for copy in copies:
            yield hit(copy.kind, copy.row, 1 - copy.distance / 64, copy.distance)
        if not (self._embedded and self._embed):
            return
        rows = {copy.row for copy in copies}
        for match in self._embedded.search(self._embed(picture), self._cosine):  # most similar first
            if match.row not in rows:
                rows.add(match.row)
                yield hit("embedding", match.row, max(0.0, match.cosine), None)

    @property
    def embeds(self) -> bool:
        """Whether embeddings are compared."""
        return self._embedded is not None

    def _first_problem(self) -> str:
        example = next(iter(self.problems.examples.items()), None)
        return f": {example[0]}, the first: {example[1]}" if example else ""


_ORDER = ("file", "pixels", "picture", "crop", "embedding")


def _without_images(item: Item) -> Item:
    return Item(item.id, (), item.question, item.options, item.answers[:1])


def _excerpt(item: Item) -> str:
    return printable(" ".join(next(iter(item.variants), "").split())[:_EXCERPT])
