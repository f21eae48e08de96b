"""What a recipe can set about downloading, and what is refused."""

from __future__ import annotations

import pytest

from core.errors import UserError
from core.settings import parse
from pipeline.stages.download.settings import DownloadSettings


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ({"concurency": 4}, "unknown key 'concurency'; did you mean 'concurrency'"),
        ({"allow": ["10.0.0.1/8"]}, "allow: 10.0.0.1/8 has host bits set; write an address or a network"),
        ({"allow": ["localhost"]}, "allow: 'localhost' does not appear to be an IPv4 or IPv6 network"),
        ({"timeout": 0}, "timeout: Input should be greater than 0"),
        ({"user_agent": "a\r\nCookie: b"}, "user_agent: String should match pattern"),
        ({"user_agent": ""}, "user_agent: String should match pattern"),
        ({"longest": 512, "shortest": 256}, "give longest or shortest, not both"),
    ],
)
def test_setting_that_cannot_be_is_refused(written: dict[str, object], problem: str) -> None:
    with pytest.raises(UserError) as refused:
        parse(DownloadSettings, written, "engine")
    assert str(refused.value).startswith(f"engine: {problem}")


def test_opt_out_is_written_in_any_case() -> None:
    assert DownloadSettings(opt_out=(" NoAI ",)).opt_out == ("noai",)
