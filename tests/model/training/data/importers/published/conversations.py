"""Published conversations, questions and captions, about images and films: a few invented rows of each form."""

from __future__ import annotations

from collections.abc import Mapping

from tests.model.training import training_data
from tests.model.training.data.importers.formats import (
    test_ego4d,
    test_egoschema,
    test_finevideo,
    test_internvid,
    test_panda70m,
    test_penguin_recap_i,
    test_penguin_recap_v,
    test_sharegpt4video,
    test_valley,
    test_videochat,
    test_videochat2,
    test_videochatgpt,
    test_videollama3,
)
from tests.model.training.data.importers.published.layouts import (
    Published,
    array,
    keyed,
    lines,
    parquet_with_json,
    table,
    tar,
)

SMALL = (56, 56)
NEXTGQA = ("4010", *(f"4010{number}" for number in range(1, 200)))
CLIP = "['0:00:01.5', '0:00:04']"
QA = "question,answer,qid,type,a0,a1,a2,a3,a4"


def turns(*values: str) -> list[dict[str, str]]:
    """A conversation of question, answer, question, ….."""
    return [{"from": ("human", "gpt")[number % 2], "value": value} for number, value in enumerate(values)]


IMAGE = {"id": 1, "image": "coco/1.png", "conversations": turns("<image>\nWhat?", "A kettle.", "Its colour?", "Red.")}
FILM = {"id": "v", "video": "a/v.mp4", "conversations": turns("Describe it.\n<video>", "A man sits.")}
PAIR = {"id": 2, "image": ["coco/1.png", "coco/2.png"], "conversations": turns("<image> <image>\nBoth?", "Yes.")}
TURNS = test_videollama3.TURNS
CLIPPED = {"video": "v.mp4", "fps": 2, "max_frames": 8, "start": 1.0, "end": 8.0, "conversations": TURNS}
STREAM = test_videollama3.STREAM | {"conversation": test_videollama3.SAID[1:]}
CHAT = [{"role": "user", "content": "What is <image>?"}, {"role": "assistant", "content": "A tag."}]
NARRATIONS = [test_ego4d.narration(13.5, "#C C opens a door"), test_ego4d.narration(3.2, "#O A man sits #Unsure")]
CLIPS = test_panda70m.ROW | {"timestamp": f"[{CLIP}, ['0:00:32.8', '0:00:40.0']]"}
SCENE = test_finevideo.film(test_finevideo.activity("00:00:02.500", "00:01:09.000"))
FINEVIDEO = SCENE | {"json": SCENE["json"] | {"duration_seconds": 70}}

PUBLISHED: Mapping[str, Published] = {
    "llava": Published(
        [IMAGE, FILM, PAIR], array(), 3, images={"coco/1.png": SMALL, "coco/2.png": SMALL}, films=["a/v.mp4"]
    ),
    "videollama3": Published([CLIPPED, STREAM], lines(), 2, films=["v.mp4"]),
    "vl3syn7m": Published(
        [{"image": "0/1.png", "caption": "A kettle."}], lines(), 1, {"0/1.png": SMALL}, auto="refused"
    ),
    "chat": Published([{"messages": CHAT}], lines(), 1),
    "valley": Published(
        [test_valley.entry("vatex/Ab-_efghijk_000010_000020.mp4")],
        array(),
        1,
        films=["vatex/Ab-_efghijk_000010_000020.mp4"],
        auto="llava",
    ),
    "videochat": Published([test_videochat.TWO], array(), 1, films=[test_videochat.FILM]),
    "videochat2": Published(
        [test_videochat2.entry(test_videochat2.CHOICE), test_videochat2.entry(test_videochat2.CAPTION, start=3.0)],
        array(),
        2,
        films=["abc/x.mp4"],
    ),
    "videochatgpt": Published([test_videochatgpt.FLAT], array(), 1, films=["v_AbCdEfGhIjK.mkv"]),
    "penguin-recap-i": Published(
        [test_penguin_recap_i.image_entry()], lines("part.jsonl.gz"), 1, images={"coco/17.jpg": SMALL}
    ),
    "penguin-recap-v": Published(test_penguin_recap_v.THREE, lines(), 3, films=["Set/a.mp4"], auto="llava"),
    "egoschema": Published([test_egoschema.ONE], keyed("u1"), 1, films=["u1.mp4"]),
    "nextqa": Published(
        [dict(zip(f"video,{QA}".split(","), "4010,how many dogs,2,7,DC,one,two,None,nan,".split(","), strict=True))],
        table(f"video,{QA}"),
        1,
        films=["4010.mp4"],
    ),
    "nextgqa": Published(
        [{"duration": 70, "location": {"7": [[1.0, 2.5], [7, 9]]}}],
        keyed("4010"),
        1,
        films=["4010.mp4"],
        options={"questions": "{folder}/val.csv"},
        tables={"val.csv": "video_id,question,qid\n" + "".join(f"{film},why did he sit,7\n" for film in NEXTGQA)},
    ),
    "llovi": Published(
        [["#C C lifts a lid", "#O X sits"]], keyed("u1"), 1, films=["u1.mp4"], auto="refused"
    ),  # its rows are lists
    "lavila": Published(
        [["u1", 10.5, 12.0, "#C C lifts a lid"], ["u1", 2.0, 4.0, ["C sits", "C rests"]]],
        lines(),
        3,
        films=["u1.mp4"],
        auto="refused",
    ),
    "ego4d": Published([{"narrations": NARRATIONS}], keyed("u1", "videos"), 1, films=["u1.mp4"]),
    "finevideo": Published([FINEVIDEO], parquet_with_json("json"), 2, films=["x.mp4"]),
    "sharegpt4video": Published(
        [test_sharegpt4video.entry("He sits.", "He stands.")], lines(), 2, films=["panda/x.mp4"]
    ),
    "imagebind-llm": Published(
        [{"url": "cc/b.png", "caption": "A dog, a cat."}],
        table("url,caption", separator="\t"),
        1,
        images={"cc/b.png": SMALL},
    ),
    "webvid": Published(
        [{"videoid": "1001", "duration": "PT00H01M10S", "page_dir": "1_50", "name": "Chef, in a kitchen, chops."}],
        table("videoid,contentUrl,duration,page_dir,name"),
        1,
        films=["1_50/1001.mp4"],
    ),
    "openvid": Published(
        [{"video": "a_1_0to152.mp4", "caption": "A man, in red, sits.", "fps": "1", "seconds": "70"}],
        table("video,caption,aesthetic score,frame,fps,seconds"),
        1,
        films=["a_1_0to152.mp4"],
    ),
    "koala36m": Published(
        [{"videoID": "x_1", "url": "u", "timestamp": CLIP, "caption": "A man sits.", "clarity": "0.9"}],
        table("videoID,url,timestamp,caption,clarity"),
        1,
        films=["x_1.mp4"],
    ),
    "panda70m": Published([CLIPS], table(",".join(CLIPS)), 2, films=["AbCdEfGhIjK.mp4"]),
    "internvid": Published(
        [test_internvid.CLIP | {"Start_timestamp": "00:00:02.500", "End_timestamp": "00:00:09.250"}],
        lines(),
        1,
        films=["AbCdEfGhIjK.mp4"],
    ),
    "minigpt4": Published(
        [{"image_id": "2", "caption": "A red kettle."}],
        array("annotations", name="filter_cap.json"),
        1,
        images={"2.jpg": SMALL},
    ),
    "captioned-tars": Published(
        [{"caption": "A dog.", "url": "https://example.org/0"}], tar("jpg", training_data.picture(0)), 1
    ),
}
