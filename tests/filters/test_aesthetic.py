"""LAION's heads: known answers for both architectures, the folding, ReLU told by its keys, and what is refused."""

from __future__ import annotations

import pickle
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from filters.aesthetic import Aesthetic, fold, read_head, score
from manifests.embeddings import embedding_column, from_matrix
from manifests.schemas import bounds
from pipeline.recipe import parse_recipe


class Published(nn.Module):
    """The network of christophschuhmann/improved-aesthetic-predictor, as its repository describes it."""

    def __init__(self, width: int, relu: bool) -> None:
        super().__init__()
        sizes = (width, 1024, 128, 64, 16)
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate(pairwise(sizes)):
            layers.append(nn.Linear(before, after))
            layers += [nn.ReLU()] if relu else []
            layers += [nn.Dropout(0.2)] if number < 3 else []
        self.layers = nn.Sequential(*layers, nn.Linear(16, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers(x)
        return result


def units(rows: int, width: int, seed: int = 0) -> npt.NDArray[np.float32]:
    vectors = np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def saved(head: nn.Module, path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(head.state_dict(), path)
    else:
        torch.save(head.state_dict(), path)
    return path


def varied(head: Published) -> Published:
    """Weights under which unit vectors get scores that differ by about 1."""
    torch.manual_seed(1)
    for layer in head.layers:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=1.4 * layer.in_features**-0.5 if layer.in_features != 768 else 1)
    return head


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("relu", [False, True])
def test_v2_equals_the_published_network(tmp_path: Path, relu: bool, suffix: str) -> None:
    head = varied(Published(768, relu).eval())
    expected_keys = [0, 3, 6, 9, 11] if relu else [0, 2, 4, 6, 7]
    assert sorted({int(k.split(".")[1]) for k in head.state_dict()}) == expected_keys, "the test's own network"
    vectors = units(200, 768)
    with torch.inference_mode():
        published = head(torch.from_numpy(vectors)).numpy()[:, 0]
    stage = Aesthetic(weights=str(saved(head, tmp_path / f"head.{suffix}")))
    embeddings, _ = from_matrix(vectors)
    layers, found_relu = read_head(Path(stage.weights or ""))
    assert found_relu == relu
    exact = score(layers if relu else [fold(layers)], vectors)
    assert np.abs(exact - published).max() < 1e-5
    stored = stage.load()(pa.table({"image_embedding": embeddings}))
    assert np.abs(stored["aesthetic"].to_numpy() - published).max() < 5e-3, "float16 embeddings"
    assert published.std() > 0.3, "else nothing is compared"


def test_v1_score_of_a_known_embedding_is_right(tmp_path: Path) -> None:
    """weight = (1, 2, 0, …), bias 3: the axes score 4 and 5, and half-way between them 3 + 3/√2."""
    head = nn.Linear(512, 1)
    with torch.no_grad():
        head.weight[:] = 0
        head.weight[0, 0], head.weight[0, 1], head.bias[0] = 1, 2, 3
    stage = Aesthetic(predictor="laion-v1", weights=str(saved(head, tmp_path / "v1.pth")), encoder="ViT-B-32/openai")
    vectors = np.zeros((3, 512))
    vectors[0, 0] = vectors[1, 1] = 1
    vectors[2, :2] = 1
    facts = stage.load()(pa.table({"image_embedding": from_matrix(vectors)[0]}))
    assert facts["aesthetic"].to_pylist() == pytest.approx([4, 5, 3 + 3 / 2**0.5], abs=2e-3)
    assert facts["error"].null_count == 3


def test_v2_score_of_a_known_embedding_is_right(tmp_path: Path) -> None:
    """Five layers that pass the first number on, doubled each time, with 1 added each time: x → 32x + 31."""
    head = Published(768, relu=False)
    for parameter in head.parameters():
        nn.init.zeros_(parameter)
    for layer in head.layers:
        if isinstance(layer, nn.Linear):
            nn.init.constant_(layer.weight[0, :1], 2)
            nn.init.constant_(layer.bias[:1], 1)
    stage = Aesthetic(weights=str(saved(head, tmp_path / "v2.pth")))
    vectors = np.zeros((2, 768))
    vectors[0, 0], vectors[1, 5] = 1, 1
    facts = stage.load()(pa.table({"image_embedding": from_matrix(vectors)[0]}))
    assert facts["aesthetic"].to_pylist() == [63, 31]


def test_broken_embeddings_are_row_errors(tmp_path: Path) -> None:
    stage = Aesthetic(weights=str(saved(Published(768, False), tmp_path / "v2.pth")))
    rows = units(5, 768).astype(np.float16)
    rows[1], rows[2], rows[3] = np.nan, 0, rows[3] * 2
    column = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), 768, mask=pa.array([False] * 4 + [True]))
    facts = stage.load()(pa.table({"image_embedding": column}))
    assert facts["error"].to_pylist() == [
        None,
        "broken embedding: length nan instead of 1",
        "broken embedding: length 0 instead of 1",
        "broken embedding: length 2 instead of 1",
        "no embedding: nothing is stored",
    ]
    assert [v is None for v in facts["aesthetic"].to_pylist()] == [False, True, True, True, True]


def test_range_of_the_column_is_that_of_the_predictor() -> None:
    assert bounds(Aesthetic().writes.field("aesthetic")) == (1, 10)
    assert bounds(Aesthetic(predictor="laion-v1").writes.field("aesthetic")) == (0, 10)


def recipe(**aesthetic: object) -> dict[str, object]:
    stages = [{"stage": "clip", "encoder": "ViT-B-32/openai"}, {"stage": "aesthetic", **aesthetic}]
    return {"pool": {"images": "pool"}, "stages": stages}


def test_wrong_encoder_or_threshold_is_refused_before_the_run() -> None:
    with pytest.raises(ValueError, match=r"trained on ViT-L-14/openai and the embeddings are by ViT-B-32/openai"):
        parse_recipe(recipe(), "r")
    with pytest.raises(ValueError, match=r"0\.5 is out of range; aesthetic runs from 1 to 10"):
        parse_recipe(recipe(encoder="ViT-B-32/openai", keep={"min": 0.5}), "r")
    parse_recipe(recipe(encoder="ViT-B-32/openai", keep={"min": 5}), "r")
    field = embedding_column("image_embedding", 384, "conse-efflite0-minilm", "")
    with pytest.raises(ValueError, match="conse-efflite0-minilm"):
        Aesthetic().validate_inputs({"image_embedding": field})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; fetch the head of laion-v2"),
        (b"", "cannot be loaded"),
        (b"<html>404</html>", "cannot be loaded"),
        (pickle.dumps({"weight": print}), "cannot be loaded"),
    ],
)
def test_weights_that_cannot_be_used_are_one_line_errors(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "head.pth"
    if content is not None:
        path.write_bytes(content)
    stage = Aesthetic(weights=str(path))
    with pytest.raises(ValueError, match=message) as refused:
        stage.load()
    assert "\n" not in str(refused.value)
    assert str(path) in str(refused.value)


def test_pickle_that_holds_code_is_refused_and_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "owned",)  # type: ignore[return-value]

    torch.save({"weight": Evil()}, tmp_path / "head.pth")
    with pytest.raises(ValueError, match="cannot be loaded"):
        Aesthetic(weights=str(tmp_path / "head.pth")).load()
    assert not (tmp_path / "owned").exists()


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file({"scoring_head.0.weight": torch.zeros(1, 3)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="no head of laion-v1 or laion-v2"):
        Aesthetic(weights=str(tmp_path / "x.safetensors")).load()


def test_head_of_the_other_predictor_is_refused(tmp_path: Path) -> None:
    weights = str(saved(nn.Linear(768, 1), tmp_path / "v1.pth"))
    with pytest.raises(ValueError, match="a head of 1 layers is not one of laion-v2"):
        Aesthetic(weights=weights).load()


@pytest.mark.parametrize("state", [[], {"state_dict": {}}, 1.5, {"weight": torch.zeros(768), "bias": torch.zeros(1)}])
def test_file_without_weights_is_a_one_line_error(tmp_path: Path, state: object) -> None:
    torch.save(state, tmp_path / "head.pth")
    with pytest.raises(ValueError, match="cannot be loaded"):
        Aesthetic(predictor="laion-v1", weights=str(tmp_path / "head.pth")).load()


def test_half_precision_heads_are_read(tmp_path: Path) -> None:
    weights = str(saved(varied(Published(768, False)).bfloat16(), tmp_path / "head.safetensors"))
    facts = Aesthetic(weights=weights).load()(pa.table({"image_embedding": from_matrix(units(3, 768))[0]}))
    assert facts["error"].null_count == 3


def test_missing_head_without_a_hub_is_an_error_with_the_remedy() -> None:
    with pytest.raises(ValueError, match="hf download ttj/sac-logos-ava1-l14-linearMSE"):
        Aesthetic().check_available()
    with pytest.raises(ValueError, match=r"fetch sa_0_4_vit_l_14_linear\.pth"):
        Aesthetic(predictor="laion-v1").check_available()


def test_head_in_float32_is_read_without_torch(tmp_path: Path) -> None:
    """Its import takes longer than a job of a few thousand rows."""
    head = saved(varied(Published(768, False)), tmp_path / "head.safetensors")
    program = (
        "import sys; from pathlib import Path; from filters.aesthetic import read_head\n"
        "layers, relu = read_head(Path(sys.argv[1]))\n"
        "print(len(layers), relu, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(head)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["5", "False", "False"]
