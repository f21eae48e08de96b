"""Engine: any image chat model that transformers supports, in this process, on a GPU or a CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal

from captioners.engines.base import Answer, Engine, EngineConfig, Question, Sampling
from captioners.engines.finish import finished
from captioners.markup import one_line
from captioners.reasoning import is_mark
from core import pretrained
from core.errors import UserError


class Transformers(EngineConfig):
    """`AutoModelForImageTextToText`: InternVL in transformers' own layout (`OpenGVLab/InternVL3-8B-hf`) and others.

    InternVL2 needs code from its repository, which is never run here: use lmdeploy or a server.
    """

    packages: ClassVar = dict.fromkeys(("torch", "torchvision", "transformers"), "models")

    kind: Literal["transformers"] = "transformers"

    @property
    def gpus(self) -> int:
        return 1

    def check_available(self, model: str, what: str, revision: str | None) -> None:
        """Check that the model and the packages are available.

        Raises:
            UserError: They are not; the text says what is missing and how to get it.
        """
        super().check_available(model, what, revision)
        pretrained.check_available(model, what, revision=revision)

    def load(self, model: str, what: str, revision: str | None, sampling: Sampling) -> LocalModel:
        """Load the model on its device.

        Raises:
            UserError: It cannot be loaded; the text gives the reason.
        """
        self.check_available(model, what, revision)
        import transformers

        auto: Any = transformers
        local = pretrained.is_local(model)
        config = Path(model) / "config.json" if local else pretrained.hub_file(model, "config.json", what, revision)
        folder = Path(config).expanduser().parent
        # Use one commit for configuration, weights and tokenizer, even if the branch moves meanwhile.
        source, commit = (str(folder), None) if local else (model, folder.name)
        device, dtype = pretrained.device_and_dtype()
        with pretrained.loading(model, what):
            processor = auto.AutoProcessor.from_pretrained(source, revision=commit, trust_remote_code=False)
            if not getattr(processor, "chat_template", None):
                raise UserError("its processor has no chat template: it is no chat model")
            network, loading_info = auto.AutoModelForImageTextToText.from_pretrained(
                source,
                revision=commit,
                dtype=dtype,
                weights_only=True,
                output_loading_info=True,
                trust_remote_code=False,
            )
            if lacking := sorted(loading_info["missing_keys"]):
                raise UserError(f"{len(lacking)} weights are missing, such as {lacking[0]}: it is another model")
            network = network.to(device).eval()
        processor.tokenizer.padding_side = "left"
        identity = pretrained.sha256(folder.glob("*.safetensors")) if local else folder.name
        provenance = {"engine": "transformers", "weights": identity, "dtype": str(dtype).removeprefix("torch.")}
        provenance |= {"transformers": version("transformers"), "torch": version("torch")}
        return LocalModel(network, processor, sampling, provenance)


class LocalModel(Engine):
    """`Engine` of `Transformers`: a batch is padded on the left and generated at once."""

    def __init__(self, network: Any, processor: Any, sampling: Sampling, provenance: Mapping[str, object]) -> None:
        self._network, self._processor, self.provenance = network, processor, provenance
        self._sampling = sampling
        ends = network.generation_config.eos_token_id
        self._ends = frozenset(ends if isinstance(ends, list) else [ends])
        # Special tokens are not text. But marks around reasoning are needed, and some tokenizers make them special.
        tokens = processor.tokenizer.added_tokens_decoder.items()
        self._silent = frozenset(id_ for id_, token in tokens if token.special and not is_mark(token.content))

    def __call__(self, questions: Sequence[Question]) -> list[Answer]:
        if not questions:
            return []
        try:
            inputs = self._prepared(questions)
        except ValueError as error:  # one image of an unsupported shape makes the processor refuse the batch
            if len(questions) == 1:
                return [Answer(error=one_line(f"the model's processor refuses it: {error}"))]
            return [answer for question in questions for answer in self([question])]
        tokens = self._generate(inputs)
        return [
            self._answer(generated, int(mask.sum()))
            for generated, mask in zip(tokens.tolist(), inputs["attention_mask"], strict=True)
        ]

    def _prepared(self, questions: Sequence[Question]) -> Any:
        """Return the model's inputs for a batch: token ids and pixels."""
        return self._processor.apply_chat_template(
            [_conversation(question) for question in questions],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )

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
        end = next((position for position, token in enumerate(generated) if token in self._ends), None)
        said = generated if end is None else generated[:end]
        words = [token for token in said if token not in self._silent]
        text: str = self._processor.tokenizer.decode(words, skip_special_tokens=False)
        return finished(text, "length" if end is None else "eos", "transformers", prompt_tokens, len(said))


def _conversation(question: Question) -> list[dict[str, Any]]:
    content = [{"type": "image", "image": question.image}, {"type": "text", "text": question.prompt}]
    return [{"role": "user", "content": content}]
