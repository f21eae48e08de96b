"""Which float type a model has on a GPU or a CPU, and how a stage is given another one."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch

from captioners.engines.openai_client import OpenAIClientConfig
from captioners.engines.transformers import Transformers
from captioners.recaption import ShortCaption
from core import precision
from core.errors import UserError
from core.precision import Precision, cpu_dtype, device_and_dtype, fastest, gpu_dtype, precision_of, with_precision
from filters.clip import Clip

V100, T4, A100, H200, P100 = (7, 0), (7, 5), (8, 0), (9, 0), (6, 0)


@pytest.mark.parametrize(
    ("capability", "expected"),
    [(A100, "bfloat16"), (H200, "bfloat16"), (V100, "float16"), (T4, "float16"), (P100, "float32")],
)
def test_gpu_dtype_is_the_fastest(capability: tuple[int, int], expected: str) -> None:
    assert gpu_dtype(capability) == expected


@pytest.mark.parametrize(
    ("capability", "model_type", "expected"),
    [
        (T4, "blip_text_model", torch.float16),
        (T4, "t5", torch.float32),
        (V100, "umt5", torch.float32),
        (P100, "t5", torch.float32),
        (H200, "t5", torch.bfloat16),
    ],
)
def test_float16_is_never_chosen_for_models_that_exceed_it(
    capability: tuple[int, int], model_type: str, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert device_and_dtype(model_type) == (torch.device("cuda"), expected)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx2 avx512_bf16 sse2", "bfloat16"),
        ("fpu amx_bf16 amx_tile", "bfloat16"),
        ("fpu avx512f avx512_vnni amx_int8", "float32"),
        (None, "float32"),
    ],
)
def test_cpu_dtype_follows_the_flags_of_the_cpu(
    flags: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_CPU_INFO", tmp_path / "cpuinfo")
    if flags:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: mds\n" * 2)
    assert cpu_dtype() == expected
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_and_dtype()[1] == getattr(torch, expected)


@pytest.mark.parametrize("devices", ["0", "2,3", "GPU-4c1b"])
def test_torch_that_cannot_use_its_gpus_is_an_error(devices: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    with pytest.raises(UserError, match=f"^{platform.node()}: CUDA_VISIBLE_DEVICES gives this process GPU {devices}"):
        device_and_dtype()
    with pytest.raises(UserError, match="num_gpus: 0"):
        fastest(gpu=True)


@pytest.mark.parametrize("devices", ["", "-1", None])
def test_process_without_gpus_uses_the_cpu(devices: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    if devices is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    assert device_and_dtype()[0] == torch.device("cpu")


@pytest.mark.parametrize("wanted", ["float32", "bfloat16"])
def test_requested_float_type_is_used_on_any_device(wanted: Precision) -> None:
    assert device_and_dtype("opt", wanted)[1] == getattr(torch, wanted)


def test_with_precision_changes_the_stage_or_its_engine() -> None:
    clip = with_precision(Clip(encoder="ViT-B-32/openai"), "bfloat16")
    assert (clip.precision, clip.encoder) == ("bfloat16", "ViT-B-32/openai")
    captions = with_precision(ShortCaption(engine=Transformers()), "float16")
    assert isinstance(captions.engine, Transformers)
    assert (captions.engine.precision, precision_of(captions)) == ("float16", "float16")


def test_stage_whose_model_is_elsewhere_has_no_precision() -> None:
    assert precision_of(ShortCaption(engine=OpenAIClientConfig(url="http://127.0.0.1:1/v1"))) is None
    assert precision_of(ShortCaption(engine=Transformers())) == "auto"
