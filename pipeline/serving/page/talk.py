"""One visitor's conversation: questions with images and films, and what the page shows of the answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyio.to_thread import run_sync

from core.errors import UserError, is_bug
from core.images import decode
from model.chat import Chat
from model.media import MediaLoader
from pipeline.serving.page import html
from pipeline.serving.page.files import MediaFile, adopt, without_paths
from pipeline.serving.page.moments import moments_of
from pipeline.serving.page.pictures import FrameView, draw_boxes, frame_views
from pipeline.serving.page.settings import Settings
from pipeline.serving.pieces import close, one_line, taken
from pipeline.serving.queue import Queue, RequestError

if TYPE_CHECKING:
    from model.media_cache import CachedMedium
    from model.prompt import Message
    from pipeline.serving.answerer import Answerer

Said = Mapping[str, str]
"""A message on the page: its role and its text."""

BUSY = "an answer is being written: wait for its end, or stop it"
FAILED = "this failed by a fault of the server, whose log says more: ask again, or begin a new conversation"
_MOST_VIEWS = 64  # frames that are shown of one film


@dataclass(frozen=True)
class View:
    """What changes on the page. None: it stays as it is.

    Attributes:
        messages: The conversation.
        players: HTML of the films.
        seen: HTML of what the model saw.
        found: HTML of the boxes and times in the answer.
        note: HTML of what goes on, or of what is wrong.
        taken: Whether the question was accepted: its field can be emptied.
    """

    messages: Sequence[Said] | None = None
    players: str | None = None
    seen: str | None = None
    found: str | None = None
    note: str | None = None
    taken: bool = False


_EMPTY = View([], "", "", "")
"""The last view of a conversation that was ended: one that was on its way may come after the page was emptied."""


@dataclass(frozen=True)
class _Turn:
    question: str
    files: Sequence[MediaFile]
    answer: str

    @property
    def said(self) -> list[Said]:
        names = "".join(f"[{file.name}]\n" for file in self.files)
        return [{"role": "user", "content": names + self.question}, {"role": "assistant", "content": self.answer}]


@dataclass
class Talk:
    """A conversation. Its answers take their turn with all others.

    Attributes:
        answerer: The model.
        queue: Who has it when.
        folder: The conversation's files; it belongs to it.
        url: Returns where the browser finds a film of it.
    """

    answerer: Answerer
    queue: Queue
    folder: Path
    url: Any
    _chat: Chat = field(init=False)
    _turns: list[_Turn] = field(default_factory=list, init=False)
    _views: dict[bytes, list[FrameView]] = field(default_factory=dict, init=False)
    _times: list[Sequence[float]] = field(default_factory=list, init=False)  # of the frames of each file
    _count: int = field(default=0, init=False)  # files that were adopted
    _answering: bool = field(default=False, init=False)
    _stopped: bool = field(default=False, init=False)
    _ended: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._chat = Chat(self.answerer.model, self.answerer.processor, media_cache=self.answerer.media_cache)

    @property
    def messages(self) -> list[Said]:
        """The conversation so far."""
        return [said for turn in self._turns for said in turn.said]

    @property
    def answering(self) -> bool:
        """Whether an answer is being written."""
        return self._answering

    def stop(self) -> None:
        """End the answer that is being written, with its next piece."""
        self._stopped = True

    def end(self) -> None:
        """End the conversation: it leaves an empty page. Its files may go."""
        self._stopped = self._ended = True

    def release(self) -> None:
        """Free the model's memory that the conversation holds between questions."""
        if not self._answering:
            self._chat.release()

    async def ask(self, question: str, uploads: Sequence[str], settings: Settings) -> AsyncGenerator[View]:
        """Ask, with uploaded files. What goes wrong is one line of the last view."""
        if self._answering:
            yield View(note=html.error(BUSY))
            return
        self._answering, self._stopped = True, False
        files: list[MediaFile] = []
        try:
            if not question.strip():
                raise UserError("write a question first")
            files += adopt(uploads, self.folder, self._count, self.queue.limits.body_bytes)
            self._count += len(files)
            async with aclosing(self._ask(question, files, settings)) as views:
                async for view in views:
                    if self._ended:
                        yield _EMPTY
                        return
                    yield view
        except Exception as failure:
            if bug := is_bug(failure) and not isinstance(failure, RequestError):
                line = FAILED
            else:
                line = without_paths(one_line(failure), [*self._files(), *files])
            yield _EMPTY if self._ended else View(messages=self.messages, note=html.error(line))
            if bug:
                raise
        finally:
            self._answering = False

    async def _ask(self, question: str, files: list[MediaFile], settings: Settings) -> AsyncGenerator[View]:
        asked = _Turn(question, files, "")
        with self.queue.place() as hold:
            hold(sum(file.path.stat().st_size for file in files))
            yield View(messages=[*self.messages, *asked.said], found="", note=html.note("waiting for the model"))
            async with self.queue.turn():
                begun = await run_sync(partial(self._begin, question, files, settings))
                pieces, text = self.queue.while_serving(begun), ""
                try:
                    seen = await run_sync(partial(self._seen, [*self._files(), *files], settings.clip))
                    yield View(players=self._players(files), seen=seen, note=html.note("the model reads"), taken=True)
                    async for piece in taken(pieces, lambda: not self._stopped):
                        text += piece
                        yield View(messages=[*self.messages, *_Turn(question, files, text).said])
                finally:
                    await close(pieces)
        self._turns.append(_Turn(question, files, text))
        yield View(messages=self.messages, found=await run_sync(partial(self._found, text)), note=self._stats())

    def _begin(self, question: str, files: Sequence[MediaFile], settings: Settings) -> Generator[str]:
        """Read the media, check that all fits. The model begins with the first piece."""
        import torch

        chat = self._chat
        chat.processor = settings.of(self.answerer.processor)
        chat.max_new_tokens, chat.temperature, chat.top_p = (
            settings.max_new_tokens,
            settings.temperature,
            settings.top_p,
        )
        chat.conversation = self._conversation(settings)
        torch.seed()  # else an earlier request's seed would decide
        return chat.ask(question, [file.part(settings.clip) for file in files])

    def _conversation(self, settings: Settings) -> list[Message]:
        """Return the messages so far. Settings of films are those of the next question for all of them."""
        messages: list[Message] = [{"role": "system", "content": settings.system}] if settings.system else []
        for turn in self._turns:
            parts = [file.part(settings.clip) for file in turn.files]
            messages.append({"role": "user", "content": [*parts, turn.question] if parts else turn.question})
            messages.append({"role": "assistant", "content": turn.answer})
        return messages

    def _files(self) -> list[MediaFile]:
        return [file for turn in self._turns for file in turn.files]

    def _seen(self, files: Sequence[MediaFile], clip: Mapping[str, Any]) -> str:
        """Return what the model saw, as HTML. Only new media become pictures."""
        views = {}
        for number, (file, medium) in enumerate(zip(files, self._chat.media, strict=True)):
            known = self._views.get(medium.identity)
            views[medium.identity] = known or self._pictures(file, medium, number, clip)
        self._views, self._times = views, [medium.times for medium in self._chat.media]
        self._chat.media = ()  # their patches
        return "".join(html.frames(some) for some in views.values())

    def _pictures(self, file: MediaFile, medium: CachedMedium, number: int, clip: Mapping[str, Any]) -> list[FrameView]:
        config = self._chat.processor.config
        shown: Any = medium
        if not len(medium.patches):  # it was encoded before, for somebody else
            size = medium.grid[1] * config.patch_size, medium.grid[2] * config.patch_size
            shown = MediaLoader([file.part(clip)], config).read(size)[0]
        return _some(frame_views(shown, number))

    def _players(self, new: Sequence[MediaFile]) -> str | None:
        """Return players of all films; None if there is no new one: a film that plays goes on."""
        if not any(file.kind == "video" for file in new):
            return None
        films = [(number, file) for number, file in enumerate([*self._files(), *new]) if file.kind == "video"]
        return "".join(html.film(self.url(file.path), number, file.name) for number, file in films)

    def _found(self, answer: str) -> str:
        """Return the boxes of an answer, drawn on the last image, and its times, for the last film."""
        files = list(enumerate(self._files()))
        shown = ""
        if images := [file for _, file in files if file.kind == "image"]:
            drawn = draw_boxes(decode(images[-1].path.read_bytes()), answer)
            shown += html.picture(drawn, f"{images[-1].name} with the boxes of the answer") if drawn else ""
        if films := [number for number, file in files if file.kind == "video"]:
            times = self._times[films[-1]]
            step = times[1] - times[0] if len(times) > 1 else 1.0
            shown += html.moments(moments_of(answer, times[-1] + step), films[-1])
        return shown

    def _stats(self) -> str:
        return html.stats(self._chat.stats) if self._chat.stats else html.note("stopped")


def _some(views: list[FrameView]) -> list[FrameView]:
    """Return so many frames as a page can show, evenly spaced."""
    step = -(-len(views) // _MOST_VIEWS)
    return views[::step]
