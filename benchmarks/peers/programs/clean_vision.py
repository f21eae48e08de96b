"""CleanVision: exact duplicates by MD5 of the pixels, near ones by an equal perceptual hash, as it does by default.

python clean_vision.py FOLDER OUT
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

if __name__ == "__main__":
    from cleanvision import Imagelab

    folder, out = sys.argv[1:]
    lab = Imagelab(data_path=folder, verbose=False)
    lab.find_issues({"exact_duplicates": {}, "near_duplicates": {}}, n_jobs=os.cpu_count(), verbose=False)
    names = {Path(file).name for file in lab.issues.index}
    copies = {Path(file).name for found in lab.info["exact_duplicates"]["sets"] for file in sorted(found)[1:]}
    Path(out).write_text(json.dumps(sorted(names - copies)))
