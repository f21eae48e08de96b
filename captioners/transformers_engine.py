"""An engine in this process: any image chat model that transformers knows, on a GPU or a CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from captioners.engine import Answer, Question, Sampling
from captioners.finish import finished
from captioners.reasoning import is_mark
from core.errors import UserError
from filters import weights


class Transformers(BaseModel):
    """`AutoModelForImageTextToText`: InternVL in transformers' own layout (`OpenGVLab/InternVL3-8B-hf`) and others.

    InternVL2 comes with code of its own, which is not run here: it needs lmdeploy or a server.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["transformers"] = "transformers"

    @property
    def gpus(self) -> int:
        return 1

    def ready(self, model: str, what: str, revision: str | None) -> None:
        """See that the model and the packages are there.

        Raises:
            UserError: With what is missing and how to get it.
        """
        for package in ("torch", "torchvision", "transformers"):
            weights.require(package, "models", what)
        weights.ready(model, what, revision=revision)

    def load(self, model: str, what: str, revision: str | None, sampling: Sampling) -> LocalModel:
        """Put the model on its device.

        Raises:
            UserError: It cannot be loaded, with the reason.
        """
        self.ready(model, what, revision)
        import transformers

        auto: Any = transformers
        local = weights.is_local(model)
        folder = (
            Path(model).expanduser() if local else Path(weights.hub_file(model, "config.json", what, revision)).parent
        )
        # One commit for configuration, weights and tokenizer, even if the branch moves meanwhile.
        source, commit = (str(folder), None) if local else (model, folder.name)
        device, dtype = weights.place()
        with weights.loading(model, what):
            processor = auto.AutoProcessor.from_pretrained(source, revision=commit, trust_remote_code=False)
            if not getattr(processor, "chat_template", None):
                raise UserError("its processor has no chat template: it is no chat model")
            network, found = auto.AutoModelForImageTextToText.from_pretrained(
                source,
                revision=commit,
                dtype=dtype,
                weights_only=True,
                output_loading_info=True,
                trust_remote_code=False,
            )
            if lacking := sorted(found["missing_keys"]):
                raise UserError(f"{len(lacking)} weights are missing, such as {lacking[0]}: it is another model")
            network = network.to(device).eval()
        processor.tokenizer.padding_side = "left"
        identity = weights.sha256(folder.glob("*.safetensors")) if local else folder.name
        made_by = {"engine": "transformers", "weights": identity, "dtype": str(dtype).removeprefix("torch.")}
        made_by |= {"transformers": version("transformers"), "torch": version("torch")}
        return LocalModel(network, processor, sampling, made_by)


class LocalModel:
    """`Engine` of `Transformers`: a batch is padded on the left and generated at once."""

    calls = 1

    def __init__(self, network: Any, processor: Any, sampling: Sampling, made_by: Mapping[str, object]) -> None:
        self._network, self._processor, self.made_by = network, processor, made_by
        self._sampling = sampling
        ends = network.generation_config.eos_token_id
        self._ends = frozenset(ends if isinstance(ends, list) else [ends])
        # Special tokens are no words. But reasoning is told by its marks, which some tokenizers have among them.
        tokens = processor.tokenizer.added_tokens_decoder.items()
        self._silent = frozenset(id_ for id_, token in tokens if token.special and not is_mark(token.content))

    def __call__(self, questions: Sequence[Question]) -> list[Answer]:
        if not questions:
            return []
        inputs = self._processor.apply_chat_template(
            [_conversation(question) for question in questions],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )
        tokens = self._generate(inputs)
        return [
            self._answer(generated, int(mask.sum()))
            for generated, mask in zip(tokens.tolist(), inputs["attention_mask"], strict=True)
        ]

    def _generate(self, inputs: Any) -> Any:
        import torch

        how: dict[str, Any] = {"do_sample": False}
        if self._sampling.temperature:
            torch.manual_seed(self._sampling.seed)
            how = {"do_sample": True, "temperature": self._sampling.temperature, "top_p": self._sampling.top_p}
        with torch.inference_mode():
            moved = inputs.to(self._network.device, self._network.dtype)
            tokens = self._network.generate(**moved, max_new_tokens=self._sampling.max_new_tokens, **how)
        return tokens[:, inputs["input_ids"].shape[1] :]

    def _answer(self, generated: list[int], prompt_tokens: int) -> Answer:
        end = next((place for place, token in enumerate(generated) if token in self._ends), None)
        said = generated if end is None else generated[:end]
        words = [token for token in said if token not in self._silent]
        text: str = self._processor.tokenizer.decode(words, skip_special_tokens=False)
        return finished(text, "length" if end is None else "eos", "transformers", prompt_tokens, len(said))


def _conversation(question: Question) -> list[dict[str, Any]]:
    content = [{"type": "image", "image": question.image}, {"type": "text", "text": question.prompt}]
    return [{"role": "user", "content": content}]
