"""Run pieces of Python that come one after another in one namespace, as a notebook does.

Each line of stdin is a piece as a JSON string. What it prints is followed by a line with MARK and `ok` or `failed`.
"""

from __future__ import annotations

import json
import sys
import traceback

MARK = "\x1e"

if __name__ == "__main__":
    sys.path.insert(0, "")
    namespace: dict[str, object] = {"__name__": "__main__"}
    for line in sys.stdin:
        try:
            exec(compile(json.loads(line), "<page>", "exec"), namespace)
            result = "ok"
        except BaseException:
            traceback.print_exc(file=sys.stdout)
            result = "failed"
        print(f"{MARK}{result}", flush=True)
