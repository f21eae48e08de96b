"""`vl3syn eval` with a small random model, through the command line."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
from PIL import Image

COUNT, BRIEF = 5, ("--max-new-tokens", 6)


class Told(NamedTuple):
    code: int
    out: str
    err: str


Ask = Callable[..., Told]


def _png(number: int) -> bytes:
    data = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (3, 4, 3), np.uint8)
    Image.fromarray(pixels).resize((60 + 7 * number, 56)).save(data, "PNG")
    return data.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ckpt`; `shards` of five images with both captions; `qa.jsonl`, whose references are the model's own answers."""
    from model import Processor, VideoLLaMA3
    from model.config import preset
    from tests.model.oracles import widen

    parent = tmp_path_factory.mktemp("eval")
    model, processor = VideoLLaMA3(preset("tiny")), Processor.tiny()
    widen(model)
    model.language.generation_config.eos_token_id = None  # else an answer may be over at once
    model.save_pretrained(parent / "ckpt")
    processor.save_pretrained(parent / "ckpt")
    _write_shards(parent / "shards" / "data")
    lines = []
    for number in range(3):
        (parent / f"{number}.png").write_bytes(_png(number))
        question = [{"role": "user", "content": [{"type": "image", "image": _png(number)}, "What?"]}]
        answer = processor.decode(model.eval().generate(**processor(question), max_new_tokens=6)[0]).strip()
        turns = [{"from": "human", "value": "<image>What?"}, {"from": "gpt", "value": answer}]
        lines.append({"image": [f"{number}.png"], "conversations": turns})
    (parent / "qa.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return parent


def _write_shards(folder: Path) -> None:
    def turns(caption: str) -> list[dict[str, str]]:
        return [{"from": "human", "value": "<image>\nDescribe it."}, {"from": "gpt", "value": caption}]

    folder.mkdir(parents=True)
    rows = range(COUNT)
    short, detailed = (
        [f"Picture {n}." for n in rows],
        [f"A picture with the number {n} on it, in colour." for n in rows],
    )
    pl.DataFrame(
        {
            "id": list(rows),
            "image": [{"bytes": _png(n), "path": f"{n}.png"} for n in rows],
            "short_caption": short,
            "detailed_caption": detailed,
            "conversations": [turns(caption) for caption in detailed],
            "short_conversations": [turns(caption) for caption in short],
        }
    ).write_parquet(folder / "shard-00000.parquet", row_group_size=2)
    ocr = [f"Picture 1. The texts in this image are {text}<box>[0,0,500,90]</box>." for text in ("OPEN", "EXIT")]
    (folder.parent / "ocr").mkdir()
    pl.DataFrame(
        {
            "id": [1, 2],
            "image": [{"bytes": _png(n), "path": f"{n}.png"} for n in (1, 2)],
            "caption": ocr,
            "conversations": [turns(caption) for caption in ocr],
        }
    ).write_parquet(folder.parent / "ocr/shard-00000.parquet")


@pytest.fixture
def ask(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Call the command as `vl3syn eval ckpt` would be, within this process."""
    from pipeline.commands.app import main

    monkeypatch.chdir(folder)

    def call(*arguments: object, checkpoint: str = "ckpt") -> Told:
        monkeypatch.setattr(sys, "argv", ["vl3syn", "eval", checkpoint, *map(str, arguments)])
        code: Any = 0
        try:
            main()
        except SystemExit as left:
            code = left.code
        return Told(code or 0, *capsys.readouterr())

    return call


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_eval_of_shards_gives_loss_and_answers(folder: Path, ask: Ask, tmp_path: Path) -> None:
    from model import Processor, VideoLLaMA3
    from model.caption_metrics import caption_metrics
    from model.evaluate import compute_loss
    from model.training.data.shards import ShardSource

    done = ask("--data", "shards", "--predictions", tmp_path / "new" / "out.jsonl", "--json", *BRIEF)
    assert (done.code, done.err) == (0, "")
    result = json.loads(done.out)
    model, processor = (kind.from_pretrained(folder / "ckpt") for kind in (VideoLLaMA3, Processor))
    source = ShardSource("eval", str(folder / "shards"))
    loss = compute_loss(model, processor, map(source.sample, range(COUNT)))
    assert result["loss"] == {"mean": pytest.approx(loss.mean, rel=1e-5), "tokens": loss.tokens, "samples": COUNT}
    assert result["skipped"] == []
    said = _lines(tmp_path / "new" / "out.jsonl")
    assert [line["sample"] for line in said] == [source.sample(n).name for n in range(COUNT)]
    assert said[3]["reference"] == "A picture with the number 3 on it, in colour."
    assert len({line["answer"] for line in said}) > 2
    metrics = caption_metrics([line["answer"] for line in said], [line["reference"] for line in said])
    assert {name: result["answers"][name] for name in ("count", "chrf", "rouge_l")} == {
        "count": COUNT, "chrf": metrics.chrf, "rouge_l": metrics.rouge_l,
    }  # fmt: skip
    assert result["answers"]["exact"] == 0
    assert result["clip_score"] is None


def test_evaluate_function_equals_the_output_of_the_command(folder: Path, ask: Ask, tmp_path: Path) -> None:
    from dataclasses import asdict

    from model.evaluate import evaluate
    from model.training.data.annotations import AnnotationConfig
    from model.training.data.shards import ShardConfig

    sources = {
        "shards": ShardConfig(shards=str(folder / "shards")),
        "qa.jsonl": AnnotationConfig(annotations=str(folder / "qa.jsonl")),
    }
    for data, config in sources.items():
        done = ask("--data", data, "--limit", 3, "--predictions", tmp_path / "out.jsonl", "--json", *BRIEF)
        printed = json.loads(done.out)
        result = evaluate(folder / "ckpt", config, limit=3, max_new_tokens=6)
        assert result.metrics is not None
        assert printed["loss"] == {"mean": result.loss.mean, "tokens": result.loss.tokens, "samples": 3}
        assert printed["answers"] == asdict(result.metrics)
        assert printed["skipped"] == result.skipped == []
        assert _lines(tmp_path / "out.jsonl") == [asdict(answer) for answer in result.answers]


def test_caption_can_be_chosen(ask: Ask, tmp_path: Path) -> None:
    tokens = {}
    for caption in ("short", "detailed", "ocr"):
        out = tmp_path / f"{caption}.jsonl"
        result = json.loads(ask("--data", "shards", "--caption", caption, "--predictions", out, "--json", *BRIEF).out)
        tokens[caption] = result["loss"]["tokens"]
    assert _lines(tmp_path / "short.jsonl")[1]["reference"] == "Picture 1."
    assert tokens["short"] < tokens["detailed"]
    assert _lines(tmp_path / "ocr.jsonl")[1]["reference"].endswith("are EXIT<box>[0,0,500,90]</box>.")
    assert len(_lines(tmp_path / "ocr.jsonl")) == 2


def test_answers_that_are_the_references_have_full_marks(ask: Ask) -> None:
    result = json.loads(ask("--data", "qa.jsonl", "--json", *BRIEF).out)
    assert result["answers"]["chrf"] == pytest.approx(100)
    assert result["answers"]["exact"] == 1


def test_table_describes_each_number(ask: Ask) -> None:
    title, *lines = ask("--data", "qa.jsonl", *BRIEF).out.splitlines()
    assert title == "ckpt on qa.jsonl"
    table = [" ".join(line.split()) for line in lines]
    assert any(re.fullmatch(r"loss [\d.]+ nats per token; \d+ tokens of 3 samples", line) for line in table)
    assert any(line.startswith("chrF 100 100; 3 answers; nrefs:1|") for line in table)
    assert "exact match 1 1; case and space aside" in table


def test_shuffled_images_give_another_loss(folder: Path, ask: Ask, tmp_path: Path) -> None:
    from model.evaluate import evaluate
    from model.training.data.shards import ShardConfig

    out = tmp_path / "out.jsonl"
    result = json.loads(ask("--data", "shards", "--shuffle-images", "--predictions", out, "--json", *BRIEF).out)
    assert result["shuffled_loss"]["own"] == result["loss"]["mean"]
    assert result["shuffled_loss"]["samples"] == COUNT
    assert result["shuffled_loss"]["mean"] != result["shuffled_loss"]["own"]
    lines = _lines(out)
    assert len({line["loss"] for line in lines}) == COUNT
    assert all(line["shuffled_loss"] != line["loss"] for line in lines)
    table = " ".join(ask("--data", "shards", "--shuffle-images", "--max-new-tokens", 0).out.split())
    expected = evaluate(folder / "ckpt", ShardConfig(shards="shards"), max_new_tokens=0, shuffle_images=True).shuffled
    assert expected is not None
    assert f"nats per token; {expected.own:.4f} with their own; {COUNT} samples" in table
    assert json.loads(ask("--data", "shards", "--max-new-tokens", 0, "--json").out)["shuffled_loss"] is None


def test_limit_evaluates_only_the_first_samples(ask: Ask) -> None:
    assert json.loads(ask("--data", "shards", "--limit", 2, "--json", *BRIEF).out)["loss"]["samples"] == 2
    assert json.loads(ask("--data", "shards", "--limit", 99, "--json", *BRIEF).out)["loss"]["samples"] == COUNT


def test_zero_new_tokens_evaluates_the_loss_only(ask: Ask) -> None:
    done = ask("--data", "shards", "--max-new-tokens", 0)
    assert "loss" in done.out
    assert "chrF" not in done.out
    assert json.loads(ask("--data", "shards", "--max-new-tokens", 0, "--json").out)["answers"] is None


def test_bad_samples_are_named_once_and_the_others_counted(folder: Path, ask: Ask, tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "<image>What?"}, {"from": "gpt", "value": "Red."}]
    (tmp_path / "bad.png").write_text("<html>404")
    (tmp_path / "good.png").write_bytes(_png(1))
    images = [["good.png"], ["bad.png"], ["gone.png"], ["good.png", "good.png"]]
    lines = [json.dumps({"image": image, "conversations": turns}) for image in images]
    (tmp_path / "qa.jsonl").write_text("\n".join([*lines, "no json"]))
    done = ask("--data", tmp_path / "qa.jsonl", "--json", *BRIEF)
    result = json.loads(done.out)
    assert (done.code, result["loss"]["samples"], result["answers"]["count"]) == (0, 1, 1)
    assert sorted(line.split(":")[1].strip() for line in result["skipped"]) == [
        f"qa.jsonl line {n}" for n in (2, 3, 4, 5)
    ]
    assert done.err.count("skipped eval: qa.jsonl line") == 4
    assert "gone.png: no such file" in done.err


@pytest.mark.parametrize("turn", [0, 1])
def test_text_with_invalid_unicode_is_skipped(folder: Path, ask: Ask, tmp_path: Path, turn: int) -> None:
    """In a question, or in a reference, which no model reads but which is written down."""
    bad = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "Red."}]
    bad[turn]["value"] += "\ud83d"
    good = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "Red."}]
    lines = [json.dumps({"conversations": turns}) for turns in (bad, good)]
    (tmp_path / "qa.jsonl").write_text("\n".join(lines))
    done = ask("--data", tmp_path / "qa.jsonl", "--predictions", tmp_path / "out.jsonl", "--json", *BRIEF)
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert (result["loss"]["samples"], result["answers"]["count"]) == (1, 1)
    assert all(": qa.jsonl line 1: " in line and "not valid Unicode: U+D83D" in line for line in result["skipped"])
    assert [line["sample"] for line in _lines(tmp_path / "out.jsonl")] == ["eval: qa.jsonl line 2"]


def test_media_option_sets_the_media_folder(folder: Path, ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "qa.jsonl").write_bytes((folder / "qa.jsonl").read_bytes())
    assert ask("--data", tmp_path / "qa.jsonl", "--max-new-tokens", 0).code == 1
    assert ask("--data", tmp_path / "qa.jsonl", "--media", ".", "--max-new-tokens", 0).code == 0


def test_clip_score_equals_the_cosine_of_open_clip(folder: Path, ask: Ask, tmp_path: Path, tiny_clip: Path) -> None:
    import open_clip
    import torch

    out = tmp_path / "out.jsonl"
    done = ask("--data", "shards", "--encoder", tiny_clip, "--predictions", out, "--json", *BRIEF)
    result = json.loads(done.out)["clip_score"]
    network, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tiny_clip}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{tiny_clip}")
    scores = []
    for number, line in enumerate(_lines(out)):
        with torch.no_grad():
            image = network.eval().encode_image(transform(Image.open(io.BytesIO(_png(number))).convert("RGB"))[None])
            text = network.encode_text(tokenize(["A photo depicts " + line["answer"]]))
        scores.append(2.5 * max(float(torch.cosine_similarity(image, text)), 0))
        assert line["clip_score"] == pytest.approx(scores[-1], abs=2e-3)
    assert max(scores) > 0.05
    assert result == {"encoder": str(tiny_clip), "mean": pytest.approx(np.mean(scores), abs=2e-3), "count": COUNT}


@pytest.fixture
def trained(folder: Path, tmp_path: Path) -> str:
    """The checkpoint with what the trainer writes beside it: detailed captions of the shards, 2 of 5 held out."""
    from model.training.recipe import parse_recipe

    shutil.copytree(folder / "ckpt", tmp_path / "ckpt")
    scene = {"shards": str(folder / "shards"), "held_out": 2}
    stage = {"name": "one", "learning_rates": {"": 1e-3}, "mixture": {"scene": 1}, "steps": 1}
    sources = {"scene": scene, "other": {"annotations": "other.jsonl"}}
    recipe = parse_recipe({"model": {"preset": "tiny"}, "sources": sources, "stages": [stage]}, "test")
    provenance = {"recipe": recipe.model_dump(mode="json"), "rows": {"scene": COUNT}}
    (tmp_path / "ckpt/vl3syn_training.json").write_text(json.dumps(provenance))
    return str(tmp_path / "ckpt")


def test_eval_on_training_data_is_warned_about(ask: Ask, trained: str) -> None:
    for data in ("shards", "shards/data"):
        done = ask("--data", data, "--max-new-tokens", 0, checkpoint=trained)
        assert f"was trained on {data} (scene): this tells what it remembers; 2 of its samples were not" in done.err
    for other in (("--data", "qa.jsonl"), ("--data", "shards", "--caption", "short")):
        assert ask(*other, "--max-new-tokens", 0, checkpoint=trained).err == ""


def test_held_out_and_trained_samples_are_those_of_the_training(
    ask: Ask, folder: Path, trained: str, tmp_path: Path
) -> None:
    from model.training.data.sampler import SourceOrder
    from model.training.data.shards import ShardSource

    expected = SourceOrder(ShardSource("scene", str(folder / "shards")), 2, 7, 42, 4).held_out.tolist()
    result = {}
    for part in ("--held-out", "--trained-on"):
        done = ask("--data", "shards", part, "--predictions", tmp_path / "out.jsonl", *BRIEF, checkpoint=trained)
        assert (done.code, done.err) == (0, "")
        result[part] = [int(line["sample"].split("(id ")[1].rstrip(")")) for line in _lines(tmp_path / "out.jsonl")]
    assert result == {"--held-out": expected, "--trained-on": [row for row in range(COUNT) if row not in expected]}


def test_export_of_an_earlier_version_is_told_about(ask: Ask, trained: str) -> None:
    file = Path(trained) / "vl3syn_training.json"
    file.write_text(json.dumps({"recipe": json.loads(file.read_text())["recipe"]}))
    done = ask("--data", "shards", "--held-out", "--max-new-tokens", 0, "--json", checkpoint=trained)
    assert (done.code, json.loads(done.out)["loss"]["samples"]) == (0, 2)
    (line,) = done.err.splitlines()
    assert "does not say how many samples scene had, as those of earlier versions: if it has others now, some" in line


def test_held_out_of_data_that_have_grown_are_refused(ask: Ask, trained: str) -> None:
    file = Path(trained) / "vl3syn_training.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rows": {"scene": COUNT - 1}}))
    for part in ("--held-out", "--trained-on"):
        done = ask("--data", "shards", part, "--max-new-tokens", 0, checkpoint=trained)
        assert done.code == 1
        (line,) = done.err.splitlines()
        assert line.startswith("vl3syn: shards: had 4 samples and has 5 since the training: which samples it held out")


def _change_training(checkpoint: str, change: Callable[[dict[str, Any]], None]) -> None:
    file = Path(checkpoint) / "vl3syn_training.json"
    stored = json.loads(file.read_text())
    change(stored["recipe"])
    file.write_text(json.dumps(stored))


def test_held_out_samples_are_those_of_the_held_out_seed(ask: Ask, folder: Path, trained: str, tmp_path: Path) -> None:
    from model.training.data.sampler import SourceOrder
    from model.training.data.shards import ShardSource

    rows = {s: SourceOrder(ShardSource("scene", str(folder / "shards")), 2, 7, s, 4).held_out.tolist() for s in (0, 42)}
    assert rows[0] != rows[42]
    _change_training(trained, lambda recipe: recipe.update(held_out_seed=0))
    out = tmp_path / "out.jsonl"
    assert ask("--data", "shards", "--held-out", "--predictions", out, *BRIEF, checkpoint=trained).code == 0
    assert [int(line["sample"].split("(id ")[1].rstrip(")")) for line in _lines(out)] == rows[0]


def test_held_out_option_names_the_held_out_file(ask: Ask, trained: str) -> None:
    _change_training(trained, lambda recipe: recipe["sources"]["scene"].update(held_out="exam"))
    done = ask("--data", "shards", "--held-out", checkpoint=trained)
    assert (done.code, done.err) == (1, "vl3syn: of scene what is held out lies in exam: give --data exam\n")
    done = ask("--data", "shards", "--trained-on", "--max-new-tokens", 0, "--json", checkpoint=trained)
    assert json.loads(done.out)["loss"]["samples"] == COUNT
    done = ask("--data", "shards", "--max-new-tokens", 0, checkpoint=trained)
    assert "(scene): this tells what it remembers; what is held out lies in exam\n" in done.err


def test_held_out_of_data_that_was_not_trained_on_is_refused(ask: Ask, trained: str) -> None:
    done = ask("--data", "qa.jsonl", "--held-out", checkpoint=trained)
    assert done.code == 1
    assert "was not trained on qa.jsonl: leave out --held-out and --trained-on" in done.err


def test_failure_keeps_the_earlier_predictions(ask: Ask, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("before\n")
    (tmp_path / "qa.jsonl").write_text("no json\n")
    done = ask("--data", tmp_path / "qa.jsonl", "--predictions", out, *BRIEF)
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert "not one of its samples could be looked at; the first: eval: qa.jsonl line 1" in done.err
    assert out.read_text() == "before\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "qa.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--data", "nowhere"), "no shards"),
        (("--data", "nowhere.jsonl"), "cannot be read"),
        (("--data", "shards", "--predictions", "."), "is a folder"),
        (("--data", "shards", "--encoder", "conse"), "is no folder and not ARCHITECTURE/WEIGHTS"),
    ],
)
def test_user_errors_are_one_line(ask: Ask, arguments: tuple[str, ...], reason: str) -> None:
    done = ask(*arguments, *BRIEF)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert reason in done.err


@pytest.mark.parametrize("name", ["qa.jsonl.gz", "qa.txt", "qa.parquet", "qa"])
def test_file_with_another_ending_is_refused_by_name(ask: Ask, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"{}\n"))
    done = ask("--data", tmp_path / name, *BRIEF)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert f"--data {tmp_path / name}: a file: give annotations that end with .json, .jsonl or .ndjson" in done.err


@pytest.mark.parametrize("name", ["qa.ndjson", "qa.JSONL", "qa.JSON"])
def test_other_spellings_of_an_ending_are_annotations(folder: Path, ask: Ask, tmp_path: Path, name: str) -> None:
    lines = (folder / "qa.jsonl").read_text().splitlines()
    (tmp_path / name).write_text(f"[{','.join(lines)}]" if name.endswith("JSON") else "\n".join(lines))
    arguments = ("--media", folder, "--max-new-tokens", 0, "--json")
    done = [ask("--data", path, *arguments) for path in (tmp_path / name, folder / "qa.jsonl")]
    losses = [json.loads(one.out)["loss"] for one in done]
    assert losses[0] == losses[1]
    assert losses[0]["samples"] == len(lines)


def _imported(folder: Path, out: Path, form: Any = "jsonl", rows_per_file: int = 9) -> Path:
    from manifests.record_files import RecordWriter
    from tests.model.training.data.importers.importing import import_source

    (out / "new").mkdir(parents=True)
    lines = shutil.copy(folder / "qa.jsonl", out / "qa.jsonl")
    with RecordWriter(out / "new", form, rows_per_file) as writer:
        for record in import_source("llava", Path(lines), folder).records:
            writer.write(record.model_copy(update={"task": "qa"}))
    return out / "new"


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_records_have_the_loss_of_their_annotations(folder: Path, ask: Ask, tmp_path: Path, form: Any) -> None:
    records = _imported(folder, tmp_path, form)
    (of_records, of_file), of_annotations = (
        [
            json.loads(ask("--data", path, "--media", folder, "--json", *BRIEF).out)["loss"]
            for path in (records, records / f"records-00000.{form}")
        ],
        json.loads(ask("--data", "qa.jsonl", "--json", *BRIEF).out)["loss"],
    )
    assert of_records == of_file == of_annotations
    assert of_records["samples"] == 3
    done = ask("--data", records, "--media", folder, "--task", "vqa", "--by", "task", "--json", *BRIEF)
    assert "qa" in str(json.loads(done.out)["scores"]["groups"]["task"])


def test_held_out_records_are_those_of_the_training(folder: Path, ask: Ask, trained: str, tmp_path: Path) -> None:
    records = _imported(folder, tmp_path / "set", rows_per_file=2)
    source = {"records": str(records), "media": str(folder), "held_out": 1}
    _change_training(trained, lambda recipe: recipe["sources"].update(notes=source))
    arguments = ("--media", folder, "--held-out", "--max-new-tokens", 0)
    assert json.loads(ask("--data", records, *arguments, "--json", checkpoint=trained).out)["loss"]["samples"] == 1
    done = ask("--data", records / "records-00000.jsonl", *arguments, checkpoint=trained)
    assert (done.code, done.out) == (1, "")
    assert f"of notes one file is given, and samples were held out of all: give {records}" in done.err
    assert ask("--data", "qa.jsonl", "--max-new-tokens", 0, checkpoint=trained).code == 0


def test_stage_folder_is_refused_with_the_folder_to_give(ask: Ask, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "1-one").mkdir()
    (tmp_path / "1-one/model").symlink_to(folder / "ckpt")
    for above in (tmp_path / "1-one", tmp_path):
        done = ask("--data", "shards", *BRIEF, checkpoint=str(above))
        said = f"vl3syn: {above}: no checkpoint, but it has some in it: give {tmp_path}/1-one/model\n"
        assert (done.code, done.out, done.err) == (1, "", said)


def test_folder_without_a_checkpoint_is_a_one_line_error(ask: Ask) -> None:
    done = ask("--data", "shards", checkpoint="shards")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "shards" in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--data", "shards", "--caption", "long"),
        ("--data", "qa.jsonl", "--caption", "short"),
        ("--data", "shards", "--media", "."),
        ("--data", "shards", "--limit", "0"),
        ("--data", "shards", "--max-new-tokens", "0", "--predictions", "out.jsonl"),
    ],
)
def test_wrong_usage_exits_with_code_2(ask: Ask, arguments: tuple[str, ...]) -> None:
    assert ask(*arguments).code == 2


def test_nothing_heavy_is_imported_with_the_command_line() -> None:
    heavy = "{'torch', 'transformers', 'sacrebleu', 'rouge_score', 'pyarrow', 'numpy'} & set(sys.modules)"
    program = f"import sys, pipeline.commands.evaluate; sys.exit(str({heavy}) if {heavy} else 0)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_outside_media_need_the_root_option(folder: Path, ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/1.png").write_bytes(_png(1))
    (tmp_path / "notes").mkdir()
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "It."}]
    entry = {"image": "../photos/1.png", "conversations": turns}
    (tmp_path / "notes/qa.jsonl").write_text(json.dumps(entry))
    notes = ("--data", tmp_path / "notes/qa.jsonl", "--max-new-tokens", 0)
    refused = ask(*notes)
    assert refused.code == 1
    assert "lies outside of" in refused.err
    assert "(--root of eval and import)" in refused.err
    done = ask(*notes, "--root", tmp_path / "photos", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["loss"]["samples"] == 1
    assert ask("--data", "shards", "--root", tmp_path, *BRIEF).code == 2


def test_predictions_are_written_through_a_link(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "target.jsonl")
    assert ask("--data", "qa.jsonl", "--predictions", tmp_path / "link.jsonl", *BRIEF).code == 0
    assert (tmp_path / "link.jsonl").is_symlink()
    assert len(_lines(tmp_path / "target.jsonl")) == 3


def test_predictions_into_a_special_file_are_refused(ask: Ask, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    (tmp_path / "device").symlink_to("/dev/null")
    end = os.pipe()[1]
    (tmp_path / "end").symlink_to(f"/dev/fd/{end}")
    wrong = {
        "pipe": f"{tmp_path}/pipe: is a pipe, socket or device, not a file: name a file",
        "end": f"{tmp_path}/end: is a pipe, socket or device, not a file: name a file",
        "device": f"{tmp_path}/device: is a pipe, socket or device, not a file: name a file",
        "file/p.jsonl": f"{tmp_path}/file: is not a folder, or lies in a file: name another folder",
        ".": f"{tmp_path}: is a folder, not a file: name a file",
    }
    for name, said in wrong.items():
        done = ask("--data", "qa.jsonl", "--predictions", tmp_path / name, *BRIEF)
        assert (done.code, done.out, done.err) == (1, "", f"vl3syn: --predictions {said}\n")
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("option", ["--data", "--media", "--root", "--predictions", "--encoder"])
@pytest.mark.parametrize(("path", "said"), [("", "an empty path: "), ("a\0.jsonl", r"'a\x00.jsonl': no path: it has")])
def test_invalid_path_of_eval_is_named(ask: Ask, option: str, path: str, said: str) -> None:
    done = ask("--data", "qa.jsonl", option, path, *BRIEF)
    assert done.code == 1
    assert done.err.startswith(f"vl3syn: {option}: {said}")
    assert done.err.count("\n") == 1


def test_huge_max_new_tokens_is_wrong_usage(ask: Ask) -> None:
    done = ask("--data", "qa.jsonl", "--max-new-tokens", "99999999999999999999")
    assert done.code == 2
    assert "1000000" in done.err
