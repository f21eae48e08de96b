"""Coarse captions, by small random models of the very classes and in the layout of the real ones."""

from __future__ import annotations

import json
import pickle
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from captioners import coarse
from captioners.coarse import Captioner, CoarseCaption
from core.precision import Precision
from manifests.schemas import ERROR

PROMPT = "a photo of"


def picture(number: int) -> Image.Image:
    """A smooth picture of its own, of a size of its own."""
    noise = np.random.default_rng(number).integers(0, 256, (3 + number % 3, 4, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((60 + 7 * number, 90 - 5 * number), Image.Resampling.BICUBIC)


PICTURES = [picture(number) for number in range(5)]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other on busy cores make such small models a hundred times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def models(tiny_blip: Path, tiny_blip2: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from tests.checkpoints import save_blip2

    t5 = save_blip2(tmp_path_factory.mktemp("models") / "t5", "t5")
    return {"blip": tiny_blip, "blip2": tiny_blip2, "blip2-t5": t5}


@pytest.fixture(scope="module")
def load(models: dict[str, Path]) -> Callable[..., Captioner]:
    """`load(kind, **settings)`, each once, in float32."""
    loaded: dict[str, Captioner] = {}

    def once(kind: str, **settings: Any) -> Captioner:
        key = f"{kind} {settings}"
        if key not in loaded:
            loaded[key] = CoarseCaption(model=str(models[kind]), precision="float32", **settings).load()
        return loaded[key]

    return once


@pytest.fixture
def broken(models: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a model, to break."""
    return lambda kind: shutil.copytree(models[kind], tmp_path / kind)


each_model = pytest.mark.parametrize("kind", ["blip", "blip2", "blip2-t5"])


def captions(captioner: Captioner, pictures: list[Image.Image] = PICTURES) -> list[str | None]:
    table = captioner([captioner.prepare(image) for image in pictures])
    texts: list[str | None] = table["coarse_caption"].to_pylist()
    assert table["error"].null_count == len(pictures)
    return texts


def change_json(file: Path, change: dict[str, Any]) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | change))


def refusal(model: object, **settings: Any) -> str:
    """The one line with which a model is refused."""
    begin = time.perf_counter()
    with pytest.raises(ValueError, match=r"\w") as refused:
        CoarseCaption(model=str(model), **settings).load()
    text = str(refused.value)
    assert time.perf_counter() - begin < 10
    assert text.startswith("coarse_caption: ")
    assert str(model) in text
    assert "\n" not in text
    return text


@each_model
def test_different_images_get_different_captions(load: Callable[..., Captioner], kind: str) -> None:
    texts = captions(load(kind))
    assert all(isinstance(text, str) and text for text in texts)
    assert len(set(texts)) >= len(PICTURES) - (kind == "blip2-t5")  # random T5s like to repeat one word
    assert all(text == " ".join(str(text).split()) for text in texts)


@each_model
@pytest.mark.parametrize("prompt", ["", PROMPT])
def test_batch_gets_the_captions_of_its_images_alone(load: Callable[..., Captioner], kind: str, prompt: str) -> None:
    captioner = load(kind, prompt=prompt)
    assert captions(captioner) == [captions(captioner, [image])[0] for image in PICTURES]


@each_model
@pytest.mark.parametrize("prompt", ["", PROMPT])
def test_captions_equal_those_of_transformers(
    load: Callable[..., Captioner], models: dict[str, Path], kind: str, prompt: str
) -> None:
    import transformers

    cls = transformers.BlipForConditionalGeneration if kind == "blip" else transformers.Blip2ForConditionalGeneration
    processor = transformers.AutoProcessor.from_pretrained(models[kind])
    network = cls.from_pretrained(models[kind]).eval()
    inputs = processor(images=PICTURES, text=[prompt] * len(PICTURES), return_tensors="pt")
    tokens = network.generate(**inputs, max_new_tokens=30, num_beams=1, do_sample=False)
    texts = processor.batch_decode(tokens, skip_special_tokens=True)
    assert captions(load(kind, prompt=prompt)) == [" ".join(text.removeprefix(prompt).split()) for text in texts]
    if prompt and kind != "blip2-t5":
        assert all(text.startswith(prompt) for text in texts)  # so there was an echo to be cut off


@each_model
def test_prompt_steers_the_caption_but_is_not_part_of_it(load: Callable[..., Captioner], kind: str) -> None:
    prompted = captions(load(kind, prompt=PROMPT))
    assert prompted != captions(load(kind))
    assert not any(str(text).startswith(PROMPT) for text in prompted)


@each_model
@pytest.mark.parametrize("prompt", ["", PROMPT])
def test_caption_has_at_most_max_new_tokens(load: Callable[..., Captioner], kind: str, prompt: str) -> None:
    whole = captions(load(kind, prompt=prompt))
    for tokens in (1, 4):
        short = captions(load(kind, prompt=prompt, max_new_tokens=tokens))
        assert all(str(long).startswith(str(text)) and long != text for long, text in zip(whole, short, strict=True))
        if kind == "blip":  # a word is a token there
            assert max(len(str(text).split()) for text in short) == tokens


def loaded_with_end(folder: Path, bias: float) -> Captioner:
    """BLIP that ends its captions the earlier, the higher the bias."""
    import transformers

    network = transformers.BlipForConditionalGeneration.from_pretrained(folder)
    network.text_decoder.cls.predictions.bias.data[network.config.text_config.sep_token_id] = bias
    network.save_pretrained(folder)
    return CoarseCaption(model=str(folder), prompt=PROMPT).load()


def test_caption_that_ends_at_once_is_an_error_of_its_row(broken: Callable[[str], Path]) -> None:
    captioner = loaded_with_end(broken("blip"), bias=1e4)
    table = captioner([captioner.prepare(image) for image in PICTURES])
    assert table["coarse_caption"].to_pylist() == [None] * len(PICTURES)
    assert all(error.startswith("empty caption: ") for error in table["error"].to_pylist())


def test_captions_of_a_batch_end_independently(broken: Callable[[str], Path]) -> None:
    captioner = loaded_with_end(broken("blip"), bias=6)
    inputs = [captioner.prepare(picture(number)) for number in range(12)]
    together, alone = captioner(inputs), [captioner([one]) for one in inputs]
    assert together.to_pylist() == [table.to_pylist()[0] for table in alone]
    lengths = {len(str(text).split()) for text in together["coarse_caption"].drop_null().to_pylist()}
    assert len(lengths) > 2
    assert together["error"].null_count > 0


def test_empty_caption_does_not_change_its_neighbours(
    load: Callable[..., Captioner], monkeypatch: pytest.MonkeyPatch
) -> None:
    captioner = load("blip")
    monkeypatch.setattr(captioner, "_generate", lambda inputs: ["a dog", " \n", " two\ncats  "])
    table = captioner([captioner.prepare(image) for image in PICTURES[:3]])
    assert table["coarse_caption"].to_pylist() == ["a dog", None, "two cats"]
    assert [error is None for error in table["error"].to_pylist()] == [True, False, True]


@each_model
def test_table_has_the_declared_columns(load: Callable[..., Captioner], kind: str) -> None:
    captioner = load(kind)
    for pictures in ([], PICTURES[:2]):
        table = captioner([captioner.prepare(image) for image in pictures])
        assert table.num_rows == len(pictures)
        assert table.schema.equals(CoarseCaption.writes.append(ERROR), check_metadata=True)


@each_model
def test_threads_prepare_the_same_pixels(load: Callable[..., Captioner], kind: str) -> None:
    captioner = load(kind)
    many = PICTURES * 8
    alone = [captioner.prepare(image) for image in many]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(captioner.prepare, many))
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))
    assert {(tuple(pixels.shape), pixels.dtype) for pixels in together} == {((3, 32, 32), torch.float32)}
    assert captioner.side == 64


@pytest.mark.parametrize("size", [(1, 1), (3, 1), (1, 3), (3, 3), (3, 200), (200, 3), (2000, 1)])
def test_image_of_few_pixels_keeps_its_colour(load: Callable[..., Captioner], size: tuple[int, int]) -> None:
    captioner = load("blip")
    pixels = captioner.prepare(Image.new("RGB", size, (200, 100, 50)))
    expected = captioner.prepare(Image.new("RGB", (64, 64), (200, 100, 50)))
    np.testing.assert_allclose(pixels, expected, atol=0.02)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("blip", "bfloat16"), ("blip2", "bfloat16"), ("blip2-t5", "bfloat16"), ("blip", "float16"), ("blip2", "float16")],
)
def test_captioner_runs_in_half_precision(models: dict[str, Path], kind: str, dtype: Precision) -> None:
    captioner = CoarseCaption(model=str(models[kind]), max_new_tokens=4, precision=dtype).load()
    assert all(captions(captioner))
    assert captioner._network.vision_model.dtype == getattr(torch, dtype)
    assert captioner.prepare(PICTURES[0]).dtype == getattr(torch, dtype), "threads cast, not the model's thread"


@pytest.mark.parametrize(
    ("kind", "capability", "dtype"),
    [("blip2", (7, 5), "float16"), ("blip2-t5", (7, 5), "float32"), ("blip2-t5", (8, 0), "bfloat16")],
)
def test_flan_t5_is_float32_on_a_gpu_without_bfloat16(
    models: dict[str, Path], kind: str, capability: tuple[int, int], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    chosen = coarse.device_and_dtype
    monkeypatch.setattr(coarse, "device_and_dtype", lambda *asked: (torch.device("cpu"), chosen(*asked)[1]))
    captioner = CoarseCaption(model=str(models[kind]), max_new_tokens=2).load()
    assert captioner.provenance["dtype"] == dtype
    assert captioner._network.language_model.dtype == getattr(torch, dtype)


@pytest.mark.parametrize(
    ("kind", "prompt"),
    [
        ("blip2", PROMPT),
        ("blip2-t5", ""),
        pytest.param("blip2", "", marks=pytest.mark.thorough),
        pytest.param("blip2-t5", PROMPT, marks=pytest.mark.thorough),
    ],
)
def test_static_cache_gives_the_captions_of_the_dynamic_one(
    load: Callable[..., Captioner], kind: str, prompt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import StaticCache

    used: list[int] = []
    init = StaticCache.__init__

    def counted(self: Any, *arguments: Any, **named: Any) -> None:
        used.append(1)
        init(self, *arguments, **named)

    monkeypatch.setattr(StaticCache, "__init__", counted)
    static = load(kind, prompt=prompt, cache_implementation="static")
    for pictures in (PICTURES, PICTURES[:2], PICTURES[3:4]):
        assert captions(static, pictures) == captions(load(kind, prompt=prompt), pictures)
    assert used


@pytest.mark.thorough
def test_decoding_with_a_static_cache_compiles_twice(load: Callable[..., Captioner], models: dict[str, Path]) -> None:
    """Once for the first batch size and once for all others; transformers compiles only on a GPU if not told to."""
    from torch._dynamo.utils import counters
    from transformers.generation.configuration_utils import CompileConfig

    captioner = CoarseCaption(
        model=str(models["blip2"]), precision="float32", cache_implementation="static", max_new_tokens=6
    ).load()
    everywhere = CompileConfig(backend="eager")
    everywhere._compile_all_devices = True
    captioner._generation = {**captioner._generation, "compile_config": everywhere}
    before = counters["stats"]["unique_graphs"]
    for size in (5, 5, 2, 3, 4, 5):
        expected = captions(load("blip2", max_new_tokens=6), PICTURES[:size])
        assert captions(captioner, PICTURES[:size]) == expected
    assert counters["stats"]["unique_graphs"] - before == 2


def test_static_cache_is_refused_for_blip_in_one_line(models: dict[str, Path]) -> None:
    assert "transformers has no static cache for BLIP; take dynamic" in refusal(
        models["blip"], cache_implementation="static"
    )


def test_cache_implementation_is_in_no_fingerprint() -> None:
    static = CoarseCaption(cache_implementation="static")
    assert static.fingerprint_settings() == CoarseCaption().fingerprint_settings()
    assert set(static.fingerprint_settings()) == {"model", "revision", "prompt", "max_new_tokens"}


def test_provenance_identifies_weights_by_content(
    broken: Callable[[str], Path], load: Callable[..., Captioner]
) -> None:
    import transformers

    before = load("blip").provenance
    folder = broken("blip")
    assert CoarseCaption(model=str(folder), precision="float32").load().provenance == before
    network = transformers.BlipForConditionalGeneration.from_pretrained(folder)
    network.text_decoder.cls.predictions.bias.data[9] = 1
    network.save_pretrained(folder)
    after = CoarseCaption(model=str(folder), precision="float32").load().provenance
    assert after["weights"] != before["weights"]
    assert after["transformers"] == before["transformers"] == transformers.__version__


@pytest.mark.parametrize(
    "kind",
    ["blip2", *(pytest.param(kind, marks=pytest.mark.thorough) for kind in ("blip", "blip2-t5"))],
)
def test_provenance_identifies_a_model_of_the_hub_by_its_commit(
    models: dict[str, Path], load: Callable[..., Captioner], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--somebody--captioner"
    shutil.copytree(models[kind], repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for revision in (None, "main", commit):
        stage = CoarseCaption(model="somebody/captioner", precision="float32", revision=revision)
        stage.check_available()
        captioner = stage.load()
        assert captioner.provenance["weights"] == commit
        assert captions(captioner) == captions(load(kind))
    assert "hf download somebody/captioner" in refusal("somebody/captioner", revision="other")


def test_tokenizer_that_adds_no_special_tokens_changes_nothing(
    broken: Callable[[str], Path], load: Callable[..., Captioner]
) -> None:
    folder = broken("blip2")
    for name, change in (
        ("tokenizer_config.json", {"add_bos_token": False}),
        ("tokenizer.json", {"post_processor": None}),
    ):
        change_json(folder / name, change)
    captioner = CoarseCaption(model=str(folder), precision="float32", prompt=PROMPT).load()
    tokenizer = captioner._processor.tokenizer
    assert tokenizer(PROMPT)["input_ids"] == tokenizer(PROMPT, add_special_tokens=False)["input_ids"]
    assert captions(captioner) == captions(load("blip2", prompt=PROMPT))


def test_pickle_may_hold_weights(broken: Callable[[str], Path], load: Callable[..., Captioner]) -> None:
    from safetensors.torch import load_file

    folder = broken("blip")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    captioner = CoarseCaption(model=str(folder), precision="float32").load()
    assert captions(captioner) == captions(load("blip"))
    assert len(str(captioner.provenance["weights"])) == 64


class Evil:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_pickle_that_holds_code_is_refused_and_not_run(broken: Callable[[str], Path], tmp_path: Path) -> None:
    folder = broken("blip")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(tmp_path / "ran"), protocol=2))
    refusal(folder)
    assert not (tmp_path / "ran").exists()


def test_model_of_another_type_is_refused(broken: Callable[[str], Path]) -> None:
    folder = broken("blip")
    change_json(folder / "config.json", {"model_type": "clip"})
    assert "type clip; supported types are blip-2 and blip" in refusal(folder)
    with pytest.raises(ValueError, match="supported types are blip-2 and blip"):
        CoarseCaption(model=str(folder)).check_available()


def test_invalid_json_of_a_configuration_is_refused(broken: Callable[[str], Path]) -> None:
    folder = broken("blip")
    (folder / "config.json").write_text("{")
    assert "cannot be loaded" in refusal(folder)


def test_missing_model_is_refused(tmp_path: Path) -> None:
    assert "has no config.json; give a folder or a hub name" in refusal(tmp_path / "nothing")
    assert "hf download Salesforce/blip2-opt-2.7b" in refusal("Salesforce/blip2-opt-2.7b")
    assert "neither a folder here nor a name on the hub" in refusal("a model")


@pytest.mark.parametrize("keep", [0, 4, 5000, -1])
def test_truncated_weights_are_refused(broken: Callable[[str], Path], keep: int) -> None:
    folder = broken("blip2")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    assert "is cut off" in refusal(folder)


def test_folder_without_weights_is_refused(broken: Callable[[str], Path]) -> None:
    folder = broken("blip2")
    (folder / "model.safetensors").unlink()
    assert "no file named model.safetensors" in refusal(folder)


def test_folder_without_tokenizer_is_refused(broken: Callable[[str], Path]) -> None:
    folder = broken("blip2")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    assert "are its files there?" in refusal(folder)


def test_model_without_a_decoder_is_refused(broken: Callable[[str], Path]) -> None:
    from safetensors.torch import load_file, save_file

    folder = broken("blip")
    file = folder / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(file).items() if not name.startswith("text_decoder.")}
    save_file(kept, file, metadata={"format": "pt"})
    assert "weights are missing, such as text_decoder." in refusal(folder)


def test_blip2_without_an_image_token_is_refused(broken: Callable[[str], Path]) -> None:
    folder = broken("blip2")
    change_json(folder / "config.json", {"image_token_index": None})
    assert "no image_token_index; take a newer revision" in refusal(folder)


def test_settings_out_of_range_are_refused() -> None:
    for settings in ({"max_new_tokens": 0}, {"max_new_tokens": 257}, {"prompt": 201 * "a"}, {"beams": 5}):
        with pytest.raises(ValidationError):
            CoarseCaption.model_validate(settings)
