"""VideoChat2-IT: `QA` lists with instructions, of films, clips of films, folders of frames, images and text alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from core.errors import BadSampleError
from core.records import Licence, Medium
from model.training.data.importers.format import Draft, Format, Options, Profile, Row
from model.training.data.importers.options_text import PREFIX, choices_of, options_of
from model.training.data.importers.qa_lists import Pair, pairs_of, system_turn, turns_of_pairs
from model.training.data.importers.turns import image, seconds_of, video

LATER_INSTRUCTION = "an instruction of a later question was left out"
EARLIER_OPTIONS = "options of earlier questions stand in the text alone"
_TASKS = {"vqa": "qa", "reasoning": "qa", "grounding": "grounding", "caption": "caption", "text": "chat"}


def read(row: Row, options: Options) -> Iterator[Draft]:
    """Draft the one record of an entry: the first instruction is a system message, or the question if that is empty."""
    entry = row.entry
    pairs, notes, transforms = pairs_of(entry), list[str](), list[str]()
    first = pairs[0].instruction if pairs[0].question.strip() else ""
    if any(pair.question.strip() and pair.instruction not in ("", first) for pair in pairs):
        notes.append(LATER_INSTRUCTION)
    if any(not pair.question.strip() and pair.instruction for pair in pairs):
        transforms.append("instruction_as_question")
    pairs = [pair._replace(question=pair.question if pair.question.strip() else pair.instruction) for pair in pairs]
    choices = choices_of(pairs[-1].question, pairs[-1].answer)
    if any(options_of(pair.question) for pair in pairs[:-1]):
        notes.append(EARLIER_OPTIONS)
    if options.get("prefix") == "strip" and any(PREFIX.match(pair.answer) for pair in pairs):
        transforms.append("strip_answer_prefix")
        pairs = [Pair(pair.question, PREFIX.sub("", pair.answer, count=1)) for pair in pairs]
    medium = _medium(entry, options)
    folder = PurePosixPath(row.file).parent
    tasks = [_TASKS[part] for part in folder.parts if part in _TASKS]
    yield Draft(
        [*system_turn(first), *turns_of_pairs(pairs, medium)],
        [medium] if medium else [],
        original_id=entry.get("id", ""),
        subset="" if str(folder) == "." else str(folder),
        choices=choices,
        task="qa_mc" if choices else tasks[-1] if tasks else "",
        transforms=transforms,
        notes=notes,
    )


def _medium(entry: Mapping[str, Any], options: Options) -> Medium | None:
    paths = [(key, entry[key]) for key in ("video", "image") if entry.get(key) is not None]
    if len(paths) > 1:
        raise BadSampleError("film and image: an entry of VideoChat2 has one of both")
    start, end = (None if entry.get(key) is None else seconds_of(entry, key) for key in ("start", "end"))
    if not paths or paths[0][0] == "image":
        if start is not None or end is not None:
            raise BadSampleError("times without a film: `start` and `end`")
        return image(paths[0][1]) if paths else None
    return video(paths[0][1], is_frame_folder=options.get("media") == "img", start=start, end=end)


def _fits(entry: Mapping[str, Any]) -> bool:
    pairs = entry.get("QA")
    if not isinstance(pairs, list) or "source" in entry:
        return False
    instructed = any(isinstance(pair, Mapping) and "i" in pair for pair in pairs)
    return instructed or "image" in entry or "start" in entry


FORMAT = Format(
    name="videochat2",
    about="VideoChat2-IT: questions with instructions about films, clips, folders of frames, images",
    read=read,
    fits=_fits,
    profiles=(
        Profile(
            "videochat2-it",
            Licence(
                name="MIT",
                terms_url="https://huggingface.co/datasets/OpenGVLab/VideoChat2-IT",
                gated=True,
                generator="GPT-4, ChatGPT",
            ),
        ),
    ),
    options={
        "media": "`img`: each film is a folder of frames",
        "prefix": "`strip`: take `Answer: ` off the answers",
    },
)
