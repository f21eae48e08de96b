"""What a recipe can set about downloading."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any

from pydantic import Field, field_validator, model_validator

from core.errors import UserError
from core.settings import Settings
from manifests.version import __version__

OPT_OUT = ("noai", "noimageai", "noindex", "noimageindex")
"""The directives of X-Robots-Tag that img2dataset respects by default."""

USER_AGENT = f"vl3syn/{__version__} (collects images for a dataset; img2dataset)"


class EngineSettings(Settings):
    """What fetches.

    Attributes:
        python: Python of the environment with img2dataset. Default: this one if it has img2dataset, else
            `.venv-download/bin/python` beside the sources, which `make setup-download` makes.
    """

    python: str | None = None


class DownloadSettings(Settings):
    """How images are fetched.

    Attributes:
        engine: What fetches.
        concurrency: URLs that a worker fetches at once. They may take 3 × `concurrency` × `max_bytes` of memory.
        per_host: Connections that a worker has to one host at once.
        min_pause: Seconds for which a host is left alone after a status 429 or 503. A longer Retry-After counts.
        max_pause: Seconds for which the URLs of a part wait for one host, all of its pauses together. URLs that would
            wait longer are not asked for in this run.
        timeout: Seconds for a URL, from its look-up to its last byte, redirects included.
        max_bytes: Longest image, in bytes.
        allow: Networks or addresses that may be connected to although they are not public.
        user_agent: Who asks, as servers see it. Name yourself, with a way to reach you.
        opt_out: Directives of X-Robots-Tag that are respected. An empty list respects none.
        proxies: Whether `http_proxy`, `https_proxy` and `no_proxy` of the environment are used.
        longest: Resize images whose longer side has more pixels than that to it. Images that are no JPEGs become
            JPEGs, even small ones. Default: the bytes stay as they were served.
        shortest: The same for the shorter side.
        quality: JPEG quality of images that are resized, 1 to 100.
    """

    engine: EngineSettings = EngineSettings()
    concurrency: int = Field(default=64, ge=1, le=1024)
    per_host: int = Field(default=4, ge=1, le=1024)
    min_pause: float = Field(default=1, ge=0, le=3600)
    max_pause: float = Field(default=30, ge=0, le=3600)
    timeout: float = Field(default=20, gt=0, le=3600)
    max_bytes: int = Field(default=32_000_000, ge=1, le=1_000_000_000)
    allow: tuple[str, ...] = ()
    user_agent: str = Field(default=USER_AGENT, pattern=r"^[!-~]([ -~]*[!-~])?$")
    opt_out: tuple[str, ...] = OPT_OUT
    proxies: bool = False
    longest: int | None = Field(default=None, ge=1)
    shortest: int | None = Field(default=None, ge=1)
    quality: int = Field(default=95, ge=1, le=100)

    @field_validator("allow")
    @classmethod
    def _check_networks(cls, allow: Sequence[str]) -> Sequence[str]:
        for network in allow:
            try:
                ip_network(network)
            except ValueError as error:
                raise UserError(f"{error}; write an address or a network, such as 10.0.0.0/8") from error
        return allow

    @field_validator("opt_out")
    @classmethod
    def _lower(cls, directives: Sequence[str]) -> Sequence[str]:
        return tuple(directive.strip().lower() for directive in directives)

    @model_validator(mode="after")
    def _check_resize(self) -> DownloadSettings:
        if self.longest and self.shortest:
            raise UserError("give longest or shortest, not both")
        return self

    def for_child(self) -> dict[str, Any]:
        """Return the settings of `fetching.child.Parts`."""
        resize = None
        if self.longest or self.shortest:
            mode = "keep_ratio_largest" if self.longest else "keep_ratio"
            resize = {"mode": mode, "size": self.longest or self.shortest, "quality": self.quality}
        others = {"engine", "concurrency", "longest", "shortest", "quality"}
        return {"fetch": self.model_dump(exclude=others), "threads": self.concurrency, "resize": resize}
