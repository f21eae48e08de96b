"""Image embeddings by open_clip: unit vectors, computed once per image.

Later stages (aesthetic score, similarity, clusters, duplicates) read the stored embeddings.
CLIP: Radford et al. 2021, arXiv 2103.00020. The open weights: Cherti et al. 2023, arXiv 2212.07143.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL.Image import Image

from core.errors import BadSampleError
from core.images import decode
from core.precision import HasPrecision
from core.stages import ImageFacts, ImageStage
from filters.clip_text import ClipText
from filters.open_clip_encoder import LICENCES, OpenClipModel, check_encoder, dimensions, weights_of
from manifests.embeddings import embedding_column, from_matrix

if TYPE_CHECKING:
    import torch


class Clip(HasPrecision, ImageStage):
    """Image embeddings by CLIP's image tower.

    Attributes:
        encoder: `ARCHITECTURE/WEIGHTS` as open_clip lists them (`ViT-L-14/openai`, `ViT-B-32/laion2b_s34b_b79k`), a
            folder with `open_clip_config.json` and the weights, or `hf-hub:ORGANISATION/MODEL`. A file of weights alone
            is not accepted: it does not say which activation and preprocessing it was trained with.
        draft: Decode large JPEGs at a reduced scale, which is faster; never below twice the model's side.
            `benchmarks/draft.py` measures how much that changes an embedding. False: open_clip's own transform.
    """

    name: ClassVar = "clip"
    gpus: ClassVar = 1
    preload: ClassVar = ("open_clip",)
    encoder: str
    draft: bool = True

    @property
    def writes(self) -> pa.Schema:
        doc = "CLIP embedding of the image, of length 1"
        return pa.schema([embedding_column("image_embedding", dimensions(self.encoder), self.encoder, doc)])

    @property
    def models(self) -> Mapping[str, str | None]:
        return {self.encoder: LICENCES.get(self.encoder)}

    @property
    def model_files(self) -> Mapping[str, str]:
        return {self.encoder: weights_of(self.encoder)}

    def check_available(self) -> None:
        check_encoder(self.encoder, self.name)

    def load(self) -> ImageTower:
        return ImageTower(OpenClipModel.load(self.encoder, self.name, self.precision), self.draft)


class ImageTower(ImageFacts):
    """`ImageFacts` of `clip`: threads prepare uint8 pixels; normalisation and encoding run on the device.

    Two batches are under way: while the device encodes one, the other is stacked, copied and, afterwards, stored. On a
    GPU each has a stream of its own, so that copies run beside the encoding; on a CPU they take turns to encode.
    """

    calls = 2

    def __init__(self, model: OpenClipModel, draft: bool) -> None:
        import torch

        self._model, self.provenance = model, model.provenance
        # Split the transform: the steps on PIL images run in threads, the normalisation runs on the device.
        *on_image, _, normalize = model.transform.transforms
        self._on_image = on_image
        self._crops = any(type(step).__name__ == "CenterCrop" for step in on_image)
        mean, std = (torch.tensor(v, device=model.device).view(1, 3, 1, 1) for v in (normalize.mean, normalize.std))
        self._mean, self._std = mean, std
        size = model.network.visual.image_size
        self.side = 2 * max(size if isinstance(size, tuple | list) else (size,)) if draft else None
        self._encoding = Lock()
        self._streams: SimpleQueue[torch.cuda.Stream | None] = SimpleQueue()
        for _ in range(self.calls):
            self._streams.put(_new_stream(model.device))

    def prepare(self, image: Image) -> npt.NDArray[np.uint8]:
        """Resize and crop as open_clip does; uint8 of shape (side, side, 3)."""
        # A strip of 1 × 20,000 pixels would be enlarged to gigabytes before its centre is cropped: crop it before too.
        image = _middle(image) if self._crops else image
        for step in self._on_image:
            image = step(image)
        return np.asarray(image)

    def __call__(self, inputs: Sequence[npt.NDArray[np.uint8]]) -> pa.Table:
        import torch

        with torch.inference_mode(), self._stream():
            pixels = _stacked(inputs, self._model.device).to(self._model.device, non_blocking=True)
            with self._encoding:  # on a GPU this only queues the kernels
                vectors = self._encode(pixels)
            matrix = vectors.cpu().numpy()
        embeddings, errors = from_matrix(matrix)
        return pa.table({"image_embedding": embeddings, "error": pa.array(errors, pa.string())})

    @contextmanager
    def _stream(self) -> Iterator[None]:
        """Queue work on a stream that no other batch has; on a CPU this does nothing."""
        import torch

        stream = self._streams.get()
        try:
            with torch.cuda.stream(stream):
                yield
        finally:
            self._streams.put(stream)

    def _encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalise and encode pixels, uint8 (images, side, side, 3); float32 (images, dimensions)."""
        scaled = pixels.permute(0, 3, 1, 2).float() / 255
        vectors: torch.Tensor = self._model.network.encode_image(
            ((scaled - self._mean) / self._std).to(self._model.dtype)
        )
        return vectors.float()


def _stacked(images: Sequence[npt.NDArray[np.uint8]], device: torch.device) -> torch.Tensor:
    """Stack images of one size; for a GPU in memory that it copies from without the CPU."""
    import torch

    batch = torch.empty((len(images), *images[0].shape), dtype=torch.uint8, pin_memory=device.type == "cuda")
    np.stack(images, out=batch.numpy())
    return batch


def _new_stream(device: torch.device) -> torch.cuda.Stream | None:
    """Return a stream that waits for what a GPU has queued so far, such as the copy of the weights; None for a CPU."""
    import torch

    if device.type != "cuda":
        return None
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    return stream


def _middle(image: Image) -> Image:
    """Crop the centre, so that the longer side is at most four times the shorter side."""
    width, height = image.size
    most = 4 * min(width, height)
    if max(width, height) <= most:
        return image
    left, top = max(0, (width - most) // 2), max(0, (height - most) // 2)
    return image.crop((left, top, left + min(width, most), top + min(height, most)))


def clip_encoder(encoder: str) -> Callable[[bytes | str, str], tuple[list[float], npt.NDArray[np.float32]]]:
    """Return a function that embeds an image and a text, for the CLIPScore of `model.evaluate.evaluate`.

    Images use open_clip's own transform. All is computed in float32: a score should not depend on the machine.

    Args:
        encoder: `ARCHITECTURE/WEIGHTS` of open_clip or a folder, as for `Clip`.

    Returns:
        A function of an image (its bytes or path) and a text. Both vectors have length 1. It raises BadSampleError if
        the image cannot be read.

    Raises:
        UserError: The encoder cannot be loaded.
    """
    images = Clip(encoder=encoder, draft=False, precision="float32").load()
    texts = ClipText(encoder=encoder, precision="float32").load()

    def encode(image: bytes | str, text: str) -> tuple[list[float], npt.NDArray[np.float32]]:
        data = image if isinstance(image, bytes) else Path(image).read_bytes()
        table = images([images.prepare(decode(data, images.side))])
        if error := table["error"][0].as_py():
            raise BadSampleError(error)
        return table["image_embedding"][0].as_py(), texts.encode([text])[0]

    return encode
