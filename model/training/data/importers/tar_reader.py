"""Read the samples of a tar in webdataset's layout: members of one name, up to the first dot of the file's name."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from typing import IO, Any

from core.errors import UserError
from model.training.data.importers.format import Row, Unreadable

_LARGEST = 256 << 20  # bytes of the members of one sample
_MOST = 64  # members of one sample
_TEXTS = ("txt", "text", "caption", "cls")


def tar_rows(data: IO[bytes], name: str) -> Iterator[Row]:
    """Yield a row for each sample: `{"json": parsed, "txt": text, "jpg": bytes, …}`, by ending, with its name as key.

    Members of one sample follow one another. Nothing is extracted, no link is followed.

    Raises:
        UserError: The tar is damaged.
    """
    number, key = 0, ""
    members: dict[str, Any] = {}
    size = 0
    try:
        with tarfile.open(fileobj=data, mode="r|") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every header
                if not member.isreg():
                    continue
                its_key, ending = _split(member.name)
                if its_key != key and members:
                    number += 1
                    yield _row(members, size, name, number, key)
                    members, size = {}, 0
                key = its_key
                size += member.size
                fits = size <= _LARGEST and len(members) < _MOST
                members[ending] = _value(archive, member, ending) if fits else None
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise UserError(f"{name}: broken tar behind sample {number:,}: {error}; copy it again") from error
    if members:
        yield _row(members, size, name, number + 1, key)


def _split(name: str) -> tuple[str, str]:
    folder, slash, file = name.rpartition("/")
    stem, _, ending = file.partition(".")
    return f"{folder}{slash}{stem}", ending.lower()


def _row(members: dict[str, Any], size: int, name: str, number: int, key: str) -> Row:
    broken = next((value for value in members.values() if isinstance(value, Unreadable)), None)
    if size > _LARGEST or len(members) >= _MOST:
        broken = Unreadable(", ".join(members)[:2000], f"too large: {len(members)} members of {size:,} bytes")
    return Row(broken or members, name, number, key)


def _value(archive: tarfile.TarFile, member: tarfile.TarInfo, ending: str) -> Any:
    file = archive.extractfile(member)
    data = file.read() if file else b""
    if len(data) < member.size:
        raise tarfile.ReadError("unexpected end of data")
    if ending not in ("json", *_TEXTS):
        return data
    try:
        return json.loads(data) if ending == "json" else data.decode()
    except (ValueError, RecursionError) as error:
        return Unreadable(data[:2000].decode("utf-8", "replace"), f"no JSON: {' '.join(str(error).split())[:200]}")
