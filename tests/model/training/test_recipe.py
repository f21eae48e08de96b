"""Training recipes: what is wrong is told in one line with its place; the paper's recipe has the paper's numbers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from model.config import preset
from model.prune import Pruning
from model.training.data.shards import ShardConfig
from model.training.param_groups import parameter_groups
from model.training.recipe import TrainRecipe, load_recipe, parse_recipe
from model.training.stage import Stage
from model.videollama3 import VideoLLaMA3

GOOD: dict[str, Any] = {
    "model": {"preset": "tiny"},
    "sources": {"captions": {"shards": "shards"}, "qa": {"annotations": "qa.jsonl"}},
    "stages": [{"name": "first", "learning_rates": {"": 1e-3}, "mixture": {"captions": 1, "qa": 0.5}, "steps": 10}],
}

ABSENT = ...


def changed(path: str, value: object) -> dict[str, Any]:
    """The good recipe with something else, or nothing, at a place such as `stages.0.rows`."""
    recipe = copy.deepcopy(GOOD)
    *way, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    at: Any = recipe
    for key in way:
        at = at[key]
    if value is ABSENT:
        del at[last]
    else:
        at[last] = value
    return recipe


WRONG = [
    # (place in the recipe, what stands there, the place that is told, what is said)
    ("model", ABSENT, "model", "Field required"),
    ("sources", ABSENT, "sources", "Field required"),
    ("stages", ABSENT, "stages", "Field required"),
    ("stages", [], "stages", "at least 1 item"),
    ("stages", GOOD["stages"] * 2, "", "stages must have names of their own, not first, first"),
    ("stagse", [], "stagse", "unknown key; did you mean 'stages'?"),
    ("seed", -1, "seed", "greater than or equal to 0"),
    ("save_every", 0, "save_every", "greater than or equal to 1"),
    ("keep_last", 0, "keep_last", "greater than or equal to 1"),
    ("evaluate_every", "often", "evaluate_every", "valid integer"),
    ("export_dtype", "float16", "export_dtype", "'float32' or 'bfloat16'"),
    ("model", {}, "model", "give one of `checkpoint: DIR`, `preset: NAME`, or `vision: DIR` with `language: DIR`"),
    ("model", {"preset": "tiny", "checkpoint": "x"}, "model", "give one of `checkpoint"),
    ("model", {"vision": "siglip"}, "model", "`vision: DIR` with `language: DIR`"),
    ("model", {"preset": "3b"}, "model", "no preset named '3b': use one of tiny, small, 2b, 7b"),
    ("model", {"preset": "2b"}, "model", "preset 2b needs `tokenizer: DIR`"),
    ("model", {"pretrained": "x"}, "model.pretrained", "unknown key"),
    ("model", "2b", "model", "must be a mapping"),
    ("model", {"vision": {}, "language": "qwen"}, "model", "give vision and language both as folders, or both as"),
    ("model", {"vision": {}, "preset": "tiny"}, "model", "give one of `checkpoint"),
    ("model", {"vision": {}}, "model", "give one of `checkpoint"),
    ("model", {"vision": 7, "language": {}}, "model.vision", "must be a mapping with hidden_size, "),
    ("model", {"vision": "", "language": "qwen"}, "model.vision", "an empty path"),
    ("model", {"vision": {"hiden_size": 8}}, "model.vision", "unknown key 'hiden_size'; did you mean 'hidden_size'?"),
    (
        "model",
        {"vision": {"hidden_size": 65}},
        "model.vision",
        "hidden_size 65 must be a multiple of 4 x num",
    ),
    ("model", {"vision": {"num_channels": 1}, "language": {}}, "model.vision", "num_channels 1: images have 3"),
    ("model", {"vision": {}, "language": {}}, "model.language.hidden_size", "Field required"),
    ("sources.qa", {}, "sources.qa", "give one of `shards: DIR`, `annotations: FILE` and `records: DIR`"),
    ("sources.qa", {"shards": "a", "annotations": "b"}, "sources.qa", "give one of `shards"),
    ("sources.qa.heldout", 4, "sources.qa.heldout", "unknown key"),
    ("sources.qa.held_out", -4, "sources.qa.held_out", "greater than or equal to 0"),
    ("sources.qa.held_out", "", "sources.qa.held_out", "an empty path"),
    ("sources.qa.held_out", [4], "sources.qa.held_out", "valid integer"),
    ("held_out_seed", -1, "held_out_seed", "greater than or equal to 0"),
    ("sources.captions.caption", "long", "sources.captions.caption", "'short', 'detailed' or 'ocr'"),
    ("stages.0.name", "first stage", "stages.0.name", "match pattern"),
    ("stages.0.name", "n" * 300, "stages.0.name", "at most 100 characters"),
    ("stages.0.rows", 10**9, "stages.0.rows", "less than or equal to 1048576"),
    ("stages.0.lanes", 10**9, "stages.0.lanes", "less than or equal to 65536"),
    ("stages.0.tokens", 10**12, "stages.0.tokens", "less than or equal to 16777216"),
    ("stages.0.patches", 10**12, "stages.0.patches", "less than or equal to 268435456"),
    ("stages.0.lora", {"r": 10**9}, "stages.0.lora.r", "less than or equal to 65536"),
    ("threads", 10**9, "threads", "less than or equal to 1024"),
    ("ask", 10**9, "ask", "less than or equal to 65536"),
    ("stages.0.learning_rate", 1e-3, "stages.0.learning_rate", "unknown key; did you mean 'learning_rates'?"),
    ("num_eval_generations", 2, "num_eval_generations", "unknown key"),
    ("stages.0.learning_rates", ABSENT, "stages.0.learning_rates", "Field required"),
    (
        "stages.0.learning_rates",
        {"vision": "forzen"},
        "stages.0.learning_rates.vision",
        "'forzen': give a",
    ),
    ("stages.0.learning_rates", {"vision": 0}, "stages.0.learning_rates.vision", "or `frozen`"),
    ("stages.0.learning_rates", {"vision": None}, "stages.0.learning_rates.vision", "or `frozen`"),
    ("stages.0.learning_rates", 1e-3, "stages.0.learning_rates", "must be a mapping"),
    ("stages.0.mixture", {}, "stages.0", "an empty mixture"),
    ("stages.0.mixture", {"capshuns": 1}, "", "stage first: no source 'capshuns': name one of captions, qa"),
    ("stages.0.mixture", {"qa": {}}, "stages.0.mixture.qa", "give a weight, as in `qa: 0.5`"),
    ("stages.0.mixture", {"qa": {"weight": 1, "samples": 9}}, "stages.0.mixture.qa", "give a weight"),
    ("stages.0.mixture", {"qa": 0}, "stages.0.mixture.qa.weight", "greater than 0"),
    ("stages.0.mixture", {"qa": {"samples": 0}}, "stages.0.mixture.qa.samples", "greater than or equal to 1"),
    ("stages.0.mixture", {"qa": "all"}, "stages.0.mixture.qa", "must be a mapping"),
    ("stages.0.mixture", {"qa": True}, "stages.0.mixture.qa", "must be a mapping"),
    ("stages.0.image_merge", 3, "stages.0.image_merge", "1 or 2"),
    ("stages.0.video_merge", 4, "stages.0.video_merge", "1 or 2"),
    ("stages.0.pruning", {"treshold": 5}, "stages.0.pruning.treshold", "unknown key"),
    ("stages.0.pruning", {"threshold": -1}, "stages.0.pruning.threshold", "greater than or equal to 0"),
    ("stages.0.tokens", 16, "stages.0.tokens", "greater than or equal to 32"),
    ("stages.0.visual_tokens", 4, "stages.0.visual_tokens", "greater than or equal to 16"),
    ("stages.0.patches", 4, "stages.0.patches", "greater than or equal to 16"),
    ("stages.0.fps", 0, "stages.0.fps", "greater than 0"),
    ("stages.0.max_frames", 0, "stages.0.max_frames", "greater than or equal to 1"),
    ("stages.0.rows", 0, "stages.0.rows", "greater than or equal to 1"),
    ("stages.0.lanes", 3, "stages.0", "rows 128 must be a multiple of lanes 3"),
    ("stages.0.steps", ABSENT, "stages.0", "give one of `steps` and `epochs`"),
    ("stages.0.epochs", 1, "stages.0", "give one of `steps` and `epochs`"),
    ("stages.0.schedule", "step", "stages.0.schedule", "'cosine', 'linear' or 'constant'"),
    ("stages.0.warmup", 1, "stages.0.warmup", "less than 1"),
    ("stages.0.weight_decay", -0.1, "stages.0.weight_decay", "greater than or equal to 0"),
    ("stages.0.betas", [0.9], "stages.0.betas.1", "Field required"),
    ("stages.0.betas", [0.9, 1], "stages.0.betas.1", "less than 1"),
    ("stages.0.clip", 0, "stages.0.clip", "greater than 0"),
    ("stages.0.precision", "fp16", "stages.0.precision", "'bf16' or 'fp32'"),
    ("stages.0.checkpointing", "some", "stages.0.checkpointing", "valid boolean"),
    ("stages.0.lora", {"rank": 8}, "stages.0.lora.rank", "unknown key"),
    ("stages.0.lora", {"r": 0}, "stages.0.lora.r", "greater than or equal to 1"),
    ("stages.0.lora", {"dropout": 1}, "stages.0.lora.dropout", "less than 1"),
]


@pytest.mark.parametrize(("path", "value", "reported", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_invalid_key_is_a_one_line_error_with_its_position(
    path: str, value: object, reported: str, message: str
) -> None:
    with pytest.raises(ValueError, match=r"^r\.yaml: ") as refused:
        parse_recipe(changed(path, value), "r.yaml")
    said = str(refused.value)
    assert said.startswith(f"r.yaml: {reported}: " if reported else "r.yaml: ")
    assert message in said
    assert "\n" not in said


def test_valid_recipe_is_accepted() -> None:
    assert parse_recipe(GOOD, "r.yaml").stages[0].steps == 10


@pytest.mark.parametrize("written", [[], None, "stages", 3])
def test_recipe_that_is_not_a_mapping_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match=r"r\.yaml: must be a mapping with model, sources, stages"):
        parse_recipe(written, "r.yaml")


def test_file_that_cannot_be_read_is_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such recipe"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match="not readable"):
        load_recipe(tmp_path)
    broken = tmp_path / "broken.yaml"
    broken.write_text("stages: [\n- name: x\n")
    with pytest.raises(ValueError, match=r"broken\.yaml: not YAML") as refused:
        load_recipe(broken)
    assert "\n" not in str(refused.value)
    broken.write_bytes(b"name: \xff\xfe")
    with pytest.raises(ValueError, match=r"broken\.yaml: not YAML") as refused:
        load_recipe(broken)
    assert "\n" not in str(refused.value)


def test_resolved_recipe_resolves_to_itself(paper: TrainRecipe) -> None:
    for recipe in (paper, parse_recipe(GOOD, "r.yaml")):
        assert parse_recipe(recipe.model_dump(mode="json"), "r.yaml") == recipe


@pytest.fixture(scope="module")
def paper() -> TrainRecipe:
    return load_recipe("recipes/train-vl3syn7m.yaml")


def test_paper_recipe_has_the_stages_and_rates_of_the_paper(paper: TrainRecipe) -> None:
    """arXiv 2501.13106, section 3.3; the released scripts stage1_2b.sh to stage4_2b.sh have the same."""
    later = {"vision": 2e-6, "projector": 1e-5, "language": 1e-5}
    assert [stage.name for stage in paper.stages] == ["encoder", "alignment", "tuning", "video"]
    assert [stage.learning_rates for stage in paper.stages] == [
        {"vision": 1e-5, "projector": 1e-3, "language": "frozen"},
        *[later] * 3,
    ]


def test_paper_recipe_has_the_numbers_of_the_original_scripts(paper: TrainRecipe) -> None:
    assert [stage.image_merge for stage in paper.stages] == [1, 1, 1, 2]
    assert [stage.pruning for stage in paper.stages] == [None, None, *[Pruning()] * 2]
    assert (Pruning().threshold, Pruning().unit, Pruning().min_tokens) == (0.1, "reference", 1)
    same = {
        "video_merge": 2,
        "tokens": 16384,
        "visual_tokens": 10240,
        "fps": 1.0,
        "max_frames": 180,
        "epochs": 1.0,
        "steps": None,
        "schedule": "cosine",
        "warmup": 0.03,
        "weight_decay": 0.0,
        "betas": (0.9, 0.999),
        "clip": None,
        "precision": "bf16",
        "checkpointing": True,
        "lora": None,
    }
    for stage in paper.stages:
        assert {name: getattr(stage, name) for name in same} == same
    assert (paper.seed, paper.save_every, paper.keep_last) == (42, 1000, 2)


def test_paper_recipe_has_the_right_captions_in_each_stage(paper: TrainRecipe) -> None:
    captions = {name: source.caption for name, source in paper.sources.items() if isinstance(source, ShardConfig)}
    used = [[captions[name] for name in stage.mixture if name in captions] for stage in paper.stages]
    assert used == [["short"], ["detailed"], [], []]
    assert {name for stage in paper.stages for name in stage.mixture} == set(paper.sources)
    assert all(share.weight == 1 for stage in paper.stages for share in stage.mixture.values())


def test_paper_recipe_fits_eight_gpus(paper: TrainRecipe) -> None:
    assert all(stage.num_virtual_ranks % 8 == 0 for stage in paper.stages)


@pytest.fixture(scope="module")
def model() -> VideoLLaMA3:
    """2b, names and shapes only."""
    return VideoLLaMA3(preset("2b"), "meta")


def _rates(model: VideoLLaMA3, stage: Stage) -> dict[str, float]:
    groups = parameter_groups(model.named_parameters(), stage.learning_rates, stage.weight_decay)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(parameter)]: group["peak"] for group in groups for parameter in group["params"]}


@pytest.mark.parametrize("number", range(4))
def test_every_parameter_of_2b_has_the_rate_of_the_paper(paper: TrainRecipe, model: VideoLLaMA3, number: int) -> None:
    names = [name for name, _ in model.named_parameters()]
    parts = {"vision": 412_147_440, "projector": 4_131_840, "language": 1_543_714_304}
    sizes = {part: sum(p.numel() for n, p in model.named_parameters() if n.startswith(f"{part}.")) for part in parts}
    assert sizes == parts
    first = {"vision": 1e-5, "projector": 1e-3}
    wanted = first if number == 0 else {"vision": 2e-6, "projector": 1e-5, "language": 1e-5}
    rates = _rates(model, paper.stages[number])
    assert rates == {name: wanted[part] for name in names if (part := name.split(".")[0]) in wanted}
    learns = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learns == set(rates)
