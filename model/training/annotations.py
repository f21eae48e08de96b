"""Samples out of annotations in VideoLLaMA3's form, JSON or JSONL: image, several images, video, text only, streaming.

    {"image": ["a.jpg"], "conversations": [{"from": "human", "value": "<image>\\nWhat is this?"}, …]}
    {"video": ["a.mp4"], "conversations": [{"from": "human", "value": "<video>\\nWhat happens?"}, …]}
    {"stream": true, "video": ["a.mp4"], "conversation": [{"role": "user", "content": "Tell me", "time": 2.0}, …]}

A JSONL stays on the disk: what is held is where its lines begin, 8 bytes each. A JSON array is held whole: fine for
hundreds of thousands, beyond that make it a JSONL.
"""

from __future__ import annotations

import json
import random
from array import array
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import BadSampleError, UserError
from model.training.conversations import from_turns, streaming
from model.training.forms import media_of, turns_of
from model.training.kept import Kept
from model.training.media_root import MediaRoot
from model.training.samples import SAMPLE_ERRORS, Sample, bad_sample

_LINES = 256  # of a block
_TRIED = 100  # samples, before a file is given up
_VIDEO_SETTINGS = ("fps", "max_frames", "start", "end")


class AnnotationSource:
    """A file of annotations.

    Attributes:
        name: In a recipe.
        blocks: Samples of each block of lines.
    """

    def __init__(
        self,
        name: str,
        path: str,
        media: str | None = None,
        blocks_in_memory: int = 8,
        roots: Sequence[str] = (),
    ) -> None:
        """Find the lines. Media are not looked at before they are wanted.

        Args:
            name: For messages.
            path: A .json or .jsonl file.
            media: What paths in it are relative to, and must lie below; by default its folder.
            blocks_in_memory: Blocks of lines that are kept.
            roots: Further folders that its media may lie below.

        Raises:
            UserError: No such file, or a .json that is no list.
        """
        self.name, self._path = name, Path(path)
        self._media = MediaRoot(media or self._path.parent, roots)
        self._whole: list[Any] | None = None
        self._blank = array("q")  # for each empty line, how many lines that are not come before it
        if self._path.suffix == ".json":
            self._whole = self._array()
            count = len(self._whole)
        else:
            self._starts = self._lines()
            count = len(self._starts) - 1
        if not count:
            raise UserError(f"{name}: {path}: no samples in it")
        self.blocks = tuple(min(_LINES, count - at) for at in range(0, count, _LINES))
        self._kept: Kept[list[bytes]] = Kept(self._read, blocks_in_memory)

    def sample(self, row: int) -> Sample:
        """The sample of that row, its media as paths.

        Raises:
            BadSampleError: It is no JSON, a file is not there, marks and media do not fit, ….
        """
        kind = "entry" if self._whole is not None else "line"
        name = f"{self.name}: {self._path.name} {kind} {row + 1 + bisect_right(self._blank, row)}"
        try:
            return Sample(name, self._conversation(self._told(row)))
        except SAMPLE_ERRORS as error:
            raise bad_sample(name, error) from error

    def check(self) -> None:
        """See that a sample can be read, of up to 100 that are drawn at random, always the same; media stay closed.

        Raises:
            UserError: None can; with the reason of the first.
        """
        count = sum(self.blocks)
        reasons = []
        for row in sorted(random.Random(0).sample(range(count), min(_TRIED, count))):
            try:
                self.sample(row)
                return
            except BadSampleError as error:
                reasons.append(error)
        raise UserError(f"none of {len(reasons)} samples can be read, so the run stops; the first: {reasons[0]}")

    def _told(self, row: int) -> Any:
        if self._whole is not None:
            return self._whole[row]
        try:
            return json.loads(self._kept(row // _LINES)[row % _LINES])
        except (ValueError, RecursionError) as error:  # no UTF-8, 100,000 brackets, an integer of 5,000 digits
            raise BadSampleError(f"no JSON: {error}") from error

    def _conversation(self, told: Any) -> list[dict[str, Any]]:
        if not isinstance(told, Mapping):
            raise BadSampleError("must be an object with `conversations`")
        settings = {key: told[key] for key in _VIDEO_SETTINGS if key in told}
        stream = told.get("stream")
        turns = told.get("conversation") or told.get("conversations") or [] if stream else turns_of(told)
        images = [self._media.file(path) for path in media_of(told, "image")]
        videos = [self._media.file(path) for path in media_of(told, "video")]
        if stream:
            if len(videos) != 1 or images:
                raise BadSampleError("a stream has one video, and no image")
            settings = {key: value for key, value in settings.items() if key not in ("start", "end")}
            return streaming(videos[0], turns, told.get("start_time", 0.0), **settings)
        messages = from_turns(turns, images, videos)
        for message in messages:
            for part in message["content"] if isinstance(message["content"], list) else []:
                if isinstance(part, dict) and part["type"] == "video":
                    part.update(settings)
        return messages

    def _array(self) -> list[Any]:
        try:
            told = json.loads(self._path.read_bytes())
        except OSError as error:
            raise UserError(f"{self.name}: {self._path}: cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{self.name}: {self._path}: no JSON: {error}; one object per line goes into .jsonl"
            ) from error
        if not isinstance(told, list):
            raise UserError(f"{self.name}: {self._path}: must be a list of samples")
        return told

    def _lines(self) -> Any:
        """Where each line that is not empty begins, and where the last ends: int64 (lines + 1,)."""
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
