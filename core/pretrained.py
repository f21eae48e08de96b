"""Find a model's weights (a local path or the hub), check them, and hash them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from core.errors import UserError

NEVER_RUN = "which is never run: give a model whose type transformers knows"


def is_local(model: str) -> bool:
    """Return whether `model` is a path on this machine rather than a name on the hub."""
    return model.startswith(("/", "./", "../", "~")) or os.path.exists(model)


def require(package: str, extra: str, what: str) -> None:
    """Check that a package is installed, before anything imports it.

    Args:
        package: The package, as Python imports it.
        extra: The extra of vl3syn that installs it; empty: there is none.
        what: The stage, for the error.

    Raises:
        UserError: The package is not installed.
    """
    if find_spec(package) is None:
        install = f"pip install 'vl3syn[{extra}]'" if extra else "install it"
        raise UserError(f"{what} needs the package {package}: {install}")


def package_folder(package: str) -> Path:
    """Return the folder of an installed package, without importing it.

    Raises:
        UserError: The package is not installed.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise UserError(f"the package {package} is not installed")
    return Path(spec.origin).parent


def check_available(model: str, what: str, config: str = "config.json", revision: str | None = None) -> None:
    """Check that a model folder or a repository on the hub exists. No weights are loaded.

    Args:
        model: A local folder or a hub name, `organisation/model`.
        what: The stage, for the error.
        config: A file that every such model has.
        revision: Revision of the hub's repository.

    Raises:
        UserError: Something is missing; the text says what, and how to get it.
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
    """Return the local path of one file of a hub repository, from the cache if it is there, else downloaded.

    A cached file is used as it is, so that a moving branch does not change a run half way.

    Raises:
        UserError: The file is not available. It is raised within seconds, with the reason and what to do.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import HFValidationError, HTTPError, LocalEntryNotFoundError  # type: ignore[attr-defined]

    try:
        try:
            return str(hf_hub_download(repository, name, revision=revision, local_files_only=True))
        except LocalEntryNotFoundError:
            # This request has no retries. The downloader's retries need half a minute to report a missing network.
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

    reasons = {
        errors.GatedRepoError: "its terms must be accepted on the hub, and a token be in HF_TOKEN",
        errors.RepositoryNotFoundError: "there is no such repository, or it is private",
        errors.RevisionNotFoundError: "the repository has no such revision",
        errors.RemoteEntryNotFoundError: "the repository has no such file",
        errors.OfflineModeIsEnabled: "it is not in the cache, and HF_HUB_OFFLINE forbids to ask the hub",
    }
    known = next((text for kind, text in reasons.items() if isinstance(error, kind)), None)
    return known or f"it is not in the cache, and the hub does not answer ({' '.join(str(error).split())[:120]})"


def stored_bytes(model: str) -> int | None:
    """Return the bytes of a model's files on this machine: of its folder, or in the hub's cache; None: there are none.

    Args:
        model: A folder, a file, or a name on the hub. The network is not asked.
    """
    path = Path(model).expanduser()
    if not is_local(model):
        if find_spec("huggingface_hub") is None or not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
            return None
        from huggingface_hub.constants import HF_HUB_CACHE

        path = Path(HF_HUB_CACHE, f"models--{model.replace('/', '--')}", "blobs")
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) or None


def check_pinned(model: str, what: str, revision: str | None) -> None:
    """Check that nobody else can change a model whose code may run: it is a folder, or a commit of the hub.

    Raises:
        UserError: It is a name on the hub without a commit. A branch or a tag can move.
    """
    if not is_local(model) and not re.fullmatch("[0-9a-f]{40}", revision or ""):
        raise UserError(
            f"{what}: trust_remote_code runs Python code out of {model}: give `revision`, the commit that you have "
            "read (40 hex digits), or a folder"
        )


@contextmanager
def loading(model: str, what: str, code: str = NEVER_RUN) -> Iterator[None]:
    """Turn the many exceptions that libraries raise over broken weights into one line.

    Args:
        model: A local folder or a hub name.
        what: The stage, for the error.
        code: What to say of code in the model's folder, if the library refuses to run it.

    Raises:
        UserError: Loading failed; the text names the stage, the model and the reason.
    """
    try:
        yield
    except Exception as error:  # parsers may raise anything over the content of a folder; the cause is kept
        reason = " ".join(str(error).split())[:240]
        if "custom code" in reason:  # from transformers' message, which proposes to trust the code
            raise UserError(f"{what}: {model} needs code out of its own folder (auto_map), {code}") from error
        raise UserError(f"{what}: {model} cannot be loaded ({type(error).__name__}: {reason})") from error


def sha256(files: Iterable[str | Path]) -> str:
    """Return one hash over the content of files, in the order of their paths."""
    digest = hashlib.sha256()
    for path in sorted(map(Path, files)):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _whole(file: Path, what: str) -> None:
    """Check the length of a safetensors file against its header, to find a cut-off download without reading the data.

    Raises:
        UserError: The length differs, or it is no safetensors file.
    """
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
