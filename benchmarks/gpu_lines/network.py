"""The network: parity with transformers, generation, the memory of the loss, and FSDP2."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from gpu_lines import measures
from gpu_lines.measures import build, off, peak_gib, sample, seconds, spread
from gpu_lines.proof import Figure, Place
from model import loss as loss_module
from model.packed_row import PackedRow
from model.training.dist import DistContext, full_tensor, shard
from model.videollama3 import VideoLLaMA3


def parity(place: Place) -> Iterator[Figure]:
    """The same weights in transformers' class: logits in float32 and bfloat16."""
    from transformers import VideoLlama3ForConditionalGeneration

    torch.backends.cudnn.allow_tf32 = False  # transformers embeds patches by a convolution
    ours = build(place, measures.config(place, layers=4, vocabulary=4096)).eval()
    spread(ours)
    ours.save_pretrained(place.folder)
    their_class: Any = VideoLlama3ForConditionalGeneration
    theirs = their_class.from_pretrained(place.folder, dtype=torch.float32).to(place.device).eval()
    row = sample(place)
    inputs = _theirs(row, place.device)
    with torch.no_grad():
        truth = theirs(**inputs).logits[0]
        moved = row.to(place.device)
        moved = {name: value for name, value in moved.items() if name != "labels"}
        yield Figure("relative difference of logits, float32", off(ours(**moved).logits, truth), most=1e-4)
        ours.bfloat16()
        theirs.bfloat16()
        half = {name: x.bfloat16() if x.is_floating_point() else x for name, x in inputs.items()}
        limit = off(theirs(**half).logits[0], truth)
        yield Figure("transformers in bfloat16, off its float32 by", limit)
        yield Figure("ours in bfloat16, off that float32 by", off(ours(**moved).logits, truth), most=2 * limit + 2e-3)


def _theirs(row: PackedRow, device: str) -> dict[str, Tensor]:
    """Return the inputs of transformers' class for a sample whose media are an image and then a clip."""
    sizes = row.grid_thw.prod(1).tolist()
    merged = [size // merge**2 for size, merge in zip(sizes, row.merge_sizes.tolist(), strict=True)]
    image, clip = row.pixel_values.split(sizes)
    tensors = {
        "input_ids": row.input_ids[None],
        "pixel_values": image,
        "image_grid_thw": row.grid_thw[:1],
        "image_merge_sizes": row.merge_sizes[:1],
        "pixel_values_videos": clip,
        "video_grid_thw": row.grid_thw[1:],
        "video_merge_sizes": row.merge_sizes[1:],
        "video_compression_mask": row.keep_mask.split(merged)[1],
    }
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def generation(place: Place) -> Iterator[Figure]:
    """New tokens per second, for one prompt with an image and a clip, and for eight at once."""
    model = build(place, measures.config(place)).bfloat16().eval()
    count = place.size(128, 8)
    for prompts in (1, 8):
        row = PackedRow.pack([sample(place)] * prompts).to(place.device)
        inputs = {name: value for name, value in row.items() if name != "labels"}

        def answer(tokens: int, inputs: dict[str, Tensor] = inputs) -> list[Tensor]:
            return model.generate(**inputs, max_new_tokens=tokens)

        assert {len(tokens) for tokens in answer(4)} == {4}
        first = seconds(place, lambda: answer(1), repeat=3, warm=1)
        whole = seconds(place, lambda: answer(count), repeat=1, warm=0)
        yield Figure(f"{prompts} prompts: first token", 1000 * first, "ms")
        yield Figure(f"{prompts} prompts: {count} tokens each", prompts * count / whole, "tokens/s")


def loss(place: Place) -> Iterator[Figure]:
    """The memory of the loss: of a row of text whose tokens are all learned, beyond one with a single learned token."""
    loss_module.CHUNK = place.size(loss_module.CHUNK, 10_000)  # so that a dry run has chunks too
    tokens, checked = place.size(16384, 256), place.size(2048, 64)
    model = build(place, measures.config(place, layers=1)).train()
    words = model.language.config.vocab_size
    ids = torch.randint(words - 1000, words, (tokens,), generator=torch.Generator().manual_seed(0))
    ids = ids if place.cuda else ids % 250

    def step(count: int) -> Tensor:
        labels = torch.full_like(ids, -100)
        labels[:count] = ids[:count]
        with torch.autocast(place.device, torch.bfloat16):
            out = model(ids.to(place.device), labels=labels.to(place.device))
        assert out.loss is not None
        out.loss.backward()
        return out.loss.detach()

    step(2)  # gradients of weights are there from now on
    one, all_ = peak_gib(place, lambda: step(2)), peak_gib(place, lambda: step(tokens))
    yield Figure(f"peak of a step with {tokens:,} learned tokens", all_, "GiB")
    beyond = None if one is None or all_ is None else all_ - one
    yield Figure("of it for the loss", beyond, "GiB", most=1.5)
    with torch.no_grad(), torch.autocast(place.device, torch.bfloat16):
        logits = model(ids[:checked].to(place.device)).logits.float()
    plain = torch.nn.functional.cross_entropy(logits[:-1], ids[1:checked].to(place.device))
    model.zero_grad()
    apart = abs(float(_short(model, ids[:checked], place)) / float(plain) - 1)
    yield Figure("loss, relative difference to plain cross entropy", apart, most=1e-3)


def _short(model: VideoLLaMA3, ids: Tensor, place: Place) -> Tensor:
    ids = ids.to(place.device)
    with torch.autocast(place.device, torch.bfloat16):
        out = model(ids, labels=ids)
    assert out.loss is not None
    return out.loss.detach()


def fsdp(place: Place) -> Iterator[Figure]:
    """One rank that shards: the same loss and gradients as without, and generation."""
    import torch.distributed as dist

    store = dist.FileStore(str(place.folder / "store"), 1)
    dist.init_process_group("nccl" if place.cuda else "gloo", store=store, rank=0, world_size=1)
    world = DistContext(torch.device(place.device, 0) if place.cuda else torch.device("cpu"))
    plain = build(place, measures.config(place, layers=4, vocabulary=4096)).train()
    spread(plain)
    row = sample(place).to(place.device)
    truth = plain(**row).loss
    truth.backward()
    gradients = {name: parameter.grad for name, parameter in plain.named_parameters()}
    for half, limit in ((False, 1e-4), (True, 3e-2)):
        sharded = copy.deepcopy(plain)
        sharded.zero_grad()
        shard(sharded, world, half)
        value = sharded(**row).loss
        value.backward()
        precision = "bfloat16" if half else "float32"
        yield Figure(
            f"{precision}: loss, relative difference", abs(float(value.detach() / truth.detach()) - 1), most=limit
        )
        norms = [
            (float((full_tensor(parameter.grad) - gradients[name]).norm()), float(gradients[name].norm()))
            for name, parameter in sharded.named_parameters()
        ]
        worst = sum(far**2 for far, _ in norms) ** 0.5 / sum(length**2 for _, length in norms) ** 0.5
        yield Figure(f"{precision}: gradients, relative difference", worst, most=10 * limit)
    inputs = {name: value for name, value in row.items() if name != "labels"}
    (tokens,) = sharded.eval().generate(**inputs, max_new_tokens=4)
    yield Figure("tokens generated by the sharded model", len(tokens), least=4)
    dist.destroy_process_group()
