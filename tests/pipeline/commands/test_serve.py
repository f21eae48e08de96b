from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import UserError
from pipeline.commands.serve import _page
from tests.conftest import CommandLine


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--examples", "gone"], "--examples gone: no such folder"),
        (["--media", "gone"], "--media gone: no such folder"),
        (["--no-page", "--examples", "."], "--examples is for the page: leave out --no-page"),
    ],
)
def test_wrong_options_are_refused_before_a_model_is_read(vl3syn: CommandLine, options: list[str], line: str) -> None:
    done = vl3syn("serve", "no-model", *options)
    assert done.returncode == 1
    assert line in done.stderr


def test_api_is_served_alone_without_gradio(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("pipeline.commands.serve.find_spec", lambda name: None)
    monkeypatch.setattr("core.pretrained.find_spec", lambda name: None)
    with _page(True, None, True) as page:
        assert page is None
    assert "the API alone: pip install 'vl3syn[web]' brings the chat page" in capsys.readouterr().err
    with _page(False, None, True) as page:
        assert page is None
    with pytest.raises(UserError, match="the page needs the package gradio"), _page(True, str(tmp_path), True):
        pass
