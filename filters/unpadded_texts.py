"""open_clip's text towers without the padding behind the texts.

CLIP pads each text to 77 tokens; alt texts have 10 to 20. Its text tower is causal, and the embedding is read at the
end token (Radford et al. 2021, arXiv 2103.00020, section 2.4): what stands behind it never reaches it. So the same
embedding comes from the tokens up to the end alone, in a fraction of the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_STEP = 16
"""Tokens to which lengths are rounded up, so that a batch has few different lengths."""


def encode_tokens(network: Any, tokens: Tensor, device: torch.device) -> Tensor:
    """Return unit vectors, float32 (texts, dimensions), on the CPU. One thread at a time may use a network.

    Args:
        network: Any model of open_clip. Unless its text tower is CLIP's own, causal and read at the token with the
            highest number, it gets all the padding.
        tokens: (texts, context), on the CPU, as the tokenizer of the network pads them; at least one text.
        device: Where the network is.
    """
    import torch
    from torch.nn.functional import normalize

    lengths, context = _lengths(network, tokens), tokens.shape[1]
    rows = [(lengths == length).nonzero()[:, 0] for length in sorted(set(lengths.tolist()))]
    with torch.inference_mode():
        cut = [tokens[some, : int(lengths[some[0]])].to(device) for some in rows]
        vectors = torch.cat([_encode(network, some, context).float().cpu() for some in cut])
    return normalize(vectors, dim=-1)[torch.cat(rows).argsort()]


def _lengths(network: Any, tokens: Tensor) -> Tensor:
    """Return how many tokens of each text are needed, rounded up."""
    import open_clip
    import torch

    context = tokens.shape[1]
    if not isinstance(network, open_clip.CLIP) or network.attn_mask is None or network.text_pool_type != "argmax":
        return torch.full((len(tokens),), context)
    ends = tokens.argmax(-1) + 1  # where the network looks for the end token: it has the highest number
    return (-(-ends // _STEP) * _STEP).clamp(max=context)


def _encode(network: Any, tokens: Tensor, context: int) -> Any:
    """Encode tokens, (texts, length); for less than the context with fewer position embeddings and a smaller mask."""
    from torch.func import functional_call

    length = tokens.shape[1]
    if length == context:
        return network.encode_text(tokens)
    tables = {
        "positional_embedding": network.positional_embedding[:length],
        "attn_mask": network.attn_mask[:length, :length],
    }
    found = functional_call(network, tables, kwargs={"text": tokens})
    return found["text_features"] if network.output_dict else found[1]
