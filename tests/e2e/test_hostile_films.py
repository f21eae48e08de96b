"""A pool of hostile films: each is a row with its error; no other file and no URL is opened; a killer is isolated."""

from __future__ import annotations

import io
import json
import os
import resource
import socket
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import av
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.run import index_table
from manifests.schemas import FILM_INDEX
from manifests.storage import Folder
from pipeline.pools import pool_of
from tests.film_files import external, film, many_edits, many_fragment_samples, many_samples, playlists
from tests.model.clips import write

Vl3syn = Callable[..., subprocess.CompletedProcess[str]]
ENDINGS = ("mp4", "mkv", "avi", "ts")


@dataclass
class Canaries:
    """A pipe and a web server that note whether somebody opens them."""

    pipe: Path
    url: str
    opened: list[str] = field(default_factory=list)


@pytest.fixture
def canaries(tmp_path: Path) -> Iterator[Canaries]:
    pipe = tmp_path / "canary.ts"
    os.mkfifo(pipe)
    server = socket.create_server(("127.0.0.1", 0))
    watched = Canaries(pipe, f"http://127.0.0.1:{server.getsockname()[1]}/canary.ts")

    def watch_pipe() -> None:
        opened = os.open(pipe, os.O_WRONLY)  # waits for a reader
        watched.opened.append("pipe")  # noted before the reader is let go
        os.close(opened)

    def watch_server() -> None:
        with suppress(OSError):
            connection = server.accept()[0]
            watched.opened.append("server")
            connection.close()

    threads = [threading.Thread(target=watch, daemon=True) for watch in (watch_pipe, watch_server)]
    for thread in threads:
        thread.start()
    yield watched
    os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))  # lets the threads end
    with suppress(OSError):
        server.shutdown(socket.SHUT_RDWR)
    server.close()
    for thread in threads:
        thread.join(10)


def referring(folder: Path, canaries: Canaries) -> dict[str, bytes]:
    """Films that are playlists, or name another file, each for the pipe and for the URL, with several endings."""
    films = {}
    for number, target in enumerate((str(canaries.pipe), canaries.url)):
        for kind, text in playlists(target).items():
            films |= {f"{kind}{number}.{ending}": text.encode() for ending in ENDINGS}
    for codec in (b"m3u8", b"ffconcat"):  # a playlist that names a playlist
        films[f"nested_{codec.decode()}.mp4"] = b"ffconcat version 1.0\nfile list." + codec + b"\n"
    plain = film(folder / "plain.mov", frames=10).read_bytes()
    films["dref.mov"] = films["dref.mp4"] = external(plain, bytes(canaries.pipe))
    films["image%03d.mp4"] = b"\x89PNG\r\n\x1a\n" + bytes(100)
    return films


def pool_in(folder: Path, films: dict[str, bytes], kind: str) -> Path:
    """The films as files, in a tar or in a Parquet file."""
    folder.mkdir()
    if kind == "files":
        for name, data in films.items():
            (folder / name).write_bytes(data)
    elif kind == "tar":
        with tarfile.open(folder / "0.tar", "w") as archive:
            for name, data in films.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    else:
        cells = [{"bytes": data, "path": name} for name, data in films.items()]
        pq.write_table(pa.table({"video": cells}), folder / "0.parquet")
    return folder


def errors_of(pool: Path) -> dict[str, str | None]:
    videos = pool_of(videos=str(pool))
    listing = videos.listing()
    return {row["key"]: row["error"] for row in videos.index(listing.root, listing.shards).to_pylist()}


def test_canaries_see_a_careless_reader(tmp_path: Path, canaries: Canaries) -> None:
    careless = {"safe": "0", "protocol_whitelist": "file,http,tcp", "allowed_extensions": "ALL"}
    for target in (str(canaries.pipe), canaries.url):
        listed = tmp_path / "list.mp4"
        listed.write_text(playlists(target)["ffconcat"])
        with pytest.raises(av.error.FFmpegError):
            av.open(str(listed), container_options=careless)
    assert sorted(canaries.opened) == ["pipe", "server"]


@pytest.mark.parametrize("kind", ["files", "tar", "parquet"])
def test_no_film_has_another_file_or_url_opened(tmp_path: Path, canaries: Canaries, kind: str) -> None:
    films = referring(tmp_path, canaries)
    errors = errors_of(pool_in(tmp_path / "pool", films, kind))
    assert canaries.opened == []
    assert errors.keys() == films.keys()
    assert None not in errors.values()
    accepted = ("a playlist, or no known film", "cannot be read as a video", "a video without frames")
    assert [error for error in errors.values() if not str(error).startswith(accepted)] == []


@pytest.mark.parametrize("kind", ["files", "tar", "parquet"])
def test_protocols_alone_keep_other_files_closed(
    tmp_path: Path, canaries: Canaries, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """As if FFmpeg had a format, among those that are read, that names other files."""
    monkeypatch.setattr("core.containers._OPTIONS", {"safe": "0", "allowed_extensions": "ALL", "enable_drefs": "1"})
    errors = errors_of(pool_in(tmp_path / "pool", referring(tmp_path, canaries), kind))
    assert canaries.opened == []
    assert None not in errors.values()


def harmful(folder: Path) -> dict[str, bytes]:
    """Films that claim too much, of a few kilobytes each."""
    whole = film(folder / "whole.mp4").read_bytes()
    pieces = film(folder / "pieces.mp4", movflags="frag_keyframe+empty_moov").read_bytes()
    large = film(folder / "a.y4m", frames=2).read_bytes()
    return {
        "samples.mp4": many_samples(whole),
        "fragment.mp4": many_fragment_samples(pieces),
        "edits.mp4": many_edits(whole),
        "absurd.y4m": large.replace(b"W96 H64", b"W100000 H100000"),
        "large.y4m": large.replace(b"W96 H64", b"W16000 H16000"),
        "streams.ts": many_streams(film(folder / "a.ts", frames=2).read_bytes()),
    }


def many_streams(ts: bytes) -> bytes:
    """A transport stream of which each packet begins another stream."""
    packets = [bytearray(ts[at : at + 188]) for at in range(0, len(ts) - 187, 188)]
    video = next(packet for packet in reversed(packets) if packet[1] & 0x40 and b"\0\0\1\xe0" in packet)
    added = b""
    for number in range(0x200, 0x1200):
        video[1], video[2] = 0x40 | number >> 8, number & 0xFF
        added += bytes(video)
    return ts + added


@pytest.mark.parametrize("kind", ["files", "tar", "parquet"])
def test_memory_stays_flat(tmp_path: Path, kind: str) -> None:
    films = harmful(tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    errors = errors_of(pool_in(tmp_path / "pool", films, kind))
    assert {name: error for name, error in errors.items() if error is None and name != "streams.ts"} == {}
    assert errors.keys() == films.keys()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB


# av in every process of the command's: as if FFmpeg crashed over a film with this title.
SITE = """
import os, signal
import av

opened = av.open

def deadly(*arguments, **options):
    container = opened(*arguments, **options)
    if container.metadata.get("title") == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return container

av.open = deadly
"""


@pytest.mark.thorough
def test_film_that_kills_its_worker_is_isolated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vl3syn_process: Vl3syn
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    (tmp_path / "pool").mkdir()
    for number in range(12):
        film(tmp_path / "pool" / f"{number:02d}.mkv", frames=10)
    with av.open(str(tmp_path / "pool" / "05.mkv")) as read, av.open(str(tmp_path / "pool" / "k.mkv"), "w") as written:
        written.metadata["title"] = "kill"
        stream = written.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                written.mux(packet)
    done = vl3syn_process("index", tmp_path / "pool", "--run", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    (job,) = json.loads(done.stdout)["jobs"]
    assert (job["computed"], job["errors"]) == (13, 1)
    rows = index_table(Folder.at(tmp_path / "run"), FILM_INDEX).scan(["key", "duration", "error"]).collect()
    killed = rows.filter(pl.col("error").is_not_null())
    assert killed["key"].to_list() == ["k.mkv"]
    assert killed["error"][0].startswith("killed its worker: ")
    assert rows.filter(pl.col("error").is_null())["duration"].to_list() == [pytest.approx(0.4)] * 12


def test_command_ends_with_a_row_for_each_hostile_film(tmp_path: Path, canaries: Canaries, vl3syn: Vl3syn) -> None:
    films = {**referring(tmp_path, canaries), **harmful(tmp_path), "good.mp4": film(tmp_path / "g.mp4").read_bytes()}
    pool_in(tmp_path / "pool", films, "files")
    write(tmp_path / "pool" / "turned.mp4", [k / 10 for k in range(20)])
    done = vl3syn("index", tmp_path / "pool", "--run", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    rows = index_table(Folder.at(tmp_path / "run"), FILM_INDEX).scan(["key", "error"]).collect()
    assert rows.height == len(films) + 1
    assert {"good.mp4", "turned.mp4"} <= set(rows.filter(pl.col("error").is_null())["key"].to_list())
    assert canaries.opened == []
