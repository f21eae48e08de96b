"""`vl3syn import`: published data sets into records, the one form that trainings read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import UserError, suggest
from core.paths import local_folder
from pipeline.commands.import_report import print_formats, print_report, progress, write_report
from pipeline.commands.options import JsonOption
from pipeline.commands.stopping import resumable

if TYPE_CHECKING:
    from core.records import Licence
    from model.training.data.importers.format import Format
    from model.training.data.importers.media_state import MediaFolder
    from model.training.data.importers.report import Report
    from model.training.data.importers.run import Job

import_app = typer.Typer()

_FORMS = ("jsonl", "parquet")
_PROBES = ("none", "images", "all")


@import_app.command(name="import")
@resumable("nothing was written")
def import_(
    format_: Annotated[str, typer.Argument(metavar="FORMAT", help="A format of --list, or auto")] = "",
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A file, or a folder of files")] = "",
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="A new folder for the records")] = "",
    media: Annotated[
        str | None, typer.Option("--media", metavar="DIR", help="Folder that paths are relative to")
    ] = None,
    root: Annotated[
        list[str] | None,
        typer.Option("--root", metavar="DIR", help="A further folder that media may lie in; may be given again"),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", metavar="NAME", help="Name of the data set; those of --list have a licence"),
    ] = None,
    licence: Annotated[str | None, typer.Option("--licence", metavar="NAME", help="Licence of the data set")] = None,
    split: Annotated[str, typer.Option("--split", help="Name of the split: train, …")] = "",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An option of the format")
    ] = None,
    form: Annotated[str, typer.Option("--form", help="Files of records: jsonl or parquet")] = "jsonl",
    as_: Annotated[
        str | None, typer.Option("--as", metavar="FORM", help="Also write videollama3, llava or openai")
    ] = None,
    probe: Annotated[
        str, typer.Option("--probe", help="Headers that are read: none, images, or all: films too")
    ] = "images",
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", metavar="DIR", help="Count tokens with this tokenizer")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Rows to read; default: all")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the report, write nothing")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if anything was rejected, or a check found something")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace an earlier import in --out")] = False,
    list_: Annotated[bool, typer.Option("--list", help="Print the formats, with their data sets and licences")] = False,
    json_: JsonOption = False,
) -> None:
    """Import a published data set: annotations into records, with their provenance.

    Examples:

        vl3syn import --list

        vl3syn import llava llava_v1_5_mix665k.json --media images --out DATA/llava

        vl3syn import auto annotations --media videos --out DATA/new --dry-run
    """
    if list_:
        print_formats(json_)
        return
    for name, value in (("FORMAT", format_), ("SOURCE", source), ("--out", out or dry_run)):
        if not value:
            raise typer.BadParameter("is missing", param_hint=name)
    for name, choice, valid in (("--form", form, _FORMS), ("--probe", probe, _PROBES)):
        if choice not in valid:
            raise typer.BadParameter(f"{choice!r}: use one of {', '.join(valid)}", param_hint=name)
    from manifests.renderers import RENDERERS
    from model.training.data.importers.out_folder import aside, check_out
    from model.training.data.importers.run import run
    from model.training.data.importers.writer import Writer

    if as_ is not None and as_ not in RENDERERS:
        raise typer.BadParameter(f"{as_!r}: use one of {', '.join(RENDERERS)}", param_hint="--as")
    if not dry_run:
        check_out(local_folder(out, "--out"), replace, Path(source))
    folder_of_media = _media(media, root or [], probe)
    job = _job(format_, source, folder_of_media, dataset, licence, split, set_ or [], tokenizer, limit)
    if dry_run:
        with Writer(None, as_form=as_) as nowhere:
            report = run(job, nowhere, progress())
        print_report(report, json_, job.media.folder)
        _refuse_nothing(report, source)
    else:
        with aside(Path(out)) as folder:
            with Writer(folder, form, as_) as writer:  # type: ignore[arg-type]  # checked above
                report = run(job, writer, progress())
            print_report(report, json_, job.media.folder)
            _refuse_nothing(report, source)  # in here: then nothing is written, and nothing replaced
            write_report(folder, job, report, writer, form, as_)
    if strict and not report.is_clean:
        found = report.rejected.total + report.notes.total + report.refused.total
        raise UserError(f"--strict: {found:,} findings, as reported")


def _job(
    format_: str,
    source: str,
    media: MediaFolder,
    dataset: str | None,
    licence: str | None,
    split: str,
    options: list[str],
    tokenizer: str | None,
    limit: int | None,
) -> Job:
    from model.training.data.importers.registry import format_named, sniff
    from model.training.data.importers.run import Job

    place = Path(source)
    if not place.exists():
        raise UserError(f"{source}: no such file or folder")
    pairs = {key: value for key, _, value in (option.partition("=") for option in options)}
    chosen = sniff(place, pairs) if format_ == "auto" else format_named(format_)
    name, its_licence = _dataset(chosen, place, dataset, licence)
    return Job(
        format=chosen,
        source=place,
        dataset=name,
        licence=its_licence,
        media=media,
        options=_options(chosen, options),
        limit=limit,
        split=split,
        count_tokens=_token_counter(tokenizer) if tokenizer else None,
    )


def _media(media: str | None, roots: list[str], probe: Any) -> MediaFolder:
    from model.training.data.importers.media_state import MediaFolder

    if roots and media is None:
        raise UserError("--root without --media: give the folder that paths are relative to")
    given = [*([("--media", media)] if media is not None else []), *(("--root", folder) for folder in roots)]
    for option, folder in given:
        if not Path(folder).is_dir():
            raise UserError(f"{option} {folder}: no such folder")
    return MediaFolder(Path(media) if media else None, probe, roots)


def _dataset(format_: Format, source: Path, dataset: str | None, licence: str | None) -> tuple[str, Licence]:
    """Return name and licence of the data set: those of its profile, or what the user says."""
    from core.records import Licence

    profiles = {profile.name: profile.licence for profile in format_.profiles}
    name = dataset or (next(iter(profiles)) if len(profiles) == 1 else source.name.partition(".")[0])
    return name, Licence(name=licence) if licence else profiles.get(name, Licence())


def _options(format_: Format, given: list[str]) -> Mapping[str, str]:
    options = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not format_.options:
            raise UserError(f"--set {text}: {format_.name} has no options: leave it out")
        if not equals or key not in format_.options:
            raise UserError(f"--set {text}: {format_.name} has no such option{suggest(key, format_.options)}")
        options[key] = value
    return options


def _token_counter(folder: str) -> Callable[[str], int]:
    if not Path(folder).is_dir():
        raise UserError(f"--tokenizer {folder}: no such folder: give one with a tokenizer.json")
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"--tokenizer {folder}: no tokenizer: {' '.join(str(error).split())[:200]}") from error
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _refuse_nothing(report: Report, source: str) -> None:
    if not report.rows:
        raise UserError(f"{source}: no rows in it")
    if not report.records:
        first = next(iter(report.rejected.counted.values()))
        raise UserError(f"{source}: none of {report.rows:,} rows could be imported; the first: {first.example}")
