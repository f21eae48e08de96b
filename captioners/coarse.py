"""Coarse captions by BLIP-2 or BLIP: one short sentence per image, to filter by.

VL3-Syn7M makes coarse captions with BLIP-2 and filters by their CLIP similarity to the image (VideoLLaMA 3, arXiv
2501.13106, section 2.3); the paper names neither the variant nor the prompt. BLIP-2: Li et al. 2023, arXiv 2301.12597;
BLIP: Li et al. 2022, arXiv 2201.12086.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pyarrow as pa
from PIL.Image import Image
from pydantic import Field

from captioners.prompts import check_prompts
from core import pretrained
from core.errors import UserError
from core.precision import HasPrecision, device_and_dtype
from core.stages import ImageFacts, ImageStage
from manifests.schemas import ERROR, column

if TYPE_CHECKING:
    import torch

_CLASSES = {"blip-2": "Blip2ForConditionalGeneration", "blip": "BlipForConditionalGeneration"}
"""The class of transformers that loads each supported `model_type`."""

_LICENCES = {
    "Salesforce/blip2-opt-2.7b": "MIT",
    "Salesforce/blip-image-captioning-base": "BSD-3-Clause",
    "Salesforce/blip-image-captioning-large": "BSD-3-Clause",
}

_EMPTY = "empty caption: the model ended it before its first word"


class CoarseCaption(HasPrecision, ImageStage):
    """A short caption of each image, by greedy decoding.

    Attributes:
        model: A name on the hub (`Salesforce/blip2-opt-2.7b`, `Salesforce/blip2-flan-t5-xl`,
            `Salesforce/blip-image-captioning-large`) or a folder in the same layout.
        revision: Branch, tag or commit of the hub's repository.
        prompt: Text that the caption continues, such as `a photo of`. It is not part of the caption.
        max_new_tokens: Largest length of a caption, in tokens of the model.
        cache_implementation: The memory of earlier tokens. `dynamic` grows; `static` has its full size at once, so
            that transformers compiles the decoding of a token on a GPU. BLIP-2 only.
    """

    name: ClassVar = "coarse_caption"
    fingerprint_exclude: ClassVar = ("cache_implementation", "precision")
    writes: ClassVar = pa.schema(
        [column("coarse_caption", pa.string(), "Coarse caption by BLIP-2 or BLIP: one short sentence")]
    )
    packages: ClassVar = dict.fromkeys(("torch", "torchvision", "transformers"), "models")
    gpus: ClassVar = 1
    preload: ClassVar = ("torch", "transformers")

    model: str = "Salesforce/blip2-opt-2.7b"
    revision: str | None = None
    prompt: str = Field(default="", max_length=200)
    max_new_tokens: int = Field(default=30, ge=1, le=256)
    cache_implementation: Literal["dynamic", "static"] = "dynamic"

    @property
    def models(self) -> Mapping[str, str | None]:
        return {self.model: _LICENCES.get(self.model)}

    def check_settings(self) -> None:
        """Refuse a prompt with control tokens.

        Raises:
            UserError: The prompt has a control token.
        """
        check_prompts([self.prompt], f"{self.name}: prompt")

    def check_available(self) -> None:
        """Check that the model is available and of a supported type.

        Raises:
            UserError: It is not; the text says what is missing and how to get it.
        """
        super().check_available()
        pretrained.check_available(self.model, self.name, revision=self.revision)
        self._class()

    def load(self) -> Captioner:
        """Load the model on its device.

        Raises:
            UserError: It cannot be loaded; the text gives the reason.
        """
        self.check_available()
        import transformers

        auto: Any = transformers
        config = self._config()
        local = pretrained.is_local(self.model)
        # Use one commit for configuration, weights and tokenizer, even if the branch moves meanwhile.
        source, revision = (str(config.parent), None) if local else (self.model, config.parent.name)
        with pretrained.loading(self.model, self.name):
            settings = auto.AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
            device, dtype = device_and_dtype(settings.text_config.model_type, self.precision)
            processor = auto.AutoProcessor.from_pretrained(source, revision=revision, trust_remote_code=False)
            # Safetensors if available, else a pickle, of which only tensors are read.
            network, loading_info = getattr(auto, self._class()).from_pretrained(
                source,
                revision=revision,
                dtype=dtype,
                weights_only=True,
                output_loading_info=True,
                trust_remote_code=False,
            )
            _complete(network, loading_info["missing_keys"], processor.tokenizer)
            words = processor.tokenizer(self.prompt, add_special_tokens=False)["input_ids"]
            start, echoed = _start(network.config, words)
            network = network.to(device).eval()
        identity = _local_weights(config.parent) if local else config.parent.name
        provenance = {"weights": identity, "dtype": str(dtype).removeprefix("torch.")}
        provenance |= {"transformers": version("transformers"), "torch": version("torch")}
        generation: dict[str, object] = {"max_new_tokens": self.max_new_tokens, "num_beams": 1, "do_sample": False}
        if self.cache_implementation == "static":
            generation["cache_implementation"] = "static"
        return Captioner(network, processor, start, echoed, generation, provenance)

    def _config(self) -> Path:
        """The model's `config.json`, in the folder or in the hub's cache."""
        if pretrained.is_local(self.model):
            return Path(self.model).expanduser() / "config.json"
        return Path(pretrained.hub_file(self.model, "config.json", self.name, self.revision))

    def _class(self) -> str:
        path = self._config()
        with pretrained.loading(self.model, self.name):
            kind = json.loads(path.read_text()).get("model_type")
        if kind not in _CLASSES:
            known = " and ".join(_CLASSES)
            raise UserError(f"{self.name}: {self.model} is a model of type {kind}; supported types are {known}")
        if kind == "blip" and self.cache_implementation == "static":
            raise UserError(f"{self.name}: {self.model}: transformers has no static cache for BLIP; take dynamic")
        return _CLASSES[kind]


class Captioner(ImageFacts):
    """`ImageFacts` of `coarse_caption`.

    Attributes:
        side: Twice the model's own side, in pixels, so that an image decoded at a reduced scale is still scaled down.
        provenance: Commit or hash of the weights, and versions of the libraries.
    """

    def __init__(
        self,
        network: Any,
        processor: Any,
        start: Sequence[int],
        echoed: int,
        generation: Mapping[str, object],
        provenance: Mapping[str, object],
    ) -> None:
        self._network, self._processor = network, processor
        self._start, self._echoed, self._generation = start, echoed, generation
        self.provenance = provenance
        self.side = 2 * max(filter(None, dict(processor.image_processor.size).values()))

    def prepare(self, image: Image) -> torch.Tensor:
        """Resize and normalise with the model's processor: (3, model's side, model's side), about -2 to 3.

        The numbers have the model's float type, which is half as many bytes on a GPU.
        """
        pixels: torch.Tensor = self._processor.image_processor(image, return_tensors="pt")["pixel_values"][0]
        return pixels.to(self._network.vision_model.dtype)

    def __call__(self, inputs: Sequence[torch.Tensor]) -> pa.Table:
        """Return captions of a batch, which may be empty. All images share the start tokens, so nothing is padded."""
        texts = self._generate(inputs) if inputs else []
        captions = [" ".join(text.split()) or None for text in texts]
        errors = [None if caption else _EMPTY for caption in captions]
        return pa.table(
            [pa.array(captions, pa.string()), pa.array(errors, ERROR.type)], schema=CoarseCaption.writes.append(ERROR)
        )

    def _generate(self, inputs: Sequence[torch.Tensor]) -> list[str]:
        import torch

        network = self._network
        with torch.inference_mode():
            # BLIP modifies its input ids, so they are created for each call.
            start = torch.tensor([self._start] * len(inputs), device=network.device)
            tokens = network.generate(
                pixel_values=torch.stack(list(inputs)).to(network.device),
                input_ids=start,
                attention_mask=torch.ones_like(start),
                **self._generation,
            )
        texts: list[str] = self._processor.tokenizer.batch_decode(tokens[:, self._echoed :], skip_special_tokens=True)
        return texts


def _complete(network: Any, missing: Iterable[str], tokenizer: Any) -> None:
    """Refuse an incomplete checkpoint: transformers would fill in random weights or an empty tokenizer.

    Raises:
        UserError: Weights or tokens are missing; the text says which.
    """
    lacking = sorted(name for name in missing if not name.endswith((".bias", "position_ids")))
    if lacking:
        raise UserError(f"{len(lacking)} weights are missing, such as {lacking[0]}: it is no captioner")
    known, size = len(tokenizer), network.config.text_config.vocab_size
    if known < size / 2:
        raise UserError(f"its tokenizer knows {known} of {size} tokens; are its files there?")


def _start(config: Any, words: list[int]) -> tuple[list[int], int]:
    """Return the token ids that generation starts from, and how many of them the output repeats.

    The ids are those of `processor(images, text)`. But whether a tokenizer adds special tokens depends on its files and
    on its class, which transformers 5 chooses by the repository's name too. So they are added here explicitly.

    Raises:
        UserError: The configuration is older than BLIP-2's image token.
    """
    text = config.text_config
    if config.model_type == "blip":
        start = [text.bos_token_id, *words, text.sep_token_id]  # `generate` drops the last id
        return start, len(start) - 1
    if config.image_token_index is None:
        raise UserError("its config.json has no image_token_index; take a newer revision")
    image = [config.image_token_index] * config.num_query_tokens
    if text.is_encoder_decoder:  # Flan-T5: the prompt goes into the encoder, the output is the decoder's alone
        return [*image, *words, text.eos_token_id], 0
    start = [*image, text.bos_token_id, *words]
    return start, len(start)


def _local_weights(folder: Path) -> str:
    return pretrained.sha256(list(folder.glob("*.safetensors")) or folder.glob("*.bin"))
