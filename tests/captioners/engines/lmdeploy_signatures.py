"""Our calls against the signatures of the lmdeploy that is installed; run by test_recaption, in lmdeploy's environment.

It imports captioners/engines/lmdeploy.py's own functions, so that what is checked is what is called. Nothing is loaded:
that takes a GPU.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import sys
import types
from pathlib import Path

import lmdeploy

sys.path.insert(0, str(Path(__file__).parents[2]))
for name in ("filters", "core.pretrained"):  # the engine's module needs nothing else of ours
    sys.modules.setdefault(name, types.ModuleType(name))
sys.modules["filters"].weights = sys.modules["core.pretrained"]

from captioners.engines.base import Question, Sampling  # noqa: E402
from captioners.engines.lmdeploy import LmdeployEngine, generation  # noqa: E402

checked = 0

config = generation(Sampling(64, 0.7, 0.9, 5))
assert (config.max_new_tokens, config.do_sample, config.temperature, config.top_p, config.random_seed) == (
    64,
    True,
    0.7,
    0.9,
    5,
)
assert generation(Sampling(64, 0.0, 1.0, 0)).do_sample is False
checked += 2

settings = lmdeploy.TurbomindEngineConfig(tp=2, session_len=8192, revision=None)
assert (settings.tp, settings.session_len) == (2, 8192)
inspect.signature(lmdeploy.pipeline).bind("model", backend_config=settings, trust_remote_code=True)
checked += 2

Pipeline = sys.modules["lmdeploy.pipeline"].Pipeline
inspect.signature(Pipeline.__call__).bind(None, [("prompt", "image")], gen_config=config)
checked += 1

Response = importlib.import_module("lmdeploy.messages").Response
fields = {field.name for field in dataclasses.fields(Response)}
assert {"text", "finish_reason", "input_token_len", "generate_token_len", "error_message"} <= fields
checked += 1

responses = [Response("a cat", 3, 100, "stop"), Response("a", 64, 100, "length"), Response("", 0, 0, "error")]
answers = LmdeployEngine(lambda questions, gen_config: responses, config, 8, {})([Question(b"", "?")] * 3)
assert [(a.text, a.cut, a.prompt_tokens, a.tokens) for a in answers[:2]] == [
    ("a cat", False, 100, 3),
    ("a", True, 100, 64),
]
assert answers[2].error == "lmdeploy: the answer broke off (finish_reason error)"
assert answers[2].retry
checked += 1

prompts = importlib.import_module("lmdeploy.serve.processors").MultimodalProcessor.format_prompts(
    [("What is it?", __import__("PIL.Image", fromlist=["Image"]).new("RGB", (8, 8)))]
)
assert {part["type"] for part in prompts[0][0]["content"]} == {"text", "image_data"}
checked += 1

print(json.dumps({"lmdeploy": lmdeploy.__version__, "checked": checked}))
