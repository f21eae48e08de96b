"""Print what was published: how many rows are in the shards, what was left out, and how to open them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.commands.output import out, say

if TYPE_CHECKING:
    from pipeline.publishing.clips.publish import PublishedClips
    from pipeline.publishing.publish import Published

_NAMED = 10  # rows that are left out, at most


def print_publication(done: Published | PublishedClips) -> None:
    """Print the numbers of a publication on stdout, and on stderr what is missing from it and why."""
    from pipeline.publishing.publish import Published

    noun, file = ("images", "shard") if isinstance(done, Published) else ("clips", "file")
    files = f"{done.shards:,} {file}{'s' if done.shards != 1 else ''}"
    out.print(f"published: {done.rows:,} {noun} in {files}, {done.bytes / 1e6:,.1f} MB", style="bold", markup=False)
    if isinstance(done, Published):
        _say_of_images(done)
    else:
        _say_of_clips(done)
    if done.stale:
        say(f"{done.stale:,} {noun} in shards are not kept any more; publish into another folder to be rid of them")
    for id_, reason in list(done.left_out.items())[:_NAMED]:
        say(f"not published: {id_}: {reason}")
    if len(done.left_out) > _NAMED:
        say(f"not published: {len(done.left_out):,} {noun} in all, see {done.where}/.publication")
    say(f"open them as {done.where}/README.md says, which is the dataset's card")


def _say_of_images(done: Published) -> None:
    if done.with_text is not None:
        say(f"in the subset ocr: {done.with_text:,} images with text")
    if done.outdated:
        say(f"not published: {done.outdated:,} images with outdated captions; `vl3syn run` computes these again")


def _say_of_clips(done: PublishedClips) -> None:
    say("records: " + ", ".join(f"{count:,} {subset}" for subset, count in done.records.items()))
    for reason, count in sorted(done.rejected.items()):
        say(f"no record: {count:,} {reason}")
