"""Ask about a film that is longer than the model's window: captions of its parts, then text alone (core/film_notes.py).

The same model sees the parts, one after another, and answers out of what it said about them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from core.errors import UserError
from core.film_notes import Note, fitting, question_over
from core.frame_sampling import FOLDER_FPS
from core.videos import probe
from model.chat import Chat

DESCRIBE = "Describe what happens in this part of a film. Name people, objects, actions and places."
"""What is asked about each part. Ours: LLoVi has a captioner that takes no question."""

_LEAST = 2.0
"""Shortest setting, in seconds: parts have at least half of it, and the last one begins before the last frame."""

_MARGIN = 64
"""Tokens that a chat template may add to a question."""


def parts(film: str, seconds: float, frames_fps: float = FOLDER_FPS) -> list[tuple[float, float]]:
    """Divide a film into parts of equal length, each at most so many seconds long.

    Args:
        film: A video file, or a folder of frames.
        seconds: Longest part, at least 2.
        frames_fps: Frames per second of a folder of frames.

    Returns:
        Start and end of each part, in seconds. They follow one another from 0 to the end of the film.

    Raises:
        UserError: `seconds` is too small.
        BadSampleError: The film cannot be read.
    """
    if not seconds >= _LEAST:
        raise UserError(f"parts of {seconds:g} s: give at least {_LEAST:g}")
    times = probe(film, fps=1.0, max_frames=1_000_000, frames_fps=frames_fps).times
    length = times[-1] + 1.0  # the last sampled frame begins a second
    count = max(1, int(-(-length // seconds)))
    return [(length * n / count, length * (n + 1) / count) for n in range(count)]


@dataclass
class LongFilm:
    """A conversation about one long film.

    Attributes:
        new_chat: Makes a conversation without questions. All have one model.
        film: The film: a video file, or a folder of frames.
        seconds: Longest part that the model sees at once.
        settings: How frames are taken, as in a video's message: fps, max_frames, ….
        notes: What the model said about each part; empty until `read` has ended.
    """

    new_chat: Callable[[], Chat]
    film: str
    seconds: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    _talk: Chat | None = field(default=None, init=False, repr=False)
    _before: int = field(default=0, init=False, repr=False)

    def read(self) -> Iterator[Note]:
        """Caption the parts of the film; yield each note.

        Raises:
            UserError, BadSampleError: As in `parts` and `Chat.ask`.
        """
        for start, end in parts(self.film, self.seconds, self.settings.get("frames_fps", FOLDER_FPS)):
            part = {"type": "video", "video": self.film, **self.settings, "start": start, "end": end}
            self.notes.append(Note(start, end, "".join(self.new_chat().ask(DESCRIBE, [part]))))
            yield self.notes[-1]

    def ask(self, question: str) -> Generator[str]:
        """Ask about the film, and stream the answer. Later questions continue the conversation.

        Raises:
            UserError: The notes do not fit into the model's window, even when they are summed up.
        """
        if self._talk is not None and len(self._talk.conversation) > self._before:
            return self._talk.ask(question)
        self._talk = self.new_chat()  # also after a first question that was stopped: its notes are not in the old one
        self._before = len(self._talk.conversation)
        told = fitting(self.notes, question, self._fits, lambda text: "".join(self.new_chat().ask(text)))
        return self._talk.ask(question_over(told, question))

    @property
    def talk(self) -> Chat:
        """The conversation about the notes, with the statistics of its last answer."""
        assert self._talk is not None
        return self._talk

    def _fits(self, text: str) -> bool:
        chat = self.new_chat()
        room = chat.model.config.language.get("max_position_embeddings")
        system = "".join(str(message["content"]) for message in chat.conversation)
        tokens = len(chat.processor.tokenizer(system + text)["input_ids"])
        return room is None or tokens + _MARGIN + chat.max_new_tokens <= int(room)
