"""Where a model's weights come from (a local path or the hub), what identifies them, and on what device they run."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from core.errors import UserError


def is_local(model: str) -> bool:
    """Whether `model` is a path of this machine rather than a name on the hub."""
    return model.startswith(("/", "./", "../", "~")) or os.path.exists(model)


def require(package: str, extra: str, what: str) -> None:
    """Refuse to go on without a package, before anything imports it.

    Raises:
        UserError: It is not installed.
    """
    if find_spec(package) is None:
        raise UserError(f"{what} needs the package {package}: pip install 'vl3syn[{extra}]'")


def ready(model: str, what: str, config: str = "config.json", revision: str | None = None) -> None:
    """See that a model folder, or a repository on the hub, is there; nothing is loaded.

    Args:
        model: A local folder or a hub name, `organisation/model`.
        what: The stage, for the error.
        config: The file that every such model has.
        revision: Of the hub's repository.

    Raises:
        UserError: With what is missing and how to get it.
    """
    if is_local(model):
        folder = Path(model).expanduser()
        if not (folder / config).is_file():
            raise UserError(f"{what}: {model} is not a model folder: it has no {config}; give a folder or a hub name")
        for file in sorted(folder.glob("*.safetensors")):
            _whole(file, what)
        return
    hub_file(model, config, what, revision)


def hub_file(repository: str, name: str, what: str, revision: str | None = None) -> str:
    """The local path of one file of a hub repository: from the cache, else fetched.

    What is in the cache is taken as it is, so that a branch that moves does not change a run half way.

    Raises:
        UserError: It cannot be had, with the reason and the way out, within seconds.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import HFValidationError, HTTPError, LocalEntryNotFoundError  # type: ignore[attr-defined]

    try:
        try:
            return str(hf_hub_download(repository, name, revision=revision, local_files_only=True))
        except LocalEntryNotFoundError:
            # Asked without the downloader's own retries, which take half a minute to say that there is no network.
            get_hf_file_metadata(hf_hub_url(repository, name, revision=revision), timeout=5)
            return str(hf_hub_download(repository, name, revision=revision))
    except HFValidationError as error:
        raise UserError(f"{what}: {repository!r} is neither a folder here nor a name on the hub") from error
    except (OSError, HTTPError) as error:  # not found, gated, offline, no network
        raise UserError(
            f"{what}: cannot get {name} of {repository}: {_reason(error)}; "
            f"give a local path, or fetch it where there is a network: hf download {repository}"
        ) from error


def _reason(error: Exception) -> str:
    from huggingface_hub import errors

    told = {
        errors.GatedRepoError: "its terms must be accepted on the hub, and a token be in HF_TOKEN",
        errors.RepositoryNotFoundError: "there is no such repository, or it is private",
        errors.RevisionNotFoundError: "the repository has no such revision",
        errors.RemoteEntryNotFoundError: "the repository has no such file",
        errors.OfflineModeIsEnabled: "it is not in the cache, and HF_HUB_OFFLINE forbids to ask the hub",
    }
    known = next((text for kind, text in told.items() if isinstance(error, kind)), None)
    return known or f"it is not in the cache, and the hub does not answer ({' '.join(str(error).split())[:120]})"


@contextmanager
def loading(model: str, what: str) -> Iterator[None]:
    """Turn the many ways in which libraries refuse broken weights into one line.

    Raises:
        UserError: Naming the stage, the model and the reason.
    """
    try:
        yield
    except Exception as error:  # parsers of whatever lies in a folder fail in every way there is; the cause is kept
        reason = " ".join(str(error).split())[:240]
        if "custom code" in reason:  # transformers' words; it would propose to trust it
            raise UserError(
                f"{what}: {model} needs code out of its own folder (auto_map), which is never run: give a model whose "
                "type transformers knows"
            ) from error
        raise UserError(f"{what}: {model} cannot be loaded ({type(error).__name__}: {reason})") from error


def sha256(files: Iterable[str | Path]) -> str:
    """One hash over the content of files, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(map(Path, files)):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def place() -> tuple[Any, Any]:
    """The device, and the type a model runs fastest in: bfloat16 or float16 on CUDA that has it, else float32."""
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu"), torch.float32
    major, _ = torch.cuda.get_device_capability()
    return torch.device("cuda"), torch.bfloat16 if major >= 8 else torch.float16 if major == 7 else torch.float32


def _whole(file: Path, what: str) -> None:
    """The header of a safetensors file says how long it must be: finds a download that stopped, without reading it."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        try:
            header = json.loads(opened.read(length)) if length < size else None
        except ValueError:
            header = None
    ends = [entry["data_offsets"][1] for name, entry in (header or {}).items() if name != "__metadata__"]
    if header is None or 8 + length + max(ends, default=0) != size:
        raise UserError(f"{what}: {file} is cut off or no safetensors file; fetch it again")
