"""A server of our own: it answers, it ends with its owner, and what goes wrong is one line."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import pytest

from captioners.engines.http_exchange import FAILURES, get
from captioners.engines.server_process import Port, start_server

SERVE = f"{sys.executable} -m tests.chat_server --port {{port}}"


def test_server_process_answers_and_ends_when_stopped() -> None:
    served = start_server(SERVE, "m", 20, "test")
    assert get(f"{served.url}/models", 5).status == 200
    served.stop()
    with pytest.raises(aiohttp.ClientConnectorError):
        get(f"{served.url}/models", 5)


def test_server_process_ends_when_its_owner_is_killed() -> None:
    script = (
        "import time; from captioners.engines.server_process import start_server\n"
        f"served = start_server({SERVE!r}, 'm', 20, 'test'); print(served.url, flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    url = owner.stdout.readline().strip()
    assert get(f"{url}/models", 5).status == 200
    owner.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            get(f"{url}/models", 1)
        except FAILURES:
            return
        time.sleep(0.1)
    pytest.fail("the server outlives its owner")


def test_model_name_is_one_argument_and_no_shell_reads_it(tmp_path: Path) -> None:
    code = "import sys; sys.exit(f'said {len(sys.argv)} {sys.argv[1]}')"
    with pytest.raises(ValueError, match="said 3 b; touch") as error:
        start_server(f'{sys.executable} -c "{code}" {{model}} {{port}}', f"b; touch {tmp_path}/x", 20, "test")
    assert "ended before it answered" in str(error.value)
    assert not (tmp_path / "x").exists()


def test_revision_is_filled_into_the_start_command() -> None:
    code = "import sys; sys.exit(f'said {sys.argv[1:3]}')"
    with pytest.raises(ValueError, match=r"said \['{port}/m', '0a1b'\]"):
        start_server(f'{sys.executable} -c "{code}" {{model}} {{revision}} {{port}}', "{port}/m", 20, "test", "0a1b")


def test_missing_program_is_a_one_line_error() -> None:
    with pytest.raises(ValueError, match="test: there is no program lmdeploy-of-no-one"):
        start_server("lmdeploy-of-no-one serve {port}", "m", 5, "test")


def test_server_process_that_starts_too_slowly_is_ended() -> None:
    begin = time.monotonic()
    with pytest.raises(ValueError, match="did not answer within 1 s"):
        start_server(f'{sys.executable} -c "import time; time.sleep(60)" {{port}}', "m", 1, "test")
    assert time.monotonic() - begin < 10


def test_ports_of_servers_that_do_not_listen_yet_differ() -> None:
    ports = [Port.take() for _ in range(600)]  # 28,000 are offered at random: six or so would be offered twice
    try:
        assert len({port.number for port in ports}) == 600
    finally:
        for port in ports:
            port.release()
