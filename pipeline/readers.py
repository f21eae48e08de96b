"""Rows of the index from the shards of a pool: one row per image, and one for each thing that should have been one."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.schemas import INDEX
from manifests.storage import Folder
from pipeline.headers import BadImageError, read_header
from pipeline.pool import Pool, Shard, is_candidate

Row = dict[str, Any]
"""Some columns of the index; those missing are null."""

_SIDECAR_LIMIT = 1 << 20  # bytes; alt text and metadata of one image are never longer
_NAME_LIMIT = 1 << 14  # bytes; tarfile takes quadratic time over longer pax headers
_NOTES = ("url", "sha256", "caption", "alt_text")
_HEADER_FIRST = 1 << 14  # bytes; enough for nearly every JPEG and PNG header
_ROWS_AT_ONCE = 64


def index_rows(pool: Pool, root: Folder, shards: list[Shard]) -> pa.Table:
    """The index rows of whole shards, with the columns of `INDEX`. At least one row per shard."""
    rows: list[Row] = []
    for shard in shards:
        seen: set[int] = set()
        for number, row in enumerate(_shard_rows(pool, root, shard)):
            row["shard"], row["shard_bytes"] = shard.path, shard.bytes
            row.setdefault("retry", False)
            if "id" not in row:
                row["id"] = image_id(shard.path, row.pop("identity", row["key"]))
                if row["id"] in seen:  # a name that a tar holds twice: both rows stay, the later one says so
                    row["id"] = image_id(shard.path, f"{row['key']}\0{number}")
                    if row["key"] or "width" in row:  # else it tells how the shard is broken
                        row["error"] = f"duplicate name: an earlier image of this shard is called {row['key']!r} too"
                seen.add(row["id"])
            rows.append(row)
    return pa.table({f.name: pa.array([r.get(f.name) for r in rows], f.type) for f in INDEX}, schema=INDEX)


def image_id(shard: str, key: str) -> int:
    """63 bits of BLAKE2b over shard and key."""
    digest = hashlib.blake2b(f"{shard}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _shard_rows(pool: Pool, root: Folder, shard: Shard) -> Iterator[Row]:
    if shard.problem:
        yield {"key": shard.path, "error": shard.problem}
        return
    reader: Callable[[Pool, Folder, Shard], Iterator[Row]] = {
        "images": _image_file,
        "tars": _tar,
        "parquet": _parquet,
        "img2dataset": _img2dataset,
    }[pool.kind]
    rows: list[Row] = []
    try:
        rows.extend(reader(pool, root, shard))
    except OSError as error:  # the disk or the network: none of the shard's rows counts, the next run reads it again
        rows = [{"key": "", "error": f"unreadable: {' '.join(str(error).split())[:300]}", "retry": True}]
    yield from rows


def _measure(image: bytes | BinaryIO, length: int | None = None) -> Row:
    """Size, format and error of one encoded image: its bytes, or a file that is closed after and its length."""
    length = len(image) if isinstance(image, bytes) else length
    try:
        with io.BytesIO(image) if isinstance(image, bytes) else image as file:
            header = read_header(file)
    except BadImageError as error:
        return {"bytes": length, "error": str(error)}
    return {
        "bytes": length,
        "width": header.width,
        "height": header.height,
        "format": header.format,
        "animated": header.animated,
        "error": header.bomb,
    }


# A folder of image files


def _image_file(pool: Pool, root: Folder, shard: Shard) -> Iterator[Row]:
    image = open(f"{root.path}/{shard.path}", "rb") if root.local else root.read(shard.path)
    yield {"key": shard.path, "offset": 0, **_measure(image, shard.bytes)}


# Tars


def _tar(pool: Pool, root: Folder, shard: Shard) -> Iterator[Row]:
    with _on_disk(root, shard.path) as file:
        notes: dict[str, Row] = {}
        rows = list(tar_rows(file, notes))
    for row in rows:
        yield {**notes.get(stem(row["key"]), {}), **row}


def _on_disk(root: Folder, path: str) -> BinaryIO:
    """A local file with the shard's bytes: headers lie far apart, and one long read beats a request per image."""
    if root.local:
        return open(f"{root.path}/{path}", "rb")
    copy = tempfile.TemporaryFile()
    with root.filesystem.open_input_stream(f"{root.path}/{path}") as stream:
        shutil.copyfileobj(stream, copy, 1 << 22)
    copy.seek(0)
    return copy  # type: ignore[return-value]


def stem(key: str) -> str:
    """What the members of one webdataset sample share: the path up to the first dot of the file name."""
    folder, slash, name = key.rpartition("/")
    return folder + slash + name.split(".", 1)[0]


def tar_rows(file: BinaryIO, notes: dict[str, Row] | None = None) -> Iterator[Row]:
    """One row per image member, and one with key "" that says where a damaged tar breaks off.

    Args:
        file: The tar, seekable. Members are read where they lie; nothing is extracted and no link is followed.
        notes: Filled with what `.txt` and `.json` members say of their sample, by `stem`.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    images = others = 0
    broken = None
    try:
        archive = tarfile.open(fileobj=file, mode="r:", tarinfo=_Member)
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every header
            if not 0 <= member.size < 1 << 63 or archive.offset < member.offset_data:
                raise tarfile.ReadError("a member of an impossible size")
            if member.isdir():
                continue
            if is_candidate(member.name):
                images += 1
                yield {"key": _clean(member.name), "offset": member.offset_data, **_member(archive, member, file, size)}
            else:
                others += 1
                if notes is not None and member.isreg() and member.size <= _SIDECAR_LIMIT:
                    _take_note(notes, member.name, archive.extractfile(member))
            if archive.offset > size:
                raise tarfile.ReadError("unexpected end of data")
        broken = _end_of(file, archive.offset, size)
    except (tarfile.TarError, ValueError, LookupError, OverflowError, MemoryError, RecursionError) as error:
        broken = f"{' '.join(str(error).split()) or type(error).__name__}, at byte {file.tell():,}"
    if broken:
        yield {"key": "", "offset": 0, "error": f"broken tar: {broken}; {images:,} images were read before it"}
    elif not images:
        yield {"key": "", "offset": 0, "error": f"no images: a tar of {others:,} other members"}


_EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class _Member(tarfile.TarInfo):
    """A tar header; one that claims a size tarfile would choke on is refused before it acts on it."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size < 0 or (self.type in _EXTENSIONS and self.size > _NAME_LIMIT):
            raise tarfile.ReadError(f"a header that claims {self.size:,} bytes")
        return super()._proc_member(archive)  # type: ignore[misc,no-any-return]


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo, file: BinaryIO, size: int) -> Row:
    if not member.isreg():
        kind = "link" if member.issym() or member.islnk() else "not a file"
        return {"error": f"{kind}: a tar member that is not followed"}
    if member.sparse is not None:
        return {"error": "sparse member: holes are not read"}
    there = max(0, size - member.offset_data)
    if there < member.size:
        return {"bytes": member.size, "error": f"cut off: {there:,} of {member.size:,} bytes are there"}

    file.seek(member.offset_data)
    start = file.read(min(member.size, _HEADER_FIRST))
    if start[:3] == b"\xff\xd8\xff" or start[:4] == b"\x89PNG":  # nothing that counts lies behind the pixels
        row = {**_measure(start), "bytes": member.size}
        if "width" in row or len(start) == member.size:
            return row
    return _measure(archive.extractfile(member), member.size)  # type: ignore[arg-type]


def _end_of(file: BinaryIO, offset: int, size: int) -> str | None:
    """What is wrong behind the last member; tarfile stops silently at whatever is no header."""
    file.seek(offset)
    block = file.read(tarfile.BLOCKSIZE)
    if not block:
        return f"no end-of-archive mark at byte {size:,}, it may be cut short"
    if block.strip(b"\0"):
        return f"bad header at byte {offset:,}"
    position = offset
    while more := file.read(1 << 20):
        if more.strip(b"\0"):
            return f"data behind the end-of-archive mark at byte {position:,} (tars joined together?)"
    return None


def _take_note(notes: dict[str, Row], name: str, member: Any) -> None:
    text = member.read().decode("utf-8", "replace")
    note = notes.setdefault(stem(_clean(name)), {})
    if name.endswith(".txt"):
        note["alt_text"] = text.strip()
    elif name.endswith(".json"):
        try:
            told = json.loads(text)
        except (ValueError, RecursionError):
            return
        if isinstance(told, dict):
            note |= _known(told)


def _known(told: Row) -> Row:
    """The index's own columns out of a downloader's metadata."""
    names = {"url": "url", "sha256": "sha256", "caption": "alt_text", "alt_text": "alt_text"}
    return {ours: _clean(told[theirs]) for theirs, ours in names.items() if isinstance(told.get(theirs), str)}


def _clean(text: str) -> str:
    """Lone surrogates (tarfile's bytes that are not UTF-8, JSON's escapes) written out: no column can hold them."""
    return text.encode("utf-8", "backslashreplace").decode()


# Parquet


def _parquet(pool: Pool, root: Folder, shard: Shard) -> Iterator[Row]:
    with _on_disk(root, shard.path) as file:
        yield from parquet_rows(file, pool.image, pool.id)


def parquet_rows(file: Any, image: str | None, id_: str | None) -> Iterator[Row]:
    """One row per row, and one with key "" that says where a damaged file breaks off."""
    number = 0
    try:
        parquet = pq.ParquetFile(file)
        schema = parquet.schema_arrow
        column = image_column(schema, image)
        wanted = [column, *(f.name for f in schema if f.name in _NOTES and _is_text(f.type))]
        if id_ is not None:
            wanted.append(id_column(schema, id_))
        for batch in parquet.iter_batches(_ROWS_AT_ONCE, columns=list(dict.fromkeys(wanted))):
            for told in _told(batch):
                yield _cell(told, column, id_, number)
                number += 1
        if not number:
            yield {"key": "", "error": "no images: a Parquet file without rows"}
    except _BAD_PARQUET as error:
        text = _of_parquet(error)
        yield {"key": "", "error": f"broken Parquet: {text}; {number:,} rows were read before it"}


_BAD_PARQUET = (pa.ArrowException, ValueError, LookupError, MemoryError, OSError)


def _of_parquet(error: Exception) -> str:
    """What is wrong with the bytes. A disk's own error goes on: it has a number, unlike the OSErrors of Arrow."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error
    return " ".join(str(error).split())[:300] or type(error).__name__


def _told(batch: pa.RecordBatch) -> Iterator[Row]:
    """The rows of a batch; one with a text that is not UTF-8 loses its texts, not its image."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for row in range(batch.num_rows):
            yield {name: _value(column[row]) for name, column in zip(batch.schema.names, batch.columns, strict=True)}


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return {"bytes": _value(scalar["bytes"])} if pa.types.is_struct(scalar.type) else None


def image_column(schema: pa.Schema, image: str | None) -> str:
    """The column with the encoded image: the one named, else the only one that can be it.

    Raises:
        BadImageError: There is none, or more than one.
    """
    if image is not None and image not in schema.names:
        raise BadImageError(f"no column {image!r} (there are {', '.join(schema.names)})")
    candidates = [f.name for f in schema if _is_image(f.type) and image in (None, f.name)]
    if image is not None and not candidates:
        raise BadImageError(f"column {image!r} is {schema.field(image).type}, not binary or struct{{bytes, path}}")
    if len(candidates) != 1:
        found = f"{len(candidates)} columns ({', '.join(candidates)})" if candidates else "no column"
        raise BadImageError(f"{found} of binary or struct{{bytes, path}}; name the image column in the pool")
    return str(candidates[0])


def id_column(schema: pa.Schema, id_: str) -> str:
    """The column with the image's own id.

    Raises:
        BadImageError: It is not there, or holds no integers.
    """
    if not any(f.name == id_ and pa.types.is_integer(f.type) for f in schema):
        raise BadImageError(f"no integer column {id_!r} (there are {', '.join(schema.names)})")
    return id_


def _is_image(type_: pa.DataType) -> bool:
    if pa.types.is_struct(type_):
        return any(f.name == "bytes" and not pa.types.is_struct(f.type) and _is_image(f.type) for f in type_.fields)
    return bool(pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_binary_view(type_))


def _is_text(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))


def _cell(told: Row, column: str, id_: str | None, number: int) -> Row:
    cell = told[column]
    data, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    path = path if isinstance(path, str) else None
    row: Row = {"key": path or str(number), "offset": number, **_known(told)}
    if path:
        row["identity"] = str(number)  # paths may repeat between rows
    if id_ is not None and told[id_] is not None and told[id_] < 1 << 63:
        row["id"] = told[id_]
    if data is None:
        where = f", and its path {path!r} is a label that is not followed" if path else ""
        row["error"] = f"null image: the cell holds no bytes{where}"
    elif id_ is not None and "id" not in row:
        row["error"] = f"bad id: {told[id_]} in the column {id_!r}"
    else:
        row |= _measure(data)
    return row


# Output of img2dataset


def _img2dataset(pool: Pool, root: Folder, shard: Shard) -> Iterator[Row]:
    """The rows of its sidecar, failed downloads with their message, each with what the image's header says."""
    name = shard.path.removesuffix(".tar").removesuffix(".parquet")
    try:
        sidecar = _sidecar(root, f"{name}.parquet")
    except FileNotFoundError:
        sidecar = {}
        yield {"key": "", "error": f"broken sidecar: there is no {name}.parquet"}
    except _BAD_PARQUET as error:
        sidecar = {}
        yield {"key": "", "error": f"broken sidecar: {name}.parquet, {_of_parquet(error)}"}
    for row in _downloaded(root, shard):
        yield {**sidecar.pop(stem(row["key"].rpartition("/")[2]), {}), **row}
    for key, told in sidecar.items():
        yield {"error": "missing: downloaded according to the sidecar, but not in the shard", **told, "key": key}


def _sidecar(root: Folder, path: str) -> dict[str, Row]:
    wanted = ("key", "status", "error_message", "url", "caption", "sha256")
    with _on_disk(root, path) as file:
        parquet = pq.ParquetFile(file)
        if "key" not in parquet.schema_arrow.names:
            raise ValueError("it has no column key")
        table = parquet.read(columns=[n for n in wanted if n in parquet.schema_arrow.names])
    batches = table.to_batches()
    return {str(told["key"]): _known(told) | _download_error(told) for batch in batches for told in _told(batch)}


def _download_error(told: Row) -> Row:
    status = told.get("status") or "success"
    return {} if status == "success" else {"error": f"{status}: {told.get('error_message')}"}


def _downloaded(root: Folder, shard: Shard) -> Iterator[Row]:
    """The images of a shard in the webdataset, parquet or files format."""
    if shard.path.endswith(".tar"):
        with _on_disk(root, shard.path) as file:
            # A shard whose downloads all failed is an empty tar, and no fault.
            yield from (r for r in tar_rows(file) if not str(r["error"]).startswith("no images"))
    elif shard.path.endswith(".parquet"):
        yield from _downloaded_cells(root, shard.path)
    else:
        folder = root.join(shard.path)
        for info in folder.files():
            if is_candidate(info.base_name):
                yield from _image_file(Pool(images="-"), folder, Shard(info.base_name, info.size))


def _downloaded_cells(root: Folder, path: str) -> Iterator[Row]:
    number = 0
    try:
        with _on_disk(root, path) as file:
            parquet = pq.ParquetFile(file)
            names = [f.name for f in parquet.schema_arrow if _is_image(f.type)]
            for batch in parquet.iter_batches(_ROWS_AT_ONCE, columns=["key", *names[:1]]):
                for told in _told(batch):
                    cell = told[names[0]] if names else None
                    data = cell.get("bytes") if isinstance(cell, dict) else cell
                    if data is not None:
                        yield {"key": str(told["key"]), "offset": number, **_measure(data)}
                    number += 1
    except _BAD_PARQUET as error:
        yield {"key": "", "error": f"broken Parquet: {_of_parquet(error)}; {number:,} rows were read before it"}
