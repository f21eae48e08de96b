"""The job that writes shards: few images in local workers, which start sooner than Ray's, others in Ray's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa

from core.cpus import count_cpus
from pipeline.execution.job_result import JobStats, LocalResult
from pipeline.execution.local_workers import ROWS, LocalWorkers, is_importable, is_without_ray, ready
from pipeline.execution.progress import Progress
from pipeline.execution.ray_job import run_job
from pipeline.publishing.shard_writer import ShardWriter


def write_blocks(blocks: Iterator[pa.Table], writer: ShardWriter, rows: int) -> JobStats:
    """Write the shards of blocks with so many rows together.

    A block that ended its local worker is given to Ray: of its shards those are written that are not there.

    Raises:
        UserError: See `run_job`, or an image cannot be read now.
    """
    done = LocalResult(untried=blocks)
    with Progress("publish", rows) as progress:
        if rows <= ROWS and is_importable(type(writer.inputs.pool)) and is_without_ray():
            with LocalWorkers() as local:
                done = local.run(blocks, ready(writer.write), count_cpus(), progress)
            done = replace(done, untried=[*done.untried, *done.lost], lost=[])
        return run_job(done.untried, writer.job, before=done, observe=progress)
