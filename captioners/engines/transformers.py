"""Engine: any image chat model that transformers supports, in this process, on a GPU or a CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from PIL import Image

from captioners.engines.base import Answer, Engine, EngineConfig, Question, Sampling
from captioners.engines.finish import finished
from captioners.markup import one_line
from captioners.reasoning import is_mark
from core import pretrained
from core.errors import UserError
from core.precision import HasPrecision, device_and_dtype

if TYPE_CHECKING:
    import torch

    Inputs = Mapping[str, torch.Tensor]


class Transformers(HasPrecision, EngineConfig):
    """`AutoModelForImageTextToText`: InternVL in transformers' own layout (`OpenGVLab/InternVL3-8B-hf`) and others.

    InternVL2 needs code from its repository, which is never run here: use lmdeploy or a server.
    """

    packages: ClassVar = dict.fromkeys(("torch", "torchvision", "transformers"), "models")
    several_images: ClassVar = True

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
        with pretrained.loading(model, what):
            settings = auto.AutoConfig.from_pretrained(source, revision=commit, trust_remote_code=False)
            language = settings.get_text_config(decoder=True).model_type
            device, dtype = device_and_dtype(language, self.precision)
            processor = auto.AutoProcessor.from_pretrained(source, revision=commit, trust_remote_code=False)
            if not getattr(processor, "chat_template", None):
                raise UserError("its processor has no chat template: it is no chat model")
            if getattr(processor, "video_processor", None) and not getattr(processor, "image_processor", None):
                raise UserError("its processor takes videos only; take a model that takes images")
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
        identity = pretrained.sha256(folder.glob("*.safetensors")) if local else folder.name
        provenance = {"engine": "transformers", "weights": identity, "dtype": str(dtype).removeprefix("torch.")}
        provenance |= {"transformers": version("transformers"), "torch": version("torch")}
        return LocalModel(network, processor, sampling, provenance)


class LocalModel(Engine):
    """`Engine` of `Transformers`: threads tokenize and cut images into tiles; the model's thread pads and generates.

    A batch is generated at once. Questions whose images have other shapes are a batch of their own.
    """

    def __init__(self, network: Any, processor: Any, sampling: Sampling, provenance: Mapping[str, object]) -> None:
        self._network, self._processor, self.provenance = network, processor, provenance
        self._sampling = sampling
        ends = network.generation_config.eos_token_id
        self._pad = processor.tokenizer.pad_token_id or 0  # any token: the attention mask hides it
        self._ends = frozenset(ends if isinstance(ends, list) else [ends])
        # Special tokens are not text. But marks around reasoning are needed, and some tokenizers make them special.
        tokens = processor.tokenizer.added_tokens_decoder.items()
        self._silent = frozenset(id_ for id_, token in tokens if token.special and not is_mark(token.content))

        # A tokenizer keeps padding and truncation as state. The first call sets it, before threads share the tokenizer.
        self.prepare(Question(Image.new("RGB", (64, 64)), "?"))

    def prepare(self, question: Question) -> Inputs | Answer:
        """Return the model's inputs for one question, or an answer with the error of the model's processor."""
        try:
            inputs = self._processor.apply_chat_template(
                [_conversation(question)],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs={"padding": False},
            )
        except ValueError as error:
            return Answer(error=one_line(f"the model's processor refuses it: {error}"))
        return dict(inputs.to(dtype=self._network.dtype))

    def __call__(self, questions: Sequence[Inputs | Answer]) -> list[Answer]:
        answers = {row: prepared for row, prepared in enumerate(questions) if isinstance(prepared, Answer)}
        batches: dict[object, dict[int, Inputs]] = {}
        for row, prepared in enumerate(questions):
            if not isinstance(prepared, Answer):
                batches.setdefault(_shapes(prepared), {})[row] = prepared
        for batch in batches.values():
            tokens = self._generate(_collate(list(batch.values()), self._pad))
            for (row, inputs), generated in zip(batch.items(), tokens.tolist(), strict=True):
                answers[row] = self._answer(generated, inputs["input_ids"].shape[1])
        return [answers[row] for row in range(len(questions))]

    def _generate(self, inputs: Inputs) -> torch.Tensor:
        import torch

        how: dict[str, Any] = {"do_sample": False}
        if self._sampling.temperature:
            torch.manual_seed(self._sampling.seed)
            how = {"do_sample": True, "temperature": self._sampling.temperature, "top_p": self._sampling.top_p}
        with torch.inference_mode():
            moved = {name: tensor.to(self._network.device) for name, tensor in inputs.items()}
            tokens: torch.Tensor = self._network.generate(**moved, max_new_tokens=self._sampling.max_new_tokens, **how)
        return tokens[:, inputs["input_ids"].shape[1] :]

    def _answer(self, generated: list[int], prompt_tokens: int) -> Answer:
        end = next((position for position, token in enumerate(generated) if token in self._ends), None)
        said = generated if end is None else generated[:end]
        words = [token for token in said if token not in self._silent]
        text: str = self._processor.tokenizer.decode(words, skip_special_tokens=False)
        return finished(text, "length" if end is None else "eos", "transformers", prompt_tokens, len(said))


def _shapes(inputs: Inputs) -> object:
    """Return what two questions must have in common to be in one batch: names, and sizes beyond the first dimension."""
    return tuple((name, None if _is_text(inputs, name) else tensor.shape[1:]) for name, tensor in inputs.items())


def _is_text(inputs: Inputs, name: str) -> bool:
    """Return whether a tensor has one entry per token, (1, tokens, …), rather than per image or tile."""
    return inputs[name].shape[:2] == inputs["input_ids"].shape


def _collate(questions: Sequence[Inputs], pad: int) -> Inputs:
    """Join the inputs of questions: texts are padded on the left, images and tiles follow one another."""
    import torch

    longest = max(inputs["input_ids"].shape[1] for inputs in questions)

    def padded(inputs: Inputs, name: str) -> torch.Tensor:
        tensor = inputs[name]
        if not _is_text(inputs, name):
            return tensor
        blank = tensor.new_full((1, longest - tensor.shape[1], *tensor.shape[2:]), pad if name == "input_ids" else 0)
        return torch.cat([blank, tensor], dim=1)

    return {name: torch.cat([padded(inputs, name) for inputs in questions]) for name in questions[0]}


def _conversation(question: Question) -> list[dict[str, Any]]:
    content = [] if question.image is None else [_image(question.image)]
    for frame in question.frames:
        content += [_text(frame.time_text), _image(frame.image)]
    return [{"role": "user", "content": [*content, _text(question.prompt)]}]


def _image(image: Any) -> dict[str, Any]:
    return {"type": "image", "image": image}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}
