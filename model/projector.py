"""The projector from the encoder's width to the language model's (arXiv 2501.13106, section 2)."""

from __future__ import annotations

from torch import Tensor, nn


class Projector(nn.Module):
    """Linear, exact GELU, Linear, applied per token. It is the reference's `mlp2x_gelu`, with its parameter names."""

    def __init__(self, vision_width: int, language_width: int) -> None:
        super().__init__()
        self.readout = nn.Sequential(
            nn.Linear(vision_width, language_width), nn.GELU(), nn.Linear(language_width, language_width)
        )

    def forward(self, x_MC: Tensor) -> Tensor:
        """Project visual tokens: (M, vision width) to (M, language width)."""
        out: Tensor = self.readout(x_MC)
        return out
