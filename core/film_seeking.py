"""Go to a time in a film: to a key frame that is shown at that time or before it.

MP4 and Matroska find key frames by an index, MPEG-TS and MPEG-PS any packet about there. All look for decoding times,
and a frame is shown later than it is decoded. So a container may lead to a frame that is too late, or that needs frames
before it. Then it is tried again from further back, and at last from the start of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, dropwhile, takewhile
from typing import Any

from core.film_length import start_of
from core.frame_sampling import EDGE
from core.frame_times import timed


def decode_from(container: Any, stream: Any, time: float) -> Iterator[tuple[float, Any]]:
    """Yield decoded frames with their times, in order. The first one is a key frame that is shown at `time` or before.

    Args:
        container, stream: From `core.containers.open_film`. The stream says when it starts.
        time: In seconds from the start of the stream.

    Raises:
        UnusableTimesError: A frame has no time, or the times go backwards.
    """
    back = 0.0
    while back <= time:
        container.seek(int((start_of(stream, 0.0) + time - back) / stream.time_base), stream=stream)
        # Without a key frame before it, a frame of MPEG-4 is decoded to a grey picture with pieces of the film.
        frames = dropwhile(lambda timed_frame: not timed_frame[1].key_frame, timed(container.decode(stream), stream))
        first = next(frames, None)
        if first is not None and first[0] <= time + EDGE / 2:
            yield from chain((first,), frames)
            return
        back = 2 * back + 1
    container.seek(_START, stream=stream)
    yield from timed(container.decode(stream), stream)


def seek_before(container: Any, stream: Any, time: float) -> None:
    """Seek to where the first packet with a key frame is shown at `time` or before it; other packets may come first.

    Args:
        container, stream: From `core.containers.open_film`.
        time: In seconds of the stream's own clock.
    """
    base, back = stream.time_base, 0.0
    while back <= time + 1:
        container.seek(int((time - back) / base), stream=stream)
        packets = (packet for packet in container.demux(stream) if packet.size)
        # Behind packets that are decoded later there is nothing to find: the search would read on to the next key
        # frame, at worst to the end of the film.
        early = takewhile(lambda packet: packet.dts is None or packet.dts * base <= time + EDGE / 2, packets)
        key = next((packet for packet in early if packet.is_keyframe and packet.pts is not None), None)
        if key is not None and key.pts * base <= time + EDGE / 2:
            break
        back = 2 * back + 1
    container.seek(int((time - back) / base) if back <= time + 1 else _START, stream=stream)


_START = -(2**62)
