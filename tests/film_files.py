"""Small films in many containers, whole or made to do harm."""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FORMATS = {
    "mp4": ("mp4", "libx264"),
    "mov": ("mov", "libx264"),
    "mkv": ("matroska", "libx264"),
    "webm": ("webm", "libvpx-vp9"),
    "avi": ("avi", "mpeg4"),
    "ts": ("mpegts", "libx264"),
    "mpg": ("mpeg", "mpeg2video"),
    "flv": ("flv", "libx264"),
    "wmv": ("asf", "wmv2"),
    "mxf": ("mxf", "mpeg2video"),
    "h264": ("h264", "libx264"),
    "m2v": ("mpeg2video", "mpeg2video"),
    "ivf": ("ivf", "libvpx"),
    "y4m": ("yuv4mpegpipe", "wrapped_avframe"),
    "nut": ("nut", "mpeg4"),
}
"""Muxer and encoder, by the ending of the file."""


def film(
    path: Path, frames: int = 50, rate: int = 25, sound: bool = False, size: tuple[int, int] = (96, 64), **options: str
) -> Path:
    """A film of so many frames in the container of its ending. `options` are those of the muxer."""
    muxer, codec = FORMATS[path.suffix[1:]]
    with av.open(str(path), "w", format=muxer, options=options) as container:
        stream: Any = container.add_stream(codec, rate=rate, options={"g": "10"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        audio: Any = container.add_stream("aac", rate=44100) if sound else None
        for number in range(frames):
            picture = np.full((size[1] * 3 // 2, size[0]), 3 * number % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="yuv420p")))
        container.mux(stream.encode())
        if audio:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="flt", layout="mono")
            silence.sample_rate = 44100
            container.mux([*audio.encode(silence), *audio.encode()])
    return path


def changed(data: bytes, tag: bytes, offset: int, form: str, *values: int, last: bool = False) -> bytes:
    """The bytes with values of `struct` written at so many bytes behind a tag."""
    copy = bytearray(data)
    struct.pack_into(form, copy, (data.rindex(tag) if last else data.index(tag)) + len(tag) + offset, *values)
    return bytes(copy)


def many_samples(mp4: bytes, samples: int = 80_000_000) -> bytes:
    """An MP4 that says in a few bytes that it has so many samples: FFmpeg makes 60 bytes of each."""
    mp4 = changed(mp4, b"stsz", 4, ">II", 1, samples)
    mp4 = changed(mp4, b"stts", 4, ">III", 1, samples, 512)
    return changed(mp4, b"stsc", 4, ">IIII", 1, 1, samples, 1).replace(b"ctts", b"free")


def many_fragment_samples(fragmented_mp4: bytes, samples: int = 80_000_000) -> bytes:
    """The same in a fragment."""
    return changed(fragmented_mp4, b"trun", 0, ">II", 0, samples)


def many_edits(mp4: bytes, edits: int = 20_000) -> bytes:
    """An MP4 with an edit list that repeats the film so many times."""
    at = mp4.index(b"elst") - 4
    old = struct.unpack_from(">I", mp4, at)[0]
    body = struct.pack(">II", 0, edits) + struct.pack(">IiI", 2000, 0, 65536) * edits
    longer = bytearray(mp4[:at] + struct.pack(">I4s", 8 + len(body), b"elst") + body + mp4[at + old :])
    for parent in (b"moov", b"trak", b"edts"):
        start = longer.index(parent) - 4
        struct.pack_into(">I", longer, start, struct.unpack_from(">I", longer, start)[0] + 8 + len(body) - old)
    return bytes(longer)


def playlists(secret: object) -> dict[str, str]:
    """Playlists by kind, each with what it has to say to have a file, or a URL, opened."""
    mpd = (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet '
        'mimeType="video/mp4"><Representation id="1" bandwidth="1000"><BaseURL>{}</BaseURL></Representation>'
        "</AdaptationSet></Period></MPD>"
    )
    return {
        "m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{secret}\n#EXT-X-ENDLIST\n",
        "ffconcat": f"ffconcat version 1.0\nfile {secret}\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
        "mpd": mpd.format(secret),
        "m3u": f"#EXTM3U\n{secret}\n",
        "pls": f"[playlist]\nFile1={secret}\nNumberOfEntries=1\n",
        "asx": f'<asx version="3.0"><entry><ref href="{secret}"/></entry></asx>',
    }


def _boxed(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def external(film: bytes, path: bytes) -> bytes:
    """A film whose data reference is an alias of another file; its index is at its end, so that sizes alone change."""
    alias = bytes(10) + bytes([0]) + bytes(27) + bytes(12) + bytes([5]) + b"other".ljust(63, b"\0")
    alias += bytes(16) + struct.pack(">HH", 1, 1) + bytes(16) + struct.pack(">HH", 2, len(path)) + path
    alias += b"\0" * (len(path) % 2) + struct.pack(">HH", 0xFFFF, 0)
    old = b"url \x00\x00\x00\x01"
    at = film.index(old) - 4
    new = _boxed(b"alis", bytes(4) + alias)
    changed = bytearray(film[:at] + new + film[at + 12 :])
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        start = changed.rindex(box, 0, at) - 4
        size = struct.unpack_from(">I", changed, start)[0]
        struct.pack_into(">I", changed, start, size + len(new) - 12)
    return bytes(changed)


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def write_table(path: Path, films: Mapping[str, bytes], group: int = 2, **columns: list[Any]) -> Path:
    cells = [{"bytes": data, "path": name} for name, data in films.items()]
    pq.write_table(pa.table({"video": cells, **columns}), path, row_group_size=group)
    return path
