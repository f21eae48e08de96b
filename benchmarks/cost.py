"""What a set like VL3-Syn7M costs in time and money, as arithmetic: 7 M captioned images out of 700 M rows.

    python benchmarks/cost.py                       the table of docs/cluster.md
    python benchmarks/cost.py --gpus 64 --gpu-price 3.2 --short-captions 12

Nothing is measured here. Each number below has its source; "assumed" means that nobody published or measured it.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields

HOUR = 3600


@dataclass(frozen=True)
class Assumptions:
    """Numbers that the arithmetic begins with. Rates are images a second.

    Attributes:
        rows: Rows of the lists. COYO-700M has 747 M (its README).
        first_cuts: Share that stays after the cuts on the lists' columns, before any download. Assumed.
        arrive: Share of the URLs behind which there still is an image. Assumed.
        aesthetic: Share that stays. The lists were cut at the same score already. Assumed.
        similarity: Share that stays: `top: 0.7` of recipes/vl3syn7m.yaml.
        kept: Images after balance: 7 M is the set's name.
        image_kb: Mean bytes of an image, as it comes, in kB. Assumed.
        download: Of a machine: what img2dataset's README says of one (1,350). On one machine and without a network in
            between ours took at most as long as bare img2dataset (docs/benchmarks.md).
        download_cores: Cores of a machine that downloads. Assumed.
        decode: Of a core: 12 ms for a JPEG of 2048 pixels, made small for CLIP (benchmarks/draft.py).
        clip: ViT-L/14 on an H100: 162 GFLOP an image, 40 % of 989 TFLOP/s. Assumed.
        coarse: BLIP-2 with OPT 2.7B on an H100: 0.8 TFLOP an image would allow 490; words come one by one. Assumed.
        short_captions: InternVL2-8B on an H100: 32 TFLOP for 2,000 tokens of prompt at 400 TFLOP/s would allow 12.5;
            with the words of the answer 10. Assumed.
        detailed_captions: InternVL2-26B: 170 TFLOP for 7 tiles would allow 2.35; with 200 words 1.2. Assumed.
        gpus: H100s.
        cores: Cores beside them.
        machines: That download.
        gpu_price: Of an H100-hour, with the cores of its machine, in dollars. Assumed.
        core_price: Of a core-hour, in dollars. Assumed.
        storage_price: Of a TB for a month in an object store, in dollars. Assumed.
    """

    rows: float = 700e6
    first_cuts: float = 0.6
    arrive: float = 0.6
    aesthetic: float = 0.95
    similarity: float = 0.7
    kept: float = 7e6
    image_kb: float = 100
    download: float = 1350
    download_cores: float = 8
    decode: float = 83
    clip: float = 2400
    coarse: float = 200
    short_captions: float = 10
    detailed_captions: float = 1.2
    gpus: float = 64
    cores: float = 1024
    machines: float = 10
    gpu_price: float = 2.5
    core_price: float = 0.04
    storage_price: float = 23


@dataclass(frozen=True)
class Step:
    """A step: how many images reach it, and what it needs.

    Attributes:
        name: Its stages.
        images: That reach it.
        gpu_hours: Of one H100.
        core_hours: Of one core, for decoding.
        hours: On the given machines: what takes longest, GPUs or cores.
    """

    name: str
    images: float
    gpu_hours: float
    core_hours: float
    hours: float


def steps(a: Assumptions) -> list[Step]:
    """Return the steps in their order."""
    fetched = a.rows * a.first_cuts
    arrived = fetched * a.arrive
    beautiful = arrived * a.aesthetic
    similar = beautiful * a.similarity
    download = fetched / a.download / HOUR
    on_gpus = [
        ("`clip`", arrived, a.clip),
        ("`coarse_caption`", beautiful, a.coarse),
        ("`hashes`, `nsfw`: two decodings", similar, None),
        ("`short_caption`", a.kept, a.short_captions),
        ("`detailed_caption`", a.kept, a.detailed_captions),
    ]
    done = [Step("`download`", fetched, 0, download * a.download_cores, download / a.machines)]
    for name, images, rate in on_gpus:
        gpu_hours = images / rate / HOUR if rate else 0
        core_hours = images * (1 if rate else 2) / a.decode / HOUR
        done.append(Step(name, images, gpu_hours, core_hours, max(gpu_hours / a.gpus, core_hours / a.cores)))
    return done


def table(a: Assumptions) -> str:
    """Return the table, as Markdown."""
    lines = ["| step | images | H100-hours | core-hours | hours |", "| --- | --- | --- | --- | --- |"]
    done = steps(a)
    for step in done:
        lines.append(f"| {step.name} | {_row(step)} |")
    total = [sum(getattr(step, name) for step in done) for name in ("gpu_hours", "core_hours", "hours")]
    lines.append(f"| **together** | | {' | '.join(f'**{_short(value)}**' for value in total)} |")
    terabytes = a.rows * a.first_cuts * a.arrive * a.image_kb / 1e9
    money = total[0] * a.gpu_price + total[1] * a.core_price
    lines.append("")
    lines.append(
        f"{total[0]:,.0f} H100-hours at ${a.gpu_price:g} and {total[1]:,.0f} core-hours at ${a.core_price:g} are "
        f"${money:,.0f}. {terabytes:,.0f} TB of images are ${terabytes * a.storage_price:,.0f} a month. One H100 at "
        f"{a.clip:,.0f} images/s of CLIP takes the decoding of {a.clip / a.decode:.0f} cores."
    )
    return "\n".join(lines)


def _row(step: Step) -> str:
    images = f"{step.images / 1e6:,.0f} M"
    return " | ".join([images, _short(step.gpu_hours), _short(step.core_hours), _short(step.hours)])


def _short(value: float) -> str:
    return "–" if not value else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for each in fields(Assumptions):
        parser.add_argument(f"--{each.name.replace('_', '-')}", type=float, default=each.default, metavar="NUMBER")
    print(table(Assumptions(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
