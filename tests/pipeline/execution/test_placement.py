"""Where the workers of a stage are placed."""

from __future__ import annotations

from pipeline.execution.placement import Placement


def test_workers_are_at_most_as_many_as_blocks() -> None:
    placement = Placement(workers=8, most=100, num_cpus=1, num_gpus=0, threads=1)
    few, many = placement.at_most(3), placement.at_most(50)
    assert (few.workers, few.most) == (3, 3)
    assert (many.workers, many.most) == (8, 50)
