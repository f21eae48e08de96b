"""Three of lmms-eval's benchmarks in small: its published task files, over data sets that are made here in their form.

A task file here includes the published one and changes where the data lie, so what is asked, how answers are read and
how they are scored is lmms-eval's own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tests.model.clips import write
from tests.model.training.training_data import picture

MVBENCH_TASK = "action_sequence"
_CLIPS = ("mvbench_video/star/Charades_segment", "charades_sta/Charades_v1_480")  # where the published tasks look
_CAPTIONS = ("person sits down", "person opens a door", "person laughs", "person leaves", "a light goes out")
_SPANS = ((1.0, 3.0), (0.0, 2.0), (2.0, 4.0), (1.0, 2.0), (0.0, 1.0))
if TYPE_CHECKING:
    from model import Processor, VideoLLaMA3

_TEXT = {"dtype": "string", "_type": "Value"}
_AI2D = {
    "huggingface": json.dumps(
        {"info": {"features": {"question": _TEXT, "options": {"feature": _TEXT, "_type": "List"}, "answer": _TEXT,
                               "image": {"_type": "Image"}}}}
    )
}  # fmt: skip
"""Metadata by which the `datasets` library decodes images."""


@dataclass(frozen=True)
class Asked:
    """A question as lmms-eval asks it.

    Attributes:
        kind: image or video.
        file: The image or film.
        text: The question.
        taught: What the model is trained to answer.
        reference: The right answer, as annotations of `vl3syn eval` have it.
    """

    kind: str
    file: Path
    text: str
    taught: str
    reference: str

    @property
    def logged(self) -> str:
        """The answer as lmms-eval logs it: of AI2D its filter leaves the letter alone."""
        return self.taught[0] if self.kind == "image" else self.taught

    @property
    def content(self) -> list[Any]:
        """The question as a message's content."""
        return [{"type": self.kind, self.kind: str(self.file)}, self.text]


def make(root: Path, published: Path) -> dict[str, list[Asked]]:
    """Make data sets, task files (`root/tasks`) and annotations (`root/TASK.jsonl`); `published` are lmms-eval's tasks.

    Returns:
        The questions of each task. `root/hf` is the HF_HOME where the tasks look for films.
    """
    for folder in ("tasks", "data", "images", *(f"hf/{clips}" for clips in _CLIPS)):
        (root / folder).mkdir(parents=True)
    asked = {
        "ai2d_here": _ai2d(root, published / "ai2d/ai2d.yaml"),
        "mvbench_here": _mvbench(root, published / f"mvbench/mvbench_{MVBENCH_TASK}.yaml"),
        "charades_here": _charades(root, published / "charades_sta/charades.yaml"),
    }
    for task, questions in asked.items():
        lines = [_annotation(one) for one in questions]
        (root / f"{task}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return asked


def _ai2d(root: Path, published: Path) -> list[Asked]:
    """Six images with four options each. Two taught answers are wrong; one says the option's text, too."""
    rows, asked = [], []
    for number, taught in enumerate("ABCDAB"):
        file, right = root / f"images/{number}.png", (number if number < 4 else number - 1) % 4
        file.write_bytes(picture(number))
        options = [f"red {number}", "green", "blue", "yellow"]
        rows.append(
            {"question": f"Which colour is {number}?", "options": options, "answer": str(right),
             "image": {"bytes": file.read_bytes(), "path": file.name}}
        )  # fmt: skip
        listed = "\n".join(f"{'ABCD'[at]}. {option}" for at, option in enumerate(options))
        text = f"Which colour is {number}?\n{listed}\nAnswer with the option's letter from the given choices directly."
        answer = f"{taught}. {options['ABCD'.index(taught)]}" if number == 2 else taught
        asked.append(Asked("image", file, text, answer, "ABCD"[right]))
    _task(root, "ai2d_here", published, rows, "test")
    return asked


def _mvbench(root: Path, published: Path) -> list[Asked]:
    """Four questions about two films; one answer that is taught is wrong."""
    rows, asked = [], []
    for number, taught in enumerate(("(A)", "B", "A", "(B) stands")):
        file = root / "hf" / _CLIPS[0] / f"{number % 2}.mp4"
        if not file.exists():
            write(file, [k / 5 for k in range(10 + 10 * number)])
        candidates, right = [f"sits {number}", "stands"], (0, 1, 1, 1)[number]
        question = f"What happens first, {number}?"
        rows.append({"video": file.name, "question": question, "candidates": candidates, "answer": candidates[right]})
        # The line break at the end is the published prompt's.
        text = f"Question:{question}\nOption:\n(A) {candidates[0]}\n(B) {candidates[1]}\nOnly give the best option.\n"
        asked.append(Asked("video", file, text, taught, "AB"[right]))
    _task(root, "mvbench_here", published, rows, "train")
    return asked


def _charades(root: Path, published: Path) -> list[Asked]:
    """Five events: said exactly, half, in words that lmms-eval does not read, reversed, and not at all."""
    taught = ("1.0 - 3.0 seconds.", "0.0 - 4.0", "It starts at 2 s, ends at 4 s.", "2.0 - 1.5", "I do not know.")
    before = (
        "Please find the visual event described by a sentence in the video, determining its starting and ending times."
        " The format should be: 'The event happens in the start time - end time'. For example, The event 'person turn a"
        " light on' happens in the 24.3 - 30.4 seonds. Now I will give you the textual sentence: "
    )
    rows, asked = [], []
    for number, (caption, span, answer) in enumerate(zip(_CAPTIONS, _SPANS, taught, strict=True)):
        file = write(root / "hf" / _CLIPS[1] / f"{number}.mp4", [k / 5 for k in range(20 + number)])
        rows.append({"video": file.name, "caption": caption, "timestamp": list(span)})
        text = f"{before}{caption}. Please return its start time and end time."
        asked.append(Asked("video", file, text, answer, f"{span[0]}-{span[1]} s"))
    _task(root, "charades_here", published, rows, "test")
    return asked


def _task(root: Path, name: str, published: Path, rows: list[Mapping[str, Any]], split: str) -> None:
    """Write the data and the task file."""
    table, file = pa.Table.from_pylist(rows), root / f"data/{name}.parquet"
    pq.write_table(table.replace_schema_metadata(_AI2D) if "image" in rows[0] else table, file)
    data = {"dataset_path": "parquet", "dataset_kwargs": {"data_files": {split: str(file)}}}
    (root / f"tasks/{name}.yaml").write_text(yaml.safe_dump({"include": str(published), "task": name, **data}))


def _annotation(asked: Asked) -> dict[str, Any]:
    turns = [{"from": "human", "value": f"<{asked.kind}>\n{asked.text}"}, {"from": "gpt", "value": asked.reference}]
    return {asked.kind: str(asked.file), "conversations": turns}


def teach(model: VideoLLaMA3, processor: Processor, asked: Sequence[Asked]) -> None:
    """Have a model with random weights answer questions as taught, by the last layer of its language model alone.

    The vectors before that layer differ from token to token, so it can tell them apart; they are computed once.
    """
    import torch

    head = model.language.get_output_embeddings()
    vectors: list[torch.Tensor] = []
    targets: list[torch.Tensor] = []
    hook = head.register_forward_pre_hook(lambda _module, inputs: vectors.append(inputs[0].detach()))
    with torch.no_grad():
        for one in asked:
            turns = [{"role": "user", "content": one.content}, {"role": "assistant", "content": one.taught}]
            row = processor(turns, labels=True, generation_prompt=False)
            model(**row)
            targets.append(row["labels"][row["labels"] != -100])
    hook.remove()
    x, y = torch.cat(vectors).float(), torch.cat(targets)
    optimizer = torch.optim.Adam([head.weight], 0.01)
    for _ in range(500):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(x @ head.weight.T, y).backward()
        optimizer.step()
