"""Films that name other files: nothing but the film itself is opened."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import av
import pytest

from core.containers import DEMUXERS, open_container
from core.errors import BadSampleError
from core.videos import probe
from model import Processor
from tests.film_files import external, playlists
from tests.model.clips import real, write

TENTHS = [k / 10 for k in range(20)]


@pytest.fixture(scope="module")
def processor() -> Processor:
    return Processor.tiny()


def _remuxed(clip: Path, path: Path, kind: str) -> Path:
    with av.open(str(clip)) as read, av.open(str(path), "w", format=kind) as written:
        stream = written.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                written.mux(packet)
    return path


@pytest.mark.parametrize("ending", ["", ".mp4", ".ts"])
@pytest.mark.parametrize("kind", ["m3u8", "ffconcat", "sdp", "mpd", "m3u", "pls", "asx"])
def test_playlist_is_refused_under_any_name(processor: Processor, tmp_path: Path, kind: str, ending: str) -> None:
    secret = _remuxed(write(tmp_path / "s.mp4", TENTHS), tmp_path / "secret.ts", "mpegts")
    listed = tmp_path / f"list.{kind}{ending}"
    listed.write_text(playlists(secret)[kind])
    with pytest.raises(BadSampleError, match=r"a playlist, or no known film: give|cannot be read as a video") as error:
        processor([{"role": "user", "content": [{"type": "video", "video": str(listed)}, "What?"]}])
    assert "\n" not in str(error.value)


def test_url_is_read_as_a_file_name_without_a_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection is made, and no protocol of FFmpeg's (concat:, subfile:, data:) is taken for one."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.mp4", TENTHS)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.setblocking(False)
        for name in (f"http://127.0.0.1:{server.getsockname()[1]}/a.mp4", "concat:a.mp4", "subfile,,:a.mp4"):
            with pytest.raises(BadSampleError, match="No such file"):
                probe(name)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_external_data_of_quicktime_are_not_read(tmp_path: Path) -> None:
    secret, film = write(tmp_path / "secret.mp4", TENTHS), tmp_path / "film.mov"
    film.write_bytes(external(_remuxed(secret, tmp_path / "plain.mov", "mov").read_bytes(), bytes(secret)))
    options = {"enable_drefs": "1", "use_absolute_path": "1"}
    with av.open(str(film), container_options=options) as opened:
        assert sum(1 for _ in opened.demux(video=0)) > 1, "the film does name another"
    with open_container(film) as opened:
        assert [packet.size for packet in opened.demux(video=0)] == [0]
    with pytest.raises(ValueError, match="without frames"):
        probe(film)


@pytest.mark.parametrize("name", ["nul\0.mp4", "n" * 300 + ".mp4", "pipe.mp4", "/dev/zero", ".", "none.mp4"])
def test_path_that_is_not_a_file_is_a_one_line_error_at_once(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(BadSampleError, match=r"no regular file|null byte|too long|No such file|is no frame") as error:
        probe(str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_names_with_marks_or_without_utf8_are_read(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.mp4", TENTHS).read_bytes()
    for name in (b"caf\xe9.mp4", b"a,b:c%03d?x#y.mp4", b"file:x.mp4"):
        path = os.path.join(os.fsencode(tmp_path), name)
        Path(os.fsdecode(path)).write_bytes(whole)
        assert probe(os.fsdecode(path)).times == (0.0, 1.0)


CODECS = {"webm": "libvpx-vp9", "mpeg": "mpeg2video", "asf": "wmv2", "avi": "mpeg4", "gif": "gif", "mjpeg": "mjpeg"}


@pytest.mark.parametrize(
    "kind", ["mov", "mp4", "matroska", "webm", "avi", "mpegts", "mpeg", "flv", "asf", "h264", "3gp", "gif", "mjpeg"]
)
def test_common_containers_are_read(tmp_path: Path, kind: str) -> None:
    path, pixels = tmp_path / f"film.{kind}", {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(kind, "yuv420p")
    with av.open(str(path), "w", format=kind) as written:
        stream: Any = written.add_stream(CODECS.get(kind, "libx264"), rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 96, pixels
        for _ in range(20):
            written.mux(stream.encode(av.VideoFrame(96, 64, "rgb24").reformat(format=pixels)))
        written.mux(stream.encode())
    with open_container(path) as opened:
        assert sum(1 for _ in opened.decode(video=0)) == 20
        assert set(opened.format.name.split(",")) & set(DEMUXERS)


def test_real_clips_are_read() -> None:
    for name in ("bigbuckbunny", "bikes", "carphone"):
        assert probe(real(name)).times
