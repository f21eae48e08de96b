"""Memory and time of the loss over a large vocabulary, in chunks and at once.

    .venv/bin/python benchmarks/loss_memory.py                   16,384 tokens of the 2b, in chunks
    .venv/bin/python benchmarks/loss_memory.py --tokens 2048 --at-once

Hidden states, weights and the weights' gradient exist before and after, whatever computes the loss. What is told is the
peak of the process beyond hidden states and weights, forward and backward, with and without that gradient.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import torch
from torch import nn

from model import loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=16_384)
    parser.add_argument("--words", type=int, default=151_936)
    parser.add_argument("--width", type=int, default=1536)
    parser.add_argument("--at-once", action="store_true", help="all logits at once, as for few tokens")
    args = parser.parse_args()
    if args.at_once:
        loss.CHUNK = args.tokens * args.words
    torch.manual_seed(0)
    head = nn.Linear(args.width, args.words, bias=False)
    hidden = torch.randn(args.tokens, args.width, requires_grad=True)
    targets = torch.randint(args.words, (args.tokens,))
    (hidden[:2] @ head.weight[:2].t()).sum().backward()  # starts the libraries
    hidden.grad = head.weight.grad = None
    before, begin = _resident(), time.perf_counter()
    total = loss.summed_loss(hidden, head, targets)
    total.backward()
    seconds, beyond = time.perf_counter() - begin, _peak() - before
    gradient = head.weight.numel() * head.weight.element_size() / 1e9
    print(f"{args.tokens:,} tokens, {args.words:,} words, width {args.width:,}, {torch.get_num_threads()} threads")
    print(f"loss {total.item() / args.tokens:.4f} nats a token, {seconds:.1f} s")
    print(f"peak beyond hidden states and weights: {beyond:.2f} GB; without the gradient: {beyond - gradient:.2f} GB")


def _resident() -> float:
    """Memory of this process now, in GB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e9


def _peak() -> float:
    """Largest memory of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
