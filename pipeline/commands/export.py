"""`vl3syn export`: parts of a checkpoint in the layout of the original's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.errors import UserError
from core.paths import check_path
from core.secrets import refuse_credentials

export_app = typer.Typer()


@export_app.command()
def export(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CKPT", help="Folder of the checkpoint: OUT/4-video/model, …/step-00001000")
    ],
    encoder: Annotated[str, typer.Option("--encoder", metavar="DIR", help="A new folder for the vision encoder")],
) -> None:
    """Write the vision encoder of a VideoLLaMA3 alone, in the layout of VL3-SigLIP-NaViT.

    `vision: DIR` in a training recipe begins with it.
    """
    for what, path in {"CKPT": checkpoint, "--encoder": encoder}.items():
        refuse_credentials(path, what)
        check_path(path, what)
    if Path(encoder).exists() and (not Path(encoder).is_dir() or any(Path(encoder).iterdir())):
        raise UserError(f"--encoder {encoder}: has files in it: give a new folder")
    import torch

    from model.checkpoint import load_checkpoint
    from model.encoder_files import save_encoder

    model, processor = load_checkpoint(checkpoint, torch.float32)  # a training begins with it, so nothing is rounded
    save_encoder(model.vision, processor.config, encoder)
    print(f"the encoder of {checkpoint} is in {encoder}")
