"""`vl3syn download`: fetch the images of a list of URLs."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.commands.options import JsonOption, RunOption
from pipeline.commands.stage import apply_stages

download_app = typer.Typer()


@download_app.command()
def download(
    run_: RunOption,
    images: Annotated[str | None, typer.Option(help="Folder for the images: a path or URL; default RUN/images")] = None,
    longest: Annotated[
        int | None, typer.Option(help="Resize larger images to this longer side, in pixels. Default: no image changes")
    ] = None,
    shortest: Annotated[int | None, typer.Option(help="The same for the shorter side")] = None,
    quality: Annotated[int | None, typer.Option(help="JPEG quality of resized images; default 95")] = None,
    concurrency: Annotated[int | None, typer.Option(help="URLs that a worker fetches at once; default 64")] = None,
    per_host: Annotated[int | None, typer.Option(help="Connections of a worker to one host; default 4")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds for a URL, redirects included; default 20")] = None,
    max_bytes: Annotated[int | None, typer.Option(help="Longest image, in bytes; default 32000000")] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(help="An address or network that may be connected to although it is not public; can be repeated"),
    ] = None,
    user_agent: Annotated[str | None, typer.Option(help="Who asks: name yourself and how to reach you")] = None,
    ignore_opt_out: Annotated[
        bool, typer.Option("--ignore-opt-out", help="Store images whose servers say noai, noimageai, noindex, …, too")
    ] = False,
    proxies: Annotated[bool, typer.Option("--proxies", help="Use the proxies that the environment names")] = False,
    python: Annotated[
        str | None, typer.Option(help="Python with img2dataset; default: that of `make setup-download`")
    ] = None,
    min_side: Annotated[int | None, typer.Option(help="Keep images with at least this shorter side, in pixels")] = None,
    max_ratio: Annotated[
        float | None, typer.Option(help="Keep images whose longer side is at most so many times the shorter one")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Download the images that the run has kept so far, into tars. Later commands read them there.

    Stored images are not fetched again. URLs that failed are, if a later try may succeed (`vl3syn retry`: any others).
    """
    settings = {
        "images": images,
        "longest": longest,
        "shortest": shortest,
        "quality": quality,
        "concurrency": concurrency,
        "per_host": per_host,
        "timeout": timeout,
        "max_bytes": max_bytes,
        "allow": allow or None,
        "user_agent": user_agent,
        "opt_out": [] if ignore_opt_out else None,
        "proxies": proxies or None,
        "engine": {"python": python} if python else None,
    }
    keep = {"min_image_side": min_side, "max_image_ratio": max_ratio}
    apply_stages(run_, [{"stage": "download", **settings, "keep": keep}], json_)
