"""VideoLLM-online: streams whose turns have times, as its live chats; or stretches of frames between turns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from core.errors import BadSampleError, UserError
from core.records import Licence, Turn
from model.training.data.importers.film_names import PATH, path_of
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.turns import content_text, list_of_turns, plain, role_of, seconds_of, text_of, video

SILENCE = "how many silent frames are learned (`learn` of a stretch of frames) is not kept"


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the stream of an entry. A stretch of frames becomes the time of what follows, at `fps` frames a second."""
    entry = row.entry
    said = list_of_turns(entry.get("conversation"))
    uid = text_of(entry, "video_uid")
    path = path_of(options, "{video_uid}.mp4", video_uid=uid)
    if not any(turn.get("role") == "stream" for turn in said):
        turns = [_turn(turn, seconds_of(turn, "time")) for turn in said]
        yield Draft(turns, [video(path)], original_id=uid, task="stream")
        return
    turns, end = _timed(said, _rate(options))
    yield Draft(
        turns,
        [video(path, end=end)],
        original_id=uid,
        task="stream",
        transforms=("times_from_num_frames",),
        notes=(SILENCE,) if any(turn.get("role") == "stream" and "learn" in turn for turn in said) else (),
    )


def _timed(said: Sequence[Mapping[str, Any]], rate: float) -> tuple[list[Turn], float]:
    turns, frames = [], 0
    for turn in said:
        if turn.get("role") != "stream":
            turns.append(_turn(turn, round(frames / rate, 6)))
            continue
        count = turn.get("num_frames")
        if type(count) is not int or not 0 < count < 1 << 31:
            raise BadSampleError(f"no number of frames in `num_frames`: {count!r:.80}")
        frames += count
    return turns, round(frames / rate, 6)


def _turn(turn: Mapping[str, Any], time: float) -> Turn:
    learn = turn.get("learn")
    if not isinstance(learn, bool | None):
        raise BadSampleError(f"a number in `learn` of a turn that is no stretch of frames: {learn!r:.80}")
    role = role_of(turn.get("role"))
    learn = None if role != "assistant" and learn is False else learn  # it is the default
    return plain(role, content_text(turn.get("content")), time=time, learn=learn)


def _rate(options: Options) -> float:
    try:
        rate = float(options.get("fps", "2"))
    except ValueError:
        rate = 0.0
    if not 0 < rate <= 1000:
        raise UserError(f"--set fps={options['fps']}: give frames per second, such as 2")
    return rate


FORMAT = Format(
    name="videollm-online",
    about="VideoLLM-online: live chats, and streams with stretches of frames",
    read=read,
    fits=lambda entry: {"video_uid", "conversation"} <= entry.keys() and "question_id" not in entry,
    profiles=(Profile("videollm-online-chat", Licence(name="unknown; media: Ego4D licence", gated=True)),),
    options=PATH | {"fps": "frames per second of num_frames (2)"},
)
