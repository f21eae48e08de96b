"""Shared by all tests: one Ray and one S3 server per session, and pools made of small real images."""

from __future__ import annotations

import gc
import io
import os
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import hypothesis
import pytest
from PIL import Image

if TYPE_CHECKING:
    from tests.web_server import WebServer

# Before anything imports ray: its workers inherit the environment of the process that starts it.
os.environ |= {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_OFFLINE": "1",
    # Models here are tiny: a second thread only waits for a core that a worker of Ray has.
    "OMP_NUM_THREADS": "1",
    "COLUMNS": "160",
}

# No test fails because the machine is slow.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

# Without compiled modules, pytest rewrites every file of tests anew, and each process compiles every module of ours.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell that starts the tests in the background ignores SIGINT for them, and they for the commands that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Generator[None, object, object]:
    """Without the garbage collector: most of a million objects of modules and tests live as long as the process.

    It would go through them 18 times meanwhile, which is a third of the time, and again between tests.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


_S3_PLACE = socket.socket()
"""It keeps the port of the S3 server until the server takes it: another test process may look for a free one."""
_S3_PLACE.bind(("127.0.0.1", 0))
_S3_PORT: int = _S3_PLACE.getsockname()[1]
os.environ |= {
    "AWS_ENDPOINT_URL": f"http://127.0.0.1:{_S3_PORT}",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}

MakeImages = Callable[..., Path]


@pytest.fixture(scope="session", autouse=True)
def no_curves() -> Iterator[None]:
    """Trainings of tests draw no curves, which takes longer than their steps: `test_curves.py` draws some."""
    with patch("model.training.curves.draw", autospec=True):
        yield


@pytest.fixture(scope="session")
def engine() -> Iterator[str]:
    """One Ray for the whole session, with little memory; its address."""
    import ray

    ray.shutdown()  # a job of a test without this fixture has started one
    context = ray.init(num_cpus=2, include_dashboard=False, object_store_memory=256 << 20, log_to_driver=False)
    yield context.address_info["gcs_address"]
    ray.shutdown()


@pytest.fixture
def here(engine: str) -> Iterator[None]:
    """Jobs run in this process: for tests of what comes of them, not of Ray's workers."""
    from tests.runs import jobs_here

    with jobs_here():
        yield


@pytest.fixture(scope="session")
def s3_server() -> Iterator[None]:
    """A real S3 server (moto) on loopback."""
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=_S3_PORT, verbose=False)
    _S3_PLACE.close()
    server.start()
    yield
    server.stop()


@pytest.fixture
def bucket(s3_server: None) -> Iterator[str]:
    """`s3://…`, empty."""
    import boto3

    made = boto3.resource("s3").create_bucket(Bucket="vl3syn")
    made.objects.delete()
    yield "s3://vl3syn"
    made.objects.delete()


def jpeg(width: int, height: int, shade: int = 0) -> bytes:
    """A small JPEG of that size."""
    data = io.BytesIO()
    Image.new("RGB", (width, height), (shade % 256, shade // 256 % 256, 90)).save(data, "JPEG", quality=30)
    return data.getvalue()


@pytest.fixture
def make_images() -> MakeImages:
    """`make_images(folder, count, start=0)`: JPEGs of sizes that vary with their number, the same every time."""

    def make(folder: Path, count: int, start: int = 0) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(start, start + count):
            (folder / f"{number:06d}.jpg").write_bytes(jpeg(20 + number % 37, 20 + number % 23, number))
        return folder

    return make


CommandLine = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def vl3syn(request: pytest.FixtureRequest) -> CommandLine:
    """Run the command line in this process, on the session's Ray: as a user does, without the start of both."""

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        if arguments[0] in _ON_RAY:
            request.getfixturevalue("engine")
        return _main([str(argument) for argument in arguments])

    return call


_ON_RAY = ("run", "index", "filter", "caption", "cluster", "dedup", "retry")


def _main(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    from pipeline.commands.app import main

    stdout, stderr, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["vl3syn", *arguments]
    try:
        with redirect_stdout(stdout), redirect_stderr(stderr), warnings.catch_warnings():
            main()
        code: str | int | None = 0
    except SystemExit as end:
        code = end.code
    finally:
        sys.argv = before
    return subprocess.CompletedProcess(arguments, int(code or 0), stdout.getvalue(), stderr.getvalue())


@pytest.fixture(scope="session")
def vl3syn_process() -> CommandLine:
    """Run the command line as a user does, in a process of its own, which starts its own Ray."""

    def call(*arguments: object, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipeline", *map(str, arguments)]
        environment = {**os.environ, "COLUMNS": "160"}
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)

    return call


@pytest.fixture(scope="session")
def tiny_blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small random BLIP captioner."""
    from tests.checkpoints import save_blip

    return save_blip(tmp_path_factory.mktemp("models") / "blip")


@pytest.fixture(scope="session")
def tiny_blip2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small random BLIP-2 captioner (OPT)."""
    from tests.checkpoints import save_blip2

    return save_blip2(tmp_path_factory.mktemp("models") / "blip2")


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small random open_clip model, embeddings of 64 numbers, `local-dir:FOLDER`."""
    from tests.checkpoints import save_clip

    return save_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture(scope="session")
def tiny_internvl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small random InternVL chat model."""
    from tests.checkpoints import save_internvl

    return save_internvl(tmp_path_factory.mktemp("models") / "internvl")


@pytest.fixture(scope="session")
def download_python() -> str:
    """The Python with img2dataset: of `make setup-download`, or of the variable VL3SYN_DOWNLOAD_PYTHON."""
    from pipeline.stages.download.child_process import ROOT

    python = os.environ.get("VL3SYN_DOWNLOAD_PYTHON") or str(ROOT / ".venv-download" / "bin" / "python")
    if not os.path.exists(python):
        pytest.fail("img2dataset's environment is missing: run `make setup-download`")
    return python


@pytest.fixture
def web() -> Iterator[WebServer]:
    """A server on all loopback addresses."""
    from tests.web_server import serving

    with serving() as server:
        yield server


_DRAWN = ("logo", "phantom", "horse", "multipage", "chessboard", "color", "no_time")


@pytest.fixture(scope="session")
def photographs() -> list[Path]:
    """Files of about 20 photographs, out of scikit-image's and scikit-learn's wheels."""
    from importlib.util import find_spec

    files: list[Path] = []
    for package, inside in (("skimage", "data"), ("sklearn", "datasets/images")):
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        files += sorted(p for p in (Path(spec.origin).parent / inside).iterdir() if p.suffix in (".png", ".jpg"))
    return [path for path in files if not path.name.startswith(_DRAWN)]
