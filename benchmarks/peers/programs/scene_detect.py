"""PySceneDetect: the cuts of films by its two best detectors, as they are by default, decoded by PyAV as ours are.

python scene_detect.py OUT FILM…
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    from scenedetect import AdaptiveDetector, ContentDetector, SceneManager, open_video

    results: dict[str, dict[str, dict[str, object]]] = {}
    for name, detector in (("Adaptive", AdaptiveDetector), ("Content", ContentDetector)):
        for film in sys.argv[2:]:
            wall, cpu = time.perf_counter(), time.process_time()
            manager = SceneManager()
            manager.add_detector(detector())
            frames = manager.detect_scenes(open_video(film, backend="pyav"))
            cuts = [start.seconds for start, _ in manager.get_scene_list()[1:]]
            measured = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
            results.setdefault(name, {})[film] = {"cuts": cuts, "frames": frames, **measured}
    Path(sys.argv[1]).write_text(json.dumps(results))
