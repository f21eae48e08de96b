"""Parquet files that run code in a careless reader. Run as a program, where `ray.data` is not imported: it registers
the very types that are faked here, and unpickles their values.

    python -m tests.canary_files FOLDER      # FOLDER/NAME.parquet; whatever runs touches FOLDER/CANARY
"""

from __future__ import annotations

import io
import os
import pickle
import sys
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

ROWS = 3
PICKLED = "ray.data.arrow_pickled_object"


class Canary:
    """Unpickling it touches a file."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.folder}/CANARY",)


class Fake(pa.ExtensionType):  # type: ignore[misc]
    """Of the name that another program's type has."""

    def __init__(self, storage: pa.DataType, name: str = PICKLED, about: bytes = b"") -> None:
        self.about = about
        super().__init__(storage, name)

    def __arrow_ext_serialize__(self) -> bytes:
        return self.about

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, about: bytes) -> Fake:
        return cls(storage)


def picture() -> bytes:
    """A PNG of 40 × 30 pixels."""
    data = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(data, "PNG")
    return data.getvalue()


def struct(**fields: pa.Array) -> pa.StructArray:
    return pa.StructArray.from_arrays(list(fields.values()), names=list(fields))


def lists(values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(range(ROWS + 1), pa.int32()), values)


def main(folder: str) -> None:
    image = pa.array([picture()] * ROWS, pa.binary())
    texts = pa.array(["a", "b", "c"])
    stored = pa.array([pickle.dumps(Canary(folder))] * ROWS, pa.large_binary())
    evil = Fake(pa.large_binary()).wrap_array(stored)
    tensor = Fake(pa.list_(pa.int64()), "ray.data.arrow_tensor", b"[1]").wrap_array(lists(pa.array([1, 2, 3])))
    repeated = Fake(pa.dictionary(pa.int32(), pa.large_binary())).wrap_array(stored.dictionary_encode())
    turns = lists(struct(**{"from": texts, "value": texts}))
    plain = {"image": struct(bytes=image, path=texts), "id": pa.array([1, 2, 3]), "key": texts, "url": texts}
    plain |= {"caption": texts, "status": pa.array(["success"] * ROWS), "width": pa.array([40] * ROWS)}
    plain |= {"height": pa.array([30] * ROWS), "detailed_caption": texts, "conversations": turns}
    files = {
        "plain": {},
        "in_the_path": {"image": struct(bytes=image, path=evil)},
        "in_a_part_not_needed": {"image": struct(bytes=image, path=texts, more=evil)},
        "deep_in_a_part_not_needed": {"image": struct(bytes=image, path=texts, more=struct(more=lists(evil)))},
        "deep_in_the_path": {"image": struct(bytes=image, path=struct(more=evil))},
        "the_image": {"image": evil},
        "the_bytes": {"image": struct(bytes=evil, path=texts)},
        "the_caption": {"caption": evil},
        "list_of_captions": {"caption": lists(evil)},
        "repeated_caption": {"caption": repeated},
        "tensor_as_caption": {"caption": tensor},
        "the_key": {"key": evil},
        "the_url": {"url": evil},
        "the_status": {"status": evil},
        "the_id": {"id": evil},
        "the_width": {"width": evil},
        "deep_in_the_turns": {"conversations": lists(struct(**{"from": texts, "value": evil}))},
        "list_of_turns": {"conversations": lists(evil)},
    }
    for name, changed in files.items():
        try:
            pq.write_table(pa.table(plain | changed), f"{folder}/{name}.parquet")
        except pa.ArrowInvalid:  # Parquet cannot hold a dictionary below an extension type
            pq.write_table(pa.table(plain | {"caption": evil}), f"{folder}/{name}.parquet")


if __name__ == "__main__":
    main(sys.argv[1])
