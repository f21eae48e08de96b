"""Read samples from VideoLLaMA3 annotations (JSON or JSONL): image, several images, video, text only, streaming.

    {"image": ["a.jpg"], "conversations": [{"from": "human", "value": "<image>\\nWhat is this?"}, …]}
    {"video": ["a.mp4"], "conversations": [{"from": "human", "value": "<video>\\nWhat happens?"}, …]}
    {"stream": true, "video": ["a.mp4"], "conversation": [{"role": "user", "content": "Tell me", "time": 2.0}, …]}

A JSONL file stays on disk: memory holds only the offset of each line, 8 bytes. A JSON array is loaded whole. That is
fine for hundreds of thousands of samples; use JSONL for more.
"""

from __future__ import annotations

import json
import os
from array import array
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from core.errors import BadSampleError, UserError
from core.paths import absolute
from model.training.data.block_cache import BlockCache
from model.training.data.conversations import from_turns, streaming
from model.training.data.forms import media_of, stream_turns_of, turns_of
from model.training.data.media_root import MediaRoot
from model.training.data.samples import SAMPLE_ERRORS, Sample, bad_sample
from model.training.data.source import Source, SourceConfig
from model.training.fingerprint import file_fingerprint
from model.training.values import PathText

_LINES = 256  # per block
_COMPRESSED = {
    b"\x1f\x8b": "compressed by gzip",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ": "compressed by xz",
    b"PK\x03\x04": "a ZIP archive",
    b"PAR1": "a Parquet file",
}
"""First bytes of files that are not text."""
_VIDEO_SETTINGS = ("fps", "max_frames", "start", "end", "frames_fps", "times_from_start")


class AnnotationConfig(SourceConfig):
    """Settings of an annotation file as a source.

    Its fingerprint is the hash of the whole file. The media are not read: there can be millions of files.

    Attributes:
        annotations: A .json or .jsonl file in VideoLLaMA3's form.
        media: The folder that paths in annotations are relative to and must lie below. Default: the file's folder.
        roots: Further folders that media may lie below, after links are resolved.
    """

    changeable: ClassVar[frozenset[str]] = frozenset({"roots"})

    annotations: PathText
    media: PathText | None = None
    roots: tuple[PathText, ...] = ()

    @property
    def location(self) -> str:
        return self.annotations

    def open(self, name: str, blocks_in_memory: int = 8) -> AnnotationSource:
        return AnnotationSource(name, self.annotations, self.media, blocks_in_memory, self.roots)

    def at(self, location: str) -> Self:
        return self.model_copy(update={"annotations": location, "held_out": 0})

    def fingerprint(self) -> str:
        return file_fingerprint(self.annotations)

    def with_absolute_paths(self) -> Self:
        paths = {
            "annotations": absolute(self.annotations),
            "media": absolute(self.media) if self.media else None,
            "roots": tuple(map(os.path.abspath, self.roots)),
        }
        return self.model_copy(update=paths)


class AnnotationSource(Source):
    """An annotation file. A block is 256 lines."""

    def __init__(
        self,
        name: str,
        path: str,
        media: str | None = None,
        blocks_in_memory: int = 8,
        roots: Sequence[str] = (),
    ) -> None:
        """Find the start of each line. Media files are opened only when a sample is prepared.

        Args:
            name: Name for messages.
            path: A file that ends with .json (a list), or .jsonl (one object per line), in UTF-8.
            media: The folder that paths are relative to and must lie below. Default: the folder of the file.
            blocks_in_memory: Number of blocks of lines that are cached.
            roots: Further folders that media may lie below.

        Raises:
            UserError: The file cannot be read, is compressed or not UTF-8, has no samples, or is a .json file that is
                not a list.
        """
        self.name, self._path = name, Path(path)
        self._media = MediaRoot(media or self._path.parent, roots)
        self._whole: list[Any] | None = None
        self._blank = array("q")  # for each empty line, the number of non-empty lines before it
        self._check_bytes()
        if self._path.suffix.lower() == ".json":
            self._whole = self._array()
            count = len(self._whole)
        else:
            self._starts = self._lines()
            count = len(self._starts) - 1
        if not count:
            raise UserError(f"{name}: {path}: no samples in it")
        self.blocks = tuple(min(_LINES, count - at) for at in range(0, count, _LINES))
        self._kept: BlockCache[list[bytes]] = BlockCache(self._read, blocks_in_memory)

    def sample(self, row: int) -> Sample:
        """Return the sample of a row. Its media are paths.

        Raises:
            BadSampleError: It is not JSON, a file is missing, placeholders and media do not match, ….
        """
        kind = "entry" if self._whole is not None else "line"
        name = f"{self.name}: {self._path.name} {kind} {row + 1 + bisect_right(self._blank, row)}"
        try:
            entry = self._entry(row)
            return Sample(name, self._conversation(entry), entry.get("references"), _labels(entry))
        except SAMPLE_ERRORS as error:
            raise bad_sample(name, error) from error

    def _entry(self, row: int) -> Any:
        if self._whole is not None:
            return self._whole[row]
        try:
            return json.loads(self._kept(row // _LINES)[row % _LINES])
        except (ValueError, RecursionError) as error:  # not UTF-8, 100,000 brackets, an integer of 5,000 digits
            raise BadSampleError(f"no JSON: {error}") from error

    def _conversation(self, entry: Any) -> list[dict[str, Any]]:
        if not isinstance(entry, Mapping):
            raise BadSampleError("must be an object with `conversations`")
        settings = {key: entry[key] for key in _VIDEO_SETTINGS if key in entry}
        if not isinstance(settings.get("times_from_start", False), bool):
            raise BadSampleError("times_from_start must be true or false")
        stream = entry.get("stream")
        turns = stream_turns_of(entry) if stream else turns_of(entry)
        images = [self._media.file(path) for path in media_of(entry, "image")]
        videos = [self._media.film(path) for path in media_of(entry, "video")]
        if stream:
            if len(videos) != 1 or images:
                raise BadSampleError("a stream has one video, and no image")
            settings = {key: value for key, value in settings.items() if key not in ("start", "end")}
            times = entry.get("start_time", 0.0), entry.get("end_time")
            return streaming(videos[0], turns, *times, **settings)
        messages = from_turns(turns, images, videos)
        for message in messages:
            for part in message["content"] if isinstance(message["content"], list) else []:
                if isinstance(part, dict) and part["type"] == "video":
                    part.update(settings)
        return messages

    def _check_bytes(self) -> None:
        try:
            with open(self._path, "rb") as file:
                start = file.read(8)
        except OSError as error:
            raise UserError(f"{self.name}: {self._path}: cannot be read: {error.strerror}") from error
        if packed := next((what for magic, what in _COMPRESSED.items() if start.startswith(magic)), None):
            raise UserError(f"{self.name}: {self._path}: {packed}, not text: unpack it to .json or .jsonl")
        if start.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in start:
            raise UserError(f"{self.name}: {self._path}: UTF-16 or UTF-32, or no text: save it as UTF-8")

    def _array(self) -> list[Any]:
        try:
            entries = json.loads(self._path.read_bytes())
        except OSError as error:
            raise UserError(f"{self.name}: {self._path}: cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{self.name}: {self._path}: no JSON: {error}; one object per line goes into .jsonl"
            ) from error
        if not isinstance(entries, list):
            raise UserError(f"{self.name}: {self._path}: must be a list of samples")
        return entries

    def _lines(self) -> NDArray[np.int64]:
        """Return the byte offset of each non-empty line, and of the end of the file: int64 (lines + 1,)."""
        starts, at = array("q"), 0
        try:
            with open(self._path, "rb") as file:
                for line in file:
                    if line.isspace():
                        self._blank.append(len(starts))
                    else:
                        starts.append(at)
                    at += len(line)
        except OSError as error:
            raise UserError(f"{self.name}: {self._path}: cannot be read: {error.strerror}") from error
        starts.append(at)
        return np.frombuffer(starts, np.int64)

    def _read(self, number: int) -> list[bytes]:
        starts = self._starts[number * _LINES : (number + 1) * _LINES + 1]
        with open(self._path, "rb") as file:
            file.seek(int(starts[0]))
            read = file.read(int(starts[-1] - starts[0]))
        return [read[begin:end] for begin, end in zip(starts[:-1] - starts[0], starts[1:] - starts[0], strict=True)]


def _labels(entry: Mapping[str, Any]) -> dict[str, str | int]:
    """Return what an entry says in a text or a whole number each."""
    return {key: value for key, value in entry.items() if isinstance(value, str | int)}
