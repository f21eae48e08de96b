"""What img2dataset's loop calls to resize an image: img2dataset's resizer, which foreign bytes may crash."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from .orientation import orientation_of, with_orientation

Resizer = Callable[[Any, None], tuple[Any, ...]]
"""From an image to its bytes, four sides (each of these may be None), and an error or None."""

_SECONDS = 60
"""Time for an image in a process of its own."""


def make_resizer(kind: Any, resize: Mapping[str, Any] | None) -> Resizer:
    """Return a resizer that keeps the orientation.

    Args:
        kind: img2dataset's class of resizers.
        resize: `mode`, `size` and `quality` for it; None: the bytes stay as they are.
    """
    if resize is None:
        return kind(256, "no", True, disable_all_reencoding=True)  # type: ignore[no-any-return]
    resizer = kind(resize["size"], resize["mode"], True, encode_quality=resize["quality"], skip_reencode=True)

    def call(image: BinaryIO, boxes: None) -> tuple[Any, ...]:
        resized, *others = resizer(image, boxes)
        image.seek(0)
        if resized is not None and resized != image.read():
            resized = with_orientation(resized, orientation_of(image))
        return (resized, *others)

    return call


def apart(resizer: Resizer, on_kill: Callable[[Any], None]) -> Resizer:
    """Return a resizer that does each image in a process of its own: bytes that crash it cannot hide among others.

    Args:
        resizer: What it calls there.
        on_kill: Is called here with an image whose process was killed, as when memory is short.
    """

    def call(image: Any, boxes: None) -> tuple[Any, ...]:
        receiving, sending = os.pipe()
        process = os.fork()
        if not process:
            _answer(sending, resizer, image)
        os.close(sending)
        with os.fdopen(receiving, "rb") as file:
            others, _, resized = file.read().partition(b"\n")
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if code == 0:
            return (resized or None, *json.loads(others))
        if code == -signal.SIGKILL:
            on_kill(image)
        ending = f"signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"exit code {code}"
        return (None, None, None, None, None, f"the process ended, by {ending}")

    return call


def _answer(sending: int, resizer: Resizer, image: Any) -> None:
    """Resize an image, write what comes of it into a pipe, and end this process."""
    try:
        signal.alarm(_SECONDS)  # ends this process
        resized, *others = resizer(image, None)
        with os.fdopen(sending, "wb") as file:
            file.write(json.dumps(others).encode() + b"\n" + (resized or b""))
        os._exit(0)
    finally:
        os._exit(1)
