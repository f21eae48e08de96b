"""The same work by us, by Data-Juicer, CleanVision and img2dataset, by transformers' class, and by a loop of few lines.

The same images, the same weights, one contender after the other in each round (A B C A B C …), each a new process in a
new folder. Counted are seconds from its start to its exit, CPU seconds of all its processes, and the most memory that
they have held together. Before the first round each does the work once on 50 images, so that what is read from the disk
is in memory. In the end the results are compared: the same images kept, the same scores. docs/benchmarks.md says what
the works are, and has the table.

Peers get an environment of their own, with the versions of requirements/, before anything is measured.

    .venv/bin/python benchmarks/peers/run.py              # measure, print the table
    .venv/bin/python benchmarks/peers/run.py --write      # and write results.json and docs/benchmarks.md
    .venv/bin/python benchmarks/peers/run.py --table      # write the table of results.json again
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # where the package `peers` is, and what the benchmarks share
    from peers.command import main

    main(__doc__)
