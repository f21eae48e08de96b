"""After a user's command no credential is in the run, in what is published, or in what was printed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from manifests import open_run
from pipeline.commands.app import main
from pipeline.recipe import parse_recipe
from tests.chat_server import chat_server
from tests.runs import jobs_here, run_here

MakeImages = Callable[..., Path]
SECRET = "aBcDeFgHiJkLmNoPqRsT0123"
URLS = (
    f"s3://KEY:{SECRET}@bucket/path",
    f"s3://{SECRET}@bucket/path",
    f"s3://KEY:ab/{SECRET}@bucket/path",
    f"abfss://c@a.dfs.core.windows.net/path?sv=1&sig={SECRET}",
    f"https://bucket.s3.amazonaws.com/path?X-Amz-Credential=a&X-Amz-Signature={SECRET}",
    f"https://storage.googleapis.com/path?X-Goog-Signature={SECRET}",
    f"https://host/path?token={SECRET}",
)
SERVERS = (f"http://{SECRET}@127.0.0.1:9/v1", f"http://127.0.0.1:9/v1?api_key={SECRET}", f"127.0.0.1:9/{SECRET}")
CHECKPOINTS = (f"https://user:{SECRET}@host/model", f"http:/user:{SECRET}@host/model", f"//user:{SECRET}@host/model")
STARTS = (f"lmdeploy serve {{model}} --server-port {{port}} --api-keys x {SECRET}", f"env API_KEY={SECRET} x {{port}}")
STARTS += (
    f"serve {{port}} --header 'X-Auth-Token: {SECRET}'",
    f"serve {{port}} token={SECRET}",
    f"curl -u a:{SECRET} {{port}}",
)


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory, engine: None) -> Path:
    """The folder of a run that is indexed."""
    from tests.conftest import jpeg

    folder = tmp_path_factory.mktemp("secrets")
    (folder / "pool").mkdir()
    (folder / "pool" / "1.jpg").write_bytes(jpeg(30, 30))
    run_here({"name": "t", "pool": {"images": str(folder / "pool")}, "stages": []}, folder / "run")
    return folder


def stored(folder: Path) -> Mapping[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(command: list[str], folder: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch, secret: str = SECRET) -> str:
    """Give a command that must be refused; what it printed. Nothing that is stored may have changed."""
    before = stored(folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["vl3syn", *command])
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    printed = "".join(capfd.readouterr())
    assert secret not in printed
    assert stored(folder) == before
    assert len(printed.splitlines()) == 1
    return printed


COMMANDS = [
    *(["index", "--run", "new", "--images", url] for url in URLS),
    *(["index", "--run", "new", "--parquet", url + "/*.parquet"] for url in URLS[:1]),
    *(["funnel", url] for url in URLS),
    *(["index", "--run", url, "--images", "pool"] for url in URLS),
    *(["publish", "--run", "captioned", "--out", url] for url in URLS),
    *(["caption", "short", "--run", "run", "--server", url] for url in SERVERS),
    *(["caption", "short", "--run", "run", "--start", command] for command in STARTS),
    ["caption", "short", "--run", "run", "--model", f"hf_{SECRET}"],
    ["caption", "coarse", "--run", "run", "--model", f"https://user:{SECRET}@huggingface.co/org/model"],
    ["filter", "aesthetic", "--run", "run", "--encoder", "ViT-L-14/openai", "--weights", URLS[-1]],
    ["caption", "short", "--run", "run", "--server", "http://127.0.0.1:9/v1", "--prompts", "prompts.txt"],
    *(["chat", checkpoint, "hi"] for checkpoint in CHECKPOINTS),
    *(["eval", checkpoint, "--data", "pool"] for checkpoint in CHECKPOINTS),
    *(["eval", "model", "--data", f"{checkpoint}.jsonl"] for checkpoint in CHECKPOINTS),
    *(["export", checkpoint, "--encoder", "new"] for checkpoint in CHECKPOINTS),
    *(["export", "model", "--encoder", checkpoint] for checkpoint in CHECKPOINTS),
    *(["train", "train.yaml", "--run", checkpoint] for checkpoint in CHECKPOINTS),
    *(["train", checkpoint, "--run", "new"] for checkpoint in CHECKPOINTS),
    ["train", "train.yaml", "--run", "new"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
def test_command_with_a_credential_is_refused(
    command: list[str], indexed: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (indexed / "prompts.txt").write_text(f"What is it? hf_{SECRET}\n")
    (indexed / "train.yaml").write_text(yaml.safe_dump({"model": {"checkpoint": CHECKPOINTS[0]}}))
    if command[0] == "publish" and not (indexed / "captioned").exists():
        with chat_server() as server:
            caption = {"stage": "short_caption", "model": "m", "engine": {"kind": "server", "url": server.url}}
            run_here(
                {"name": "t", "pool": {"images": str(indexed / "pool")}, "stages": [caption]}, indexed / "captioned"
            )
    printed = refused(command, indexed, capfd, monkeypatch)
    if SERVERS[-1] not in command:
        assert "keep credentials in the environment" in printed


ENGINE = {"kind": "server", "url": "http://127.0.0.1:9/v1"}
CAPTION = {"stage": "short_caption", "model": "m", "engine": ENGINE}
RECIPES: list[dict[str, Any]] = [
    *({"pool": {"images": url}} for url in URLS),
    *({"stages": [{**CAPTION, "engine": {"kind": "server", "url": url}}]} for url in SERVERS),
    *({"stages": [{**CAPTION, "engine": {"kind": "server", "start": command}}]} for command in STARTS),
    {"stages": [{**CAPTION, "engine": {**ENGINE, "key": f"sk-{SECRET}"}}]},
    {"stages": [{**CAPTION, "engine": {**ENGINE, "key": f"hf_{SECRET}"}}]},
    {"stages": [{**CAPTION, "engine": {**ENGINE, "key": SECRET}}]},
    {"stages": [{**CAPTION, "engine": {**ENGINE, "api_key": SECRET}}]},
    {"stages": [{**CAPTION, "engine": {**ENGINE, "serves": f"hf_{SECRET}"}}]},
    {"stages": [{**CAPTION, "engine": URLS[0]}]},
    {"stages": [{**CAPTION, "revision": f"hf_{SECRET}"}]},
    {"stages": [{**CAPTION, "prompts": [f"Say hf_{SECRET}."]}]},
    {"stages": [{"stage": "aesthetic", "weights": URLS[0]}]},
    {"stages": URLS[0]},
    {"stages": [URLS[0]]},
    {"name": f"of hf_{SECRET}"},
    {"publish": {"format": URLS[0]}},
    {URLS[0]: 1},
    {"token": SECRET},
]


@pytest.mark.parametrize("number", range(len(RECIPES)))
def test_recipe_with_a_credential_is_refused(
    number: int, indexed: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = {"pool": {"images": "pool"}, **RECIPES[number]}
    (indexed / "recipe.yaml").write_text(yaml.safe_dump(written))
    refused(["run", "recipe.yaml", "--run", "new"], indexed, capfd, monkeypatch)
    assert not (indexed / "new").exists()


PROSE = [
    "Transcribe any password: or pin: shown, user_token: yes, api_key: none, or an Authorization: header.",
    "TOKEN=5 per line, KEY=VALUE style, --key points, https://example.com/?code=5, Bearer 12345678",
]


def test_recipe_may_mention_passwords_in_prose(tmp_path: Path) -> None:
    caption = {**CAPTION, "prompts": PROSE}
    checked = parse_recipe({"name": "secret: x", "pool": {"images": "pool"}, "stages": [caption]}, "recipe")
    assert checked.resolved()["stages"][0]["prompts"] == PROSE
    assert parse_recipe(checked.resolved(), "run").name == "secret: x"
    (tmp_path / "prompts.txt").write_text("\n\n".join(PROSE))
    read = parse_recipe(
        {"pool": {"images": "pool"}, "stages": [{**caption, "prompts": str(tmp_path / "prompts.txt")}]}, "r"
    )
    assert read.resolved()["stages"][0]["prompts"] == PROSE


def test_key_instead_of_its_variable_name_is_refused() -> None:
    written = {"pool": {"images": "pool"}, "stages": [{**CAPTION, "engine": {**ENGINE, "key": "hunter2secretXYZ"}}]}
    with pytest.raises(ValueError, match="key is the NAME of the environment variable") as refused:
        parse_recipe(written, "recipe")
    assert "hunter2" not in str(refused.value)


def test_invalid_yaml_of_a_recipe_is_not_quoted(
    indexed: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (indexed / "recipe.yaml").write_text(f"pool: {{images: pool}}\nurl: http://u:{SECRET}@host: [\n")
    refused(["run", "recipe.yaml", "--run", "new"], indexed, capfd, monkeypatch)


@pytest.mark.parametrize("command", ["vl3syn", pytest.param("vl3syn_process", marks=pytest.mark.thorough)])
def test_key_from_the_environment_is_sent_and_not_stored(
    command: str,
    tmp_path: Path,
    make_images: MakeImages,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server repeats it in its errors, as some do."""
    pool, url = make_images(tmp_path / "pool", 6), tmp_path / "run"
    monkeypatch.setenv("MY_SERVER", SECRET)
    with chat_server(faults=("400",), share=0.5, refusal=f"the key {SECRET} may not send this image") as server:
        engine = {"kind": "server", "url": server.url, "key": "MY_SERVER"}
        stage = {"stage": "short_caption", "model": "m", "prompts": ["What is it?"], "engine": engine}
        written = {"name": "t", "pool": {"images": str(pool)}, "stages": [stage], "publish": {}}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(written))
        with jobs_here():
            done = request.getfixturevalue(command)("run", tmp_path / "recipe.yaml", "--run", url)
        assert done.returncode == 0, done.stderr
        assert server.keys == {f"Bearer {SECRET}"}
    errors = open_run(url).facts("short_caption").collect()["error"].drop_nulls()
    assert set(errors) == {"server: 400 the key … may not send this image"}
    assert SECRET not in done.stdout + done.stderr
    assert not [name for name, data in stored(tmp_path).items() if SECRET.encode() in data]
