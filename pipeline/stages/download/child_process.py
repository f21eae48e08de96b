"""The child process in img2dataset's environment, as this process sees it."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.image_header import MAX_PIXELS
from core.text import printable

ROOT = Path(__file__).parents[3]
"""The folder of the sources, in which `make setup-download` makes an environment."""

_CODE = """
import sys
sys.path[0] = sys.argv[1]
from fetching.child import serve
sys.path.pop(0)
serve(int(sys.argv[2]))
"""
_LOOK_UP_SECONDS = 5


class ChildDiedError(Exception):
    """The process has ended without an answer. The text says how."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}" if code >= 0 else f"signal {-code} ({signal.strsignal(-code)})")


def find_python(python: str | None) -> str:
    """Return the Python with img2dataset: the given one, this one, or that of `make setup-download`."""
    if python is not None:
        return os.path.expanduser(python)
    if importlib.util.find_spec("img2dataset"):
        return sys.executable
    return str(ROOT / ".venv-download" / "bin" / "python")


class ChildProcess:
    """A process that downloads parts until it is closed, or this process ends.

    Args:
        python: Its Python.
        settings: The settings of `fetching.child.Parts`.

    Raises:
        UserError: It cannot be started, or img2dataset is missing there.
    """

    def __init__(self, python: str, settings: Mapping[str, Any]) -> None:
        self._python = python
        self._errors = tempfile.TemporaryFile()  # what libraries print; shown if the process does not start
        receiving, sending = os.pipe()  # not standard output, on which libraries print
        # -E: PYTHONPATH is for this environment.
        command = [python, "-E", "-c", _CODE, str(Path(__file__).parent), str(sending)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=[sending],
                env=os.environ | _environment(),
                start_new_session=True,  # without it, it would get a Ctrl-C too
            )
        except OSError as error:
            os.close(receiving)
            raise _missing(python, error.strerror or str(error)) from error
        finally:
            os.close(sending)
        self._answers = os.fdopen(receiving, encoding="utf-8")
        try:
            self.send(settings)
            self.receive()
        except ChildDiedError as death:
            reason = self._last_words() or str(death)
            self.close(kill=True)
            raise _missing(python, reason) from death
        except BaseException:
            self.close(kill=True)
            raise

    def send(self, line: Mapping[str, Any]) -> None:
        """Send a line; if the process has ended, the next `receive` says so."""
        assert self._process.stdin
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(line).encode() + b"\n")
            self._process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        """Return the next answer.

        Raises:
            ChildDiedError: The process has ended.
            UserError: It cannot fetch.
            OSError: It could not write files.
        """
        line = self._answers.readline()
        if not line.endswith("\n"):  # it may end within a line
            raise ChildDiedError(self._process.wait())
        answer: dict[str, Any] = json.loads(line)
        if "error" not in answer:
            return answer
        if answer["errno"] is None:
            raise _missing(self._python, answer["error"])
        raise OSError(answer["errno"], answer["error"])

    def close(self, kill: bool = False) -> None:
        """End the process: at once, or after its part."""
        if kill:
            self._process.kill()
        with suppress(BrokenPipeError), self._errors, self._answers, self._process:  # closes the pipes and waits
            pass

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        return printable(next((line for line in reversed(lines) if line.strip()), ""))[:200]


def _environment() -> dict[str, str]:
    return {
        "NO_ALBUMENTATIONS_UPDATE": "1",  # else it asks the network for its newest version
        "OPENCV_IO_MAX_IMAGE_PIXELS": str(MAX_PIXELS),  # a decompression bomb is refused before it is decoded
        # The system's look-up of a name has no deadline but this one.
        "RES_OPTIONS": os.environ.get("RES_OPTIONS", f"timeout:{_LOOK_UP_SECONDS} attempts:1"),
    }


def _missing(python: str, reason: str) -> UserError:
    return UserError(
        f"download: {python}: {reason}; run `make setup-download`, or give the Python of another environment, "
        "engine: {python: …}"
    )
