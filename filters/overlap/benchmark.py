"""A benchmark on this machine: its items out of a folder or a file, its hash, and the search in it."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from PIL import Image

from core.errors import BadSampleError, UserError
from core.images import decode
from core.parquet import MAX_CELL
from filters.overlap.copies import BenchmarkImage, CopyIndex, benchmark_image
from filters.overlap.embeddings import COSINE, Embedder, EmbeddingIndex, Vectors
from filters.overlap.items import IMAGE_ENDINGS, Item, is_read, item_of
from filters.overlap.rows import ROW_FILES, rows_of
from filters.overlap.texts import TextIndex
from filters.overlap.windows import SIDE
from manifests.storage import Folder, LinkError

_IN_FOLDERS = tuple(ending for ending in ROW_FILES if ending != ".txt")  # a README.txt has no questions
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


@dataclass
class Problems:
    """What of a benchmark could not be used: a count for each reason, and the first example of each."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, what: str, example: str) -> None:
        self.counts[what] += 1
        self.examples.setdefault(what, " ".join(example.split())[:300])


class Benchmark:
    """The index of a benchmark, all in memory.

    Attributes:
        items: Number of rows.
        images: Number of images.
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
        self._embed, self._cosine = embed, cosine
        digest = hashlib.sha256()
        for item, encoded in _read(path, self.problems):
            _digest(digest, item, encoded)
            for data in encoded:
                try:
                    picture = decode(data)
                    vectors += [embed(picture)] if embed else []
                    images.append(benchmark_image(len(self._rows), data, picture))
                except BadSampleError as error:
                    self.problems.add("images that cannot be decoded", f"{item.id}: {error}")
            self._rows.append(_without_images(item))
        self.content = digest.hexdigest()[:32]
        self._copies, self._texts = CopyIndex(images), TextIndex([item.variants for item in self._rows])
        self._embedded = EmbeddingIndex([image.row for image in images], vectors) if embed else None
        self.items, self.images = len(self._rows), len(images)
        self.texts = sum(bool(item.variants) for item in self._rows)
        if not self.images and not self.texts:
            raise UserError(f"{path}: no image and no question in it could be used{self._first_problem()}")

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
        asked = {match.row: match for match in matches.matches}
        hits: list[Hit] = []
        for data, picture in pictures:
            for copy in self._copies.search(data, picture, decode):
                item, match = self._rows[copy.row], asked.pop(copy.row, None)
                text = match.at if match else item.question if copy.row in matches.generic else ""
                overlap = 1 - copy.distance / 64
                hits.append(
                    Hit(copy.kind, item.id, overlap, copy.distance, bool(text), _excerpt(item), text[:_EXCERPT])
                )
            hits += self._similar(picture, {hit.benchmark_id for hit in hits})
        hits.sort(key=lambda hit: (_ORDER.index(hit.kind), hit.distance or 0))
        hits += [
            Hit("text", self._rows[m.row].id, m.share, None, True, _excerpt(self._rows[m.row]), m.at[:_EXCERPT])
            for m in asked.values()
        ]
        return Found(tuple(hits), len(matches.generic))

    def _similar(self, picture: Image.Image, found: set[str]) -> Iterator[Hit]:
        """Yield what only the embedding finds: the most similar image of each row."""
        if not (self._embedded and self._embed):
            return
        for match in self._embedded.search(self._embed(picture), self._cosine):
            item = self._rows[match.row]
            if item.id not in found:
                found.add(item.id)
                yield Hit("embedding", item.id, max(0.0, match.cosine), benchmark_text=_excerpt(item))

    @property
    def embeds(self) -> bool:
        """Whether embeddings are compared."""
        return self._embedded is not None

    def _first_problem(self) -> str:
        example = next(iter(self.problems.examples.items()), None)
        return f": {example[0]}, the first: {example[1]}" if example else ""


_ORDER = ("file", "pixels", "picture", "crop", "embedding")


def content_hash(path: str) -> str:
    """Return the hash that `Benchmark(path).content` has, without decoding an image.

    Raises:
        UserError: The benchmark cannot be read.
    """
    return _content_hash(path, _signature(path))


@lru_cache(maxsize=16)
def _content_hash(path: str, signature: str) -> str:
    digest = hashlib.sha256()
    for item, encoded in _read(path, Problems()):
        _digest(digest, item, encoded)
    return digest.hexdigest()[:32]


def _signature(path: str) -> str:
    """Return names, lengths and times of the files, which are compared before they are hashed again."""
    files = [path] if not os.path.isdir(path) else [os.path.join(path, name) for name in _names(path)]
    try:
        return repr([(file, (status := os.stat(file)).st_size, status.st_mtime_ns) for file in files])
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}: give a folder or a file on this machine") from error


def _digest(digest: hashlib._Hash, item: Item, encoded: Sequence[bytes]) -> None:
    for part in (item.id.encode("utf-8", "backslashreplace"), repr(item.variants).encode(), *encoded):
        digest.update(b"%d " % len(part) + part)


def _read(path: str, problems: Problems) -> Iterator[tuple[Item, list[bytes]]]:
    """Yield the items of a benchmark with their images as bytes."""
    if os.path.isdir(path):
        yield from _read_folder(path, problems)
    elif not os.path.isfile(path):
        raise UserError(f"{path}: no such folder or file, or a pipe or device: give a benchmark on this machine")
    else:
        yield from _read_file(path, Folder.at(os.path.dirname(os.path.abspath(path))), problems, set())


def _read_folder(path: str, problems: Problems) -> Iterator[tuple[Item, list[bytes]]]:
    folder, names, named = Folder.at(path), _names(path), set[str]()
    for name in names:
        if name.lower().endswith(_IN_FOLDERS):
            yield from _read_file(os.path.join(path, name), folder, problems, named)
    for name in names:
        if not name.lower().endswith(IMAGE_ENDINGS) or name in named:
            continue
        if (data := _image(folder, name, name, problems)) is not None:
            yield Item(name), [data]


def _names(path: str) -> list[str]:
    """Return the files below a folder, sorted; hidden ones and links to folders are passed over."""
    names = []
    for above, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names += [os.path.relpath(os.path.join(above, name), path) for name in files if not name.startswith(".")]
    return sorted(names)


def _read_file(path: str, folder: Folder, problems: Problems, named: set[str]) -> Iterator[tuple[Item, list[bytes]]]:
    """Yield the items of a file. Names of images that it refers to are added to `named`."""
    name = os.path.relpath(path, folder.path)
    at = Folder.at(os.path.dirname(os.path.join(folder.path, name)))
    for number, row in rows_of(path, is_read):
        where = f"{name}:{number}"
        try:
            if isinstance(row, BadSampleError):
                raise row
            item = item_of(row, where)
        except BadSampleError as error:
            problems.add("rows that cannot be read", f"{where}: {error}")
            continue
        if item is None:
            problems.add("rows without an image, question or answer", f"{where}: its keys are {', '.join(row)[:200]}")
            continue
        images = [one if isinstance(one, bytes) else _image(at, one, where, problems) for one in item.images]
        named |= {os.path.relpath(os.path.join(at.path, n), folder.path) for n in item.images if isinstance(n, str)}
        yield item, [data for data in images if data is not None]


def _image(folder: Folder, name: str, where: str, problems: Problems) -> bytes | None:
    """Return the bytes of an image below a folder; None if it cannot be read."""
    try:
        if len(name) > 4096 or "\0" in name:
            raise BadSampleError("no path")
        with folder.open_inside(name) as file:
            if os.fstat(file.fileno()).st_size > MAX_CELL:
                raise BadSampleError(f"more than {MAX_CELL:,} bytes")
            return file.read()
    except (OSError, LinkError, BadSampleError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        problems.add("images that cannot be read", f"{where}: {name[:200]}: {reason}")
        return None


def _without_images(item: Item) -> Item:
    return Item(item.id, (), item.question, item.options, item.answers[:1])


def _excerpt(item: Item) -> str:
    return " ".join(next(iter(item.variants), "").split())[:_EXCERPT]
