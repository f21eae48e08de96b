"""Describe a publication for machines, in the form of MLCommons' Croissant 1.0 (croissant.json, JSON-LD).

https://docs.mlcommons.org/croissant/docs/croissant-spec.html. It lists every shard with its SHA-256, and the columns
with their types. Like the card, it has no value that differs between two calls.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from core.arrow_types import is_list
from manifests.removals import takedowns_in
from manifests.shards import IMAGE
from pipeline.publishing.publication import Publication
from pipeline.publishing.shard_hashes import HashedFile, HashedPublication, hash_shards

CROISSANT = "croissant.json"


class Subject(NamedTuple):
    """What a publication is about, for its description.

    Attributes:
        rows: What its rows are, in the plural.
        license: What is to be said of licences.
        keywords: Words to find it by.
    """

    rows: str
    license: str
    keywords: tuple[str, ...]


IMAGES = Subject(
    "images with synthetic captions",
    "Images: the licences of their sources, in the column license where the source told one. See README.md.",
    ("vl3syn", "synthetic captions", "image-text pairs", "VideoLLaMA 3"),
)
CLIPS = Subject(
    "conversations about clips of films",
    "Films: the licences of their sources, in the column licence where the source told one. See README.md.",
    ("vl3syn", "synthetic captions", "video question answering", "temporal grounding"),
)
_ENCODINGS = {"parquet": "application/x-parquet", "webdataset": "application/x-tar"}

_TERMS = (
    *("citeAs", "column", "extract", "field", "fileProperty", "fileObject", "fileSet", "format", "includes"),
    *(
        "equivalentProperty",
        "isLiveDataset",
        "jsonPath",
        "key",
        "md5",
        "parentField",
        "path",
        "recordSet",
        "references",
        "regex",
    ),
    *("repeated", "replace", "samplingRate", "separator", "source", "subField", "transform"),
)
_CONTEXT: Mapping[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{term: f"cr:{term}" for term in _TERMS},
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
}
"""The context that the specification gives, which readers compare."""


def write_croissant(
    publication: HashedPublication,
    name: str,
    rows: int,
    schemas: Mapping[str, pa.Schema],
    subject: Subject = IMAGES,
) -> None:
    """Write the description of a publication.

    Args:
        publication: The publication.
        name: Name of the dataset.
        rows: Number of images, or of records.
        schemas: The columns of each subset.
        subject: What it is about.
    """
    described = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": name,
        "license": subject.license,
        "keywords": list(subject.keywords),
        "recordSet": [
            record_set
            for subset, schema in schemas.items()
            for record_set in _record_sets(subset, schema, publication.format)
        ],
    }
    _write(publication, described, rows, subject)


def update_croissant(publication: Publication, rows: int) -> None:
    """Correct the description after shards were written anew. A publication that has none is left without.

    Args:
        publication: The publication.
        rows: Number of images.
    """
    out = publication.out
    if not out.exists(CROISSANT):
        return
    try:
        described = json.loads(out.read(CROISSANT))
    except ValueError:  # the next publication of the run writes it anew
        out.delete(CROISSANT)
        return
    _write(publication, described, rows)


def _write(publication: HashedPublication, described: Mapping[str, Any], rows: int, subject: Subject = IMAGES) -> None:
    files = hash_shards(publication)
    takedowns = sum(1 for takedown in takedowns_in(publication.lists) if takedown.images)
    counted = {
        **described,
        "description": f"{rows:,} {subject.rows}, made by vl3syn; README.md has the details.",
        "version": f"{1 + takedowns}.0.0",
        "distribution": _distribution(publication, files),
    }
    text = json.dumps(counted, indent=1, sort_keys=True, ensure_ascii=False)
    publication.out.write(CROISSANT, text.encode())


def _distribution(publication: HashedPublication, files: Mapping[str, HashedFile]) -> list[dict[str, Any]]:
    """Return all shards, and for each subset the set of its shards."""
    encoding = _ENCODINGS[publication.format]
    described: list[dict[str, Any]] = [
        {
            "@type": "cr:FileObject",
            "@id": name,
            "name": name,
            "contentUrl": name,
            "contentSize": f"{file.size} B",
            "encodingFormat": encoding,
            "sha256": file.sha256,
        }
        for name, file in files.items()
    ]
    for subset in publication.subsets:
        shards = [name for name in files if name.startswith(f"{subset}/")]
        if publication.format == "parquet":
            described.append(_file_set(f"{subset}-shards", encoding, f"{subset}/*.parquet"))
        else:
            described.append(_file_set(f"{subset}-json", "application/json", "*.json", shards))
            described.append(_file_set(f"{subset}-images", "image/*", "*.jpg", shards))
    return described


def _file_set(name: str, encoding: str, pattern: str, containers: Sequence[str] = ()) -> dict[str, Any]:
    contained = {"containedIn": [{"@id": container} for container in containers]} if containers else {}
    return {
        "@type": "cr:FileSet",
        "@id": name,
        "name": name,
        **contained,
        "encodingFormat": encoding,
        "includes": pattern,
    }


def _record_sets(subset: str, schema: pa.Schema, format_: str) -> list[dict[str, Any]]:
    if format_ == "parquet":
        fields = [_field(subset, f"{subset}-shards", field, {"column": field.name}) for field in schema]
        return [_record_set(subset, fields)]
    rows = [
        _field(subset, f"{subset}-json", field, {"jsonPath": f"$.{field.name}"})
        for field in schema
        if field.type != IMAGE
    ]
    images = [
        _field(f"{subset}-files", f"{subset}-images", schema.field("image"), {"fileProperty": "content"}),
        _field(f"{subset}-files", f"{subset}-images", pa.field("file", pa.string()), {"fileProperty": "filename"}),
    ]
    return [_record_set(subset, rows), _record_set(f"{subset}-files", images)]


def _record_set(name: str, fields: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "field": list(fields)}


def _field(record_set: str, file_set: str, field: pa.Field, extract: Mapping[str, str]) -> dict[str, Any]:
    name, doc = f"{record_set}/{field.name}", (field.metadata or {}).get(b"doc", b"").decode()
    described = {"description": doc or field.name, **({"repeated": True} if is_list(field.type) else {})}
    inner = field.type.value_type if is_list(field.type) else field.type
    if pa.types.is_struct(inner) and inner != IMAGE:
        parts = [_source(f"{name}/{part.name}", file_set, part.type, extract, part.name) for part in inner.fields]
        return {"@type": "cr:Field", "@id": name, "name": name, **described, "subField": parts}
    path = "bytes" if inner == IMAGE and "column" in extract else ""
    return {**_source(name, file_set, inner, extract, path), **described}


def _source(name: str, file_set: str, type_: pa.DataType, extract: Mapping[str, str], path: str) -> dict[str, Any]:
    """Return a field whose values are what a set of files has there, or `path` inside of that."""
    source: dict[str, Any] = {"fileSet": {"@id": file_set}, "extract": dict(extract)}
    if path:
        source["transform"] = {"jsonPath": path}
    return {"@type": "cr:Field", "@id": name, "name": name, "dataType": _data_type(type_), "source": source}


def _data_type(type_: pa.DataType) -> str:
    if type_ == IMAGE:
        return "sc:ImageObject"
    if pa.types.is_boolean(type_):
        return "sc:Boolean"
    if pa.types.is_integer(type_):
        return "sc:Integer"
    return "sc:Float" if pa.types.is_floating(type_) else "sc:Text"
