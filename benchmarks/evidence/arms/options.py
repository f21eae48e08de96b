"""The options that experiments on scenes share: where they work, how often, how long, what becomes of results."""

from __future__ import annotations

import argparse
from pathlib import Path


def parser(about: str, page: str, seeds: int) -> argparse.ArgumentParser:
    """Return a parser of the options.

    Args:
        about: The module's docstring.
        page: The page that the results are written to, as the help names it.
        seeds: Default of `--seeds`. It is 1 with `--tiny`.
    """
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--work", type=Path, help="folder for all that is made; a begun one goes on")
    made.add_argument("--seeds", type=int, help=f"trainings of each arm (default {seeds}; 1 with --tiny)")
    made.add_argument("--steps", type=int, help="training steps of every arm, instead of its own")
    made.add_argument("--jobs", type=int, default=2, help="trainings at once, a core each (default %(default)s)")
    made.add_argument("--tiny", action="store_true", help="sizes that show that all works, and nothing else")
    made.add_argument("--write", action="store_true", help=f"store the results, and write {page}")
    made.add_argument("--table", action="store_true", help="measure nothing, write the page of the stored results")
    made.set_defaults(default_seeds=seeds)
    return made


def parse(made: argparse.ArgumentParser) -> argparse.Namespace:
    """Return the options of the command line. It exits with one line if they do not fit together."""
    args = made.parse_args()
    if args.seeds is None:
        args.seeds = 1 if args.tiny else args.default_seeds
    if args.work is None and not args.table:
        made.error("give --work, a folder for all that is made")
    if args.tiny and args.write:
        made.error("--tiny shows that all works: its numbers mean nothing, so they are not written")
    if args.seeds < 1 or args.jobs < 1 or (args.steps is not None and args.steps < 1):
        made.error("--seeds, --steps and --jobs begin at 1")
    return args
