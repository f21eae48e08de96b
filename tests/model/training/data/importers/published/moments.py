"""Published events and streams of films: a few invented rows of each form."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.model.training.data.importers.formats import (
    test_activitynet,
    test_avtime,
    test_charades,
    test_coin,
    test_didemo,
    test_ego4d_spans,
    test_et_instruct,
    test_hirest,
    test_livecc,
    test_mmduet,
    test_momentor,
    test_qvhighlights,
    test_streamo,
    test_timeit,
    test_timelens,
    test_videollm_online,
    test_vitt,
    test_vtimellm,
)
from tests.model.training.data.importers.published.layouts import Published, array, keyed, keys, lines

STEPS = [{"segment": [9, 12], "sentence": "chop it"}, {"segment": [20, 31], "sentence": "fry it"}]
LIVE_CLIP = {"video_start": 30.0, "video_end": 59.9}
NLQ_CLIP = {"clip_uid": "c", "video_start_sec": 10.0, "video_end_sec": 60.0}
NLQ = {"query": "Where is the lid?", "clip_start_sec": 7.0, "clip_end_sec": 9.5, "video_start_sec": 17.0}


def queryd(folder: Path, rows: Sequence[Any]) -> Path:
    """QuerYD's folder. A row is the captions of a film, and their times."""
    for number, name in enumerate(("raw_captions", "times_captions")):
        values = dict(zip(keys("A", rows), (row[number] for row in rows), strict=True))
        (folder / f"{name}_combined_filtered.json").write_text(json.dumps(values))
    return folder


def text(folder: Path, rows: Sequence[Any]) -> Path:
    """Charades-STA's lines."""
    (folder / "charades_sta_train.txt").write_text("".join(f"{row}\n" for row in rows))
    return folder / "charades_sta_train.txt"


PUBLISHED: Mapping[str, Published] = {
    "activitynet": Published([test_activitynet.FILM], keyed("v_abc"), 3, films=["v_abc.mp4"]),
    "youcook2": Published(
        [{"duration": 70.0, "subset": "training", "recipe_type": "101", "annotations": STEPS}],
        keyed("ID", "database"),
        3,
        films=["101/ID.mp4"],
    ),
    "coin": Published([test_coin.FILM], keyed("ID", "database"), 3, films=["ID.mp4"]),
    "hirest": Published(
        [{"ID.mp4": test_hirest.CLIP | {"v_duration": 70.0, "bounds": [20, 65]}}],
        keyed("Make tea"),
        3,
        films=["ID.mp4"],
    ),
    "vitt": Published(
        [test_vitt.FILM],
        lines(),
        3,
        films=["w.mp4"],
        options={"ids": "{folder}/ids.csv", "durations": "{folder}/lengths.csv"},
        tables={"ids.csv": "id,video\nwAbc,w\n", "lengths.csv": "id,length\nwAbc,60\n"},
    ),
    "charades": Published([test_charades.GOOD], text, 1, films=["ABCDE.mp4"]),
    "didemo": Published([test_didemo.ROW], array(), 1, films=["x.mp4"]),
    "qvhighlights": Published([test_qvhighlights.ROW], lines(), 1, films=["a_YT_60.0_210.0.mp4"]),
    "queryd": Published([(["a man", ["he", "sits"]], [[0.5, 2.0], [3.0, 4.5]])], queryd, 3, films=["A.mp4"]),
    "ego4d-nlq": Published(
        [{"video_uid": "u", "clips": [NLQ_CLIP | {"annotations": [{"language_queries": [NLQ]}]}]}],
        array("videos"),
        1,
        films=["u.mp4"],
    ),
    "goalstep": Published([test_ego4d_spans.GOAL], array("videos"), 2, films=["u.mp4"]),
    "momentor": Published([{"qa": [test_momentor.ONE]}], keyed("vid"), 1, films=["vid.mp4"]),
    "timeit": Published([test_timeit.ROW], array(), 1, films=["x.mp4"]),
    "et-instruct": Published([test_et_instruct.VID], array(), 1, films=["x.mp4"], auto="refused"),
    "avtime": Published([test_avtime.row({"events": test_avtime.EVENTS})], array(), 3, films=["x.mp4"], auto="refused"),
    "timelens": Published([test_timelens.ROW], lines(), 2, films=["cosmo_cap/x.mp4"]),
    "vtimellm": Published([test_vtimellm.CUT], array(), 1, films=["AbC.mp4"], auto="refused"),
    "videollm-online": Published(
        [test_videollm_online.LIVE, test_videollm_online.LIVE | {"conversation": test_videollm_online.FRAMES[:3]}],
        lines(),
        2,
        films=["u.mp4"],
    ),
    "mmduet": Published([test_mmduet.MAGQA, test_mmduet.QUERY], array(), 2, films=["x.mp4"]),
    "livecc": Published([test_livecc.line(**LIVE_CLIP)], lines(), 1, films=["YT.mp4"], auto="refused"),
    "streamo": Published([test_streamo.RAW, test_streamo.RENDERED], array(), 2, films=["a/x.mp4", "x.mp4"]),
}
