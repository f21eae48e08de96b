"""A film that is played as a stream: the model sees frame after frame while it runs, and is asked meanwhile."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from anyio.to_thread import run_sync
from PIL import Image

from core import videos
from core.errors import UserError, is_bug
from pipeline.serving.page import html
from pipeline.serving.page.files import MediaFile, adopt, without_paths
from pipeline.serving.page.moments import clock
from pipeline.serving.page.pictures import thumbnail
from pipeline.serving.page.settings import Settings
from pipeline.serving.page.talk import BUSY, FAILED, Said, View
from pipeline.serving.pieces import close, one_line, taken
from pipeline.serving.queue import Queue, RequestError

if TYPE_CHECKING:
    from model.stream import Stream
    from pipeline.serving.answerer import Answerer

_AHEAD = 8  # frames that are decoded together: at full size they are in memory at once
_MOST_FRAMES = 100_000
_MOST_UNREAD = 512  # views, each with a picture, that wait for a browser


@dataclass
class Watch:
    """A film that runs, and the questions about it. The model is taken for one frame, or one answer, at a time.

    Attributes:
        answerer: The model.
        queue: Who has it when.
        folder: Where the film is kept.
    """

    answerer: Answerer
    queue: Queue
    folder: Path
    _stream: Stream | None = field(default=None, init=False)
    _messages: list[Said] = field(default_factory=list, init=False)
    _run: int = field(default=0, init=False)  # number of the film that runs; another one ends the one before
    _answering: bool = field(default=False, init=False)
    _stopped: bool = field(default=False, init=False)

    @property
    def answering(self) -> bool:
        """Whether an answer is being written."""
        return self._answering

    def stop(self) -> None:
        """End the film, or the answer that is being written."""
        if self._answering:
            self._stopped = True
        else:
            self._run += 1

    def end(self) -> None:
        """End both."""
        self._stopped = True
        self._run += 1

    async def play(
        self, upload: str | None, settings: Settings, unread: Callable[[], int] = lambda: 0
    ) -> AsyncGenerator[View]:
        """Play a film at its own pace: each view shows the frame that the model has seen last.

        Args:
            upload: The film; None is refused.
            settings: How it is read.
            unread: Returns how many views wait for the browser. They would fill the memory: too many end the film.
        """
        if self._answering:
            yield View(note=html.error(BUSY))
            return
        self._run += 1
        files: list[MediaFile] = []
        try:
            if not upload:
                raise UserError("give a film first")
            files += adopt([upload], self.folder, self._run, self.queue.limits.body_bytes)
            self._messages = []
            async with aclosing(self._play(files[0], settings, self._run)) as views:
                async for view in views:
                    if unread() > _MOST_UNREAD:
                        return
                    yield view
        except Exception as failure:
            bug = is_bug(failure) and not isinstance(failure, RequestError)
            yield View(note=html.error(FAILED if bug else without_paths(one_line(failure), files)))
            if bug:
                raise
        finally:
            for file in files:
                file.path.unlink(missing_ok=True)

    async def _play(self, file: MediaFile, settings: Settings, run: int) -> AsyncGenerator[View]:
        stream, film = await run_sync(partial(self._begin, file, settings))
        self._stream = stream
        yield View(messages=[], note=html.note(f"{len(film.times)} frames to come"))
        began, start = anyio.current_time(), film.times[0]
        for first in range(0, len(film.times), _AHEAD):
            for frame, time in await run_sync(partial(_decoded, film, first)):
                await anyio.sleep(max(began + time - start - anyio.current_time(), 0))
                if run != self._run:
                    yield View(note=html.note(f"stopped at {clock(time)}: ask on about what was seen"))
                    return
                async with self.queue.turn():
                    await run_sync(partial(stream.push, frame, time))
                seen = await run_sync(partial(self._seen, stream, frame, time))
                yield View(seen=seen, note=html.note(f"at {clock(time)}, {clock(film.times[-1])} is the end"))
        yield View(note=html.note("the film is over: ask on about what was seen"))

    def _begin(self, file: MediaFile, settings: Settings) -> tuple[Stream, videos.Video]:
        from model.stream import Stream

        processor = settings.of(self.answerer.processor)
        options: dict[str, Any] = {"fps": processor.config.fps, **settings.clip, "max_frames": _MOST_FRAMES}
        film = videos.probe(file.path, **options, sampling=processor.config.sampling)
        stream = Stream(
            self.answerer.model,
            processor,
            system=settings.system,
            window=settings.window,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
        )
        return stream, film

    def _seen(self, stream: Stream, frame: videos.Frame, time: float) -> str:
        start = stream.start or 0.0
        shown = html.picture(thumbnail(Image.fromarray(frame)), f"the frame at {clock(time)}")
        return shown + html.note(f"seen up to {clock(time)}, remembered from {clock(start)}")

    async def ask(self, question: str) -> AsyncGenerator[View]:
        """Ask about what was seen so far. Frames wait meanwhile."""
        stream = self._stream
        if stream is None or self._answering:
            yield View(note=html.error(BUSY if stream else "start a film first"))
            return
        self._answering, self._stopped = True, False
        try:
            if not question.strip():
                raise UserError("write a question first")
            async with aclosing(self._ask(stream, question)) as views:
                async for view in views:
                    yield view
        except Exception as failure:
            bug = is_bug(failure) and not isinstance(failure, RequestError)
            yield View(messages=self._messages, note=html.error(FAILED if bug else one_line(failure)))
            if bug:
                raise
        finally:
            self._answering = False

    async def _ask(self, stream: Stream, question: str) -> AsyncGenerator[View]:
        text = ""
        with self.queue.place():
            yield View(messages=self._with(question, text), note=html.note("waiting for the model"), taken=True)
            async with self.queue.turn():
                pieces = self.queue.while_serving(await run_sync(partial(stream.ask, question)))
                try:
                    async for piece in taken(pieces, lambda: not self._stopped):
                        text += piece
                        yield View(messages=self._with(question, text))
                finally:
                    await close(pieces)
        self._messages = self._with(question, text)
        yield View(messages=self._messages, note=html.stats(stream.stats) if stream.stats else html.note("stopped"))

    def _with(self, question: str, answer: str) -> list[Said]:
        return [*self._messages, {"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _decoded(film: videos.Video, first: int) -> Sequence[tuple[videos.Frame, float]]:
    """Return the next frames of a film, with their times."""
    end = first + _AHEAD
    frames, times = videos.decode(
        replace(film, times=film.times[first:end], moments=film.moments[first:end]), lambda frame: frame
    )
    return list(zip(frames, times, strict=True))
