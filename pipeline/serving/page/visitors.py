"""The visitors of the page: each has conversations of its own, and a folder that is deleted when it leaves."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.serving.page.talk import Talk
from pipeline.serving.page.watch import Watch
from pipeline.serving.queue import Queue

if TYPE_CHECKING:
    from pipeline.serving.answerer import Answerer

_MOST = 64  # visitors; the one that was away longest leaves for another
_READY = 4  # visitors whose conversations keep the model's memory between questions


@dataclass
class Visitor:
    """A browser's tab.

    Attributes:
        folder: Its files.
        talk: Its conversation.
        watch: The film that it plays as a stream.
    """

    folder: Path
    talk: Talk
    watch: Watch

    @property
    def answering(self) -> bool:
        """Whether one of its answers is being written."""
        return self.talk.answering or self.watch.answering

    def end(self) -> None:
        """End what is being written, and what runs."""
        self.talk.end()
        self.watch.end()


@dataclass
class Visitors:
    """All visitors, by the name of their session.

    Attributes:
        answerer: The model.
        queue: Who has it when.
        folder: Where the visitors' folders are.
        path: Path of the server where the browser finds films.
    """

    answerer: Answerer
    queue: Queue
    folder: Path
    path: str = "/media"
    _visitors: OrderedDict[str, Visitor] = field(default_factory=OrderedDict, init=False)
    _films: dict[str, Path] = field(default_factory=dict, init=False)

    def of(self, session: str) -> Visitor:
        """Return a visitor; a new one if the name is new."""
        if session not in self._visitors:
            self._make_room()
            self._visitors[session] = self._new()
        self._visitors.move_to_end(session)
        for other in list(self._visitors.values())[:-_READY]:
            other.talk.release()
        return self._visitors[session]

    def begin_anew(self, session: str) -> None:
        """End a visitor's conversation and begin another. A film that plays as a stream plays on."""
        visitor = self.of(session)
        visitor.talk.end()
        self._delete(visitor.talk.folder)
        visitor.talk = self._talk(visitor.folder)

    def leave(self, session: str) -> None:
        """Delete all of a visitor."""
        visitor = self._visitors.pop(session, None)
        if visitor is not None:
            visitor.end()
            self._delete(visitor.folder)

    def film(self, name: str) -> Path | None:
        """Return the film with a name that `url` has given; None if there is none."""
        return self._films.get(name)

    def _url(self, path: Path) -> str:
        """Return the path at this server of a film. Nobody can guess it."""
        known = next((name for name, other in self._films.items() if other == path), None)
        name = known or secrets.token_urlsafe(24)
        self._films[name] = path
        return f"{self.path}/{name}"

    def _new(self) -> Visitor:
        folder = Path(tempfile.mkdtemp(prefix="visitor-", dir=self.folder))
        stream = folder / "stream"
        stream.mkdir()
        return Visitor(folder, self._talk(folder), Watch(self.answerer, self.queue, stream))

    def _talk(self, parent: Path) -> Talk:
        folder = Path(tempfile.mkdtemp(prefix="talk-", dir=parent))
        return Talk(self.answerer, self.queue, folder, self._url)

    def _delete(self, folder: Path) -> None:
        self._films = {name: path for name, path in self._films.items() if folder not in path.parents}
        shutil.rmtree(folder, ignore_errors=True)

    def _make_room(self) -> None:
        idle = [session for session, visitor in self._visitors.items() if not visitor.answering]
        if len(self._visitors) >= _MOST and idle:
            self.leave(idle[0])
