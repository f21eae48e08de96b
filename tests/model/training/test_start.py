"""The model that a training starts with."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from model import Processor, VideoLLaMA3
from model.config import preset
from model.encoder_files import save_encoder
from model.training.recipe import Start
from model.training.start import configure_start, open_start
from model.vision import VisionEncoder


def test_encoder_with_other_patches_gets_patches_of_its_size(tmp_path: Path) -> None:
    """The folder of the language model knows no patches: their side is the encoder's."""
    config = preset("tiny")
    encoder = VisionEncoder(config.vision.model_copy(update={"patch_size": 16}))
    save_encoder(encoder, Processor.tiny().config, tmp_path / "vision")
    VideoLLaMA3(config).language.save_pretrained(tmp_path / "language")
    Processor.tiny().tokenizer.save_pretrained(tmp_path / "language")
    model, processor = open_start(Start(vision=str(tmp_path / "vision"), language=str(tmp_path / "language")), seed=0)
    image = {"type": "image", "image": Image.new("RGB", (64, 64))}
    row = processor([{"role": "user", "content": [image, "What?"]}])
    assert row.pixel_values.shape == (16, 3 * 16 * 16)
    assert len(model.vision(row.pixel_values, row.grid_thw, row.merge_sizes)) == 16


def test_configuration_without_weights_is_the_opened_models(tmp_path: Path) -> None:
    config = preset("tiny")
    save_encoder(VisionEncoder(config.vision), Processor.tiny().config, tmp_path / "vision")
    model = VideoLLaMA3(config)
    for folder, part in {"language": model.language, "whole": model}.items():
        part.save_pretrained(tmp_path / folder)
        Processor.tiny().save_pretrained(tmp_path / folder)
    joined = Start(vision=str(tmp_path / "vision"), language=str(tmp_path / "language"))
    for start in (joined, Start(checkpoint=str(tmp_path / "whole")), Start(preset="tiny")):
        opened, processor = open_start(start, seed=0)
        assert configure_start(start)[0] == opened.config
        assert configure_start(start)[1].config == processor.config
    for weights in tmp_path.glob("*/*.safetensors"):
        weights.unlink()
    assert configure_start(joined)[0].vision == config.vision, "weights are not read"
