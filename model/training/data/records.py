"""Read samples from records (`core.records`), as `vl3syn import` writes them: JSON lines or Parquet.

A record shows its media by parts, so text is never searched for placeholders. Otherwise a sample is what the record's
VideoLLaMA3 form (`manifests.renderers`) gives as an annotation.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar, Self

from core.errors import BadSampleError, UserError
from core.paths import absolute
from core.records import Medium, Record, Turn
from model.training.data.block_cache import BlockCache
from model.training.data.conversations import Message, check_answers, learnable_range, streaming
from model.training.data.media_root import MediaRoot
from model.training.data.samples import SAMPLE_ERRORS, Sample, bad_sample
from model.training.data.source import Source, SourceConfig
from model.training.fingerprint import sampled_fingerprint
from model.training.values import PathText

_LINES = 256  # per block


class RecordConfig(SourceConfig):
    """Settings of imported records as a source.

    Attributes:
        records: What `vl3syn import` has written: its folder, or one of the files of records in it.
        media: The folder that paths of media are relative to and must lie below. Default: the folder of the records.
        roots: Further folders that media may lie below, after links are resolved.
    """

    changeable: ClassVar[frozenset[str]] = frozenset({"roots"})

    records: PathText
    media: PathText | None = None
    roots: tuple[PathText, ...] = ()

    @property
    def location(self) -> str:
        return self.records

    def open(self, name: str, blocks_in_memory: int = 8) -> RecordSource:
        return RecordSource(name, self.records, self.media, blocks_in_memory, self.roots)

    def at(self, location: str) -> Self:
        return self.model_copy(update={"records": location, "held_out": 0})

    def fingerprint(self) -> str:
        from manifests.record_files import record_files
        from manifests.storage import Folder

        files = record_files(self.records)
        return sampled_fingerprint(Folder.at(str(files[0].parent)), [file.name for file in files])

    def with_absolute_paths(self) -> Self:
        paths = {
            "records": absolute(self.records),
            "media": absolute(self.media) if self.media else None,
            "roots": tuple(map(os.path.abspath, self.roots)),
        }
        return self.model_copy(update=paths)


class RecordSource(Source):
    """Files of records. A block is 256 lines of JSON, or a row group of Parquet."""

    def __init__(
        self,
        name: str,
        path: str,
        media: str | None = None,
        blocks_in_memory: int = 8,
        roots: Sequence[str] = (),
    ) -> None:
        """Find the blocks of all files. Media are opened only when a sample is prepared.

        Raises:
            UserError: There are no files, one is damaged, or they have no records.
        """
        from manifests.record_files import record_files

        self.name = name
        try:
            files = record_files(path)
            blocks = [(file, block) for file in files for block in _blocks(file)]
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
        folder = files[0].parent
        self._roots = {"media": MediaRoot(media or folder, roots), "records": MediaRoot(folder)}
        self._blocks = [(file, first, begin, end) for file, (first, begin, end, _) in blocks]  # bytes, or a group
        self.blocks = tuple(count for _, (*_, count) in blocks)
        if not blocks:
            raise UserError(f"{name}: {path}: no records in it")
        self._ends = list(accumulate(self.blocks))
        self._kept: BlockCache[list[str | bytes]] = BlockCache(self._read, blocks_in_memory)

    def sample(self, row: int) -> Sample:
        """Return the sample of a row. Its media are paths.

        Raises:
            BadSampleError: It is no record, a file is missing, VideoLLaMA3's form cannot say it, ….
        """
        from manifests.record_files import parse_record

        number = bisect_right(self._ends, row)
        at = row - (self._ends[number] - self.blocks[number])
        file, first, *_ = self._blocks[number]
        name = f"{self.name}: {file.name} record {first + at + 1}"
        try:
            record = parse_record(self._kept(number)[at])
            name += f" (id {record.id})"
            references = list(record.references) or None
            return Sample(name, record_messages(record, self._path), references, _labels(record))
        except SAMPLE_ERRORS as error:
            raise bad_sample(name, error) from error

    def _path(self, medium: Medium) -> str:
        root = self._roots[medium.root]
        return root.film(medium.path) if medium.type == "video" else root.file(medium.path)

    def _read(self, number: int) -> list[str | bytes]:
        file, _, begin, end = self._blocks[number]
        if file.suffix == ".parquet":
            import pyarrow.parquet as pq

            from manifests.record_files import COLUMN

            with pq.ParquetFile(file) as opened:
                texts: list[str | bytes] = opened.read_row_group(begin, columns=[COLUMN]).column(0).to_pylist()
            return texts
        with open(file, "rb") as lines:
            lines.seek(begin)
            return [line for line in lines.read(end - begin).split(b"\n") if line and not line.isspace()]


def _labels(record: Record) -> dict[str, str | int]:
    source = record.source
    labels = {"dataset": source.dataset, "subset": source.subset, "split": source.split}
    return {name: text for name, text in (labels | {"task": record.task, "aspect": record.aspect}).items() if text}


def record_messages(record: Record, path_of: Any) -> list[Message]:
    """Return the messages of a record for `model.Processor`.

    Args:
        record: A record that VideoLLaMA3's form can say, but for marks in its text.
        path_of: Returns the path of a medium, or raises a BadSampleError.

    Raises:
        BadSampleError: As `from_turns` and `streaming` of `model.training.data.conversations`.
    """
    from manifests.renderers import to_videollama3

    if record.is_stream:
        entry = to_videollama3(record)
        film = record.media[0]
        settings = {name: entry[name] for name in ("fps", "max_frames", "frames_fps") if name in entry}
        times = entry.get("start_time", 0.0), entry.get("end_time")
        return streaming(path_of(film), entry["conversation"], *times, **settings)
    check_sayable(record)
    first, end = learnable_range([turn.role for turn in record.turns])
    paths = {medium.key: path_of(medium) for medium in record.media}
    messages = [_message(record, turn, paths) for turn in record.turns[first:end]]
    check_answers(messages, first)
    return messages


def check_sayable(record: Record) -> None:
    """Refuse what a training cannot do: learn questions, pass over answers, show media in answers or nowhere.

    Raises:
        BadSampleError: The record has such a turn.
    """
    shown = {part.media for turn in record.turns for part in turn.parts}
    if hidden := [medium.key for medium in record.media if medium.key not in shown]:
        raise BadSampleError(f"the medium {hidden[0]} is in no turn")
    for number, turn in enumerate(record.turns):
        if turn.role != "user" and any(part.media for part in turn.parts):
            raise BadSampleError(f"turn {number}: a medium in a turn of {turn.role}: only questions have media")
        if turn.is_learned != (turn.role == "assistant"):
            raise BadSampleError(f"turn {number}: answers are learned, all of them, and nothing else")


def _message(record: Record, turn: Turn, paths: dict[str, str]) -> Message:
    """Return a message. Text of a question is stripped around media, as `from_turns` does it."""
    from manifests.renderers import video_settings

    if turn.role != "user":
        return {"role": turn.role, "content": turn.text}
    content: list[Any] = []
    texts: list[str] = []

    def put_text() -> None:
        if text := "".join(texts).strip():
            content.append(text)
        texts.clear()

    for part in turn.parts:
        if part.media is None:
            texts.append(part.text or "")
            continue
        put_text()
        medium = record.medium(part.media)
        settings = video_settings(medium) if medium.type == "video" else {}
        content.append({"type": medium.type, medium.type: paths[medium.key], **settings})
    put_text()
    return {"role": turn.role, "content": content}


def _blocks(file: Path) -> list[tuple[int, int, int, int]]:
    """Return first row, begin, end and number of rows of each block of a file."""
    try:
        return _groups(file) if file.suffix == ".parquet" else _line_blocks(file)
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror or error}") from error


def _groups(file: Path) -> list[tuple[int, int, int, int]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from manifests.record_files import COLUMN

    try:
        with pq.ParquetFile(file) as opened:
            if COLUMN not in opened.schema_arrow.names:
                raise UserError(f"{file}: no column {COLUMN}: these are no records; `vl3syn import` writes them")
            counts = [opened.metadata.row_group(number).num_rows for number in range(opened.num_row_groups)]
    except pa.ArrowInvalid as error:
        raise UserError(f"{file}: no whole Parquet file: import it again") from error
    firsts = [0, *accumulate(counts)]
    return [(firsts[number], number, number + 1, count) for number, count in enumerate(counts) if count]


def _line_blocks(file: Path) -> list[tuple[int, int, int, int]]:
    starts, at = array("q"), 0
    with open(file, "rb") as lines:
        for line in lines:
            if not line.isspace():
                starts.append(at)
            at += len(line)
    starts.append(at)
    count = len(starts) - 1
    return [
        (first, starts[first], starts[min(first + _LINES, count)], min(_LINES, count - first))
        for first in range(0, count, _LINES)
    ]
