"""What looks like a credential is refused without being repeated, and taken out of messages; what does not stays."""

from __future__ import annotations

import time
from itertools import product
from urllib.parse import quote

import pytest

from core.errors import UserError
from core.secrets import check_variable_name, is_secret_name, redact, refuse_credentials, refuse_credentials_within

SECRET = "Zq7/xW+3kL9pRt2v"
HF = "hf_aBcDeFgHiJkLmNoPqRsTuVwXyZ01234567"

IN_FRONT_OF_HOSTS = [
    f"{scheme}://{user}@host.example/path"
    for scheme, user in product(
        ("http", "https", "HTTP", "s3", "gs", "postgres", "simplecache::s3", "ftp", "abfss", "sftp", "hdfs"),
        ("USER:{}", ":{}", "KEY:a@{}"),
    )
]
USERS_ALONE = [f"{scheme}://{{}}@host.example:80/v1" for scheme in ("http", "https", "s3", "gs")]
PARAMETERS = (
    "api_key apikey api-key apiKey API_KEY key access_key access-key-id secret secret_key secretAccessKey client_secret"
    " token access_token auth_token hf-token sas_token session-token refresh_token sig signature Signature password"
    " passwd pwd pass X-Amz-Signature X-Amz-Credential X-Amz-Security-Token X-Goog-Signature X-Goog-Credential"
    " AWSAccessKeyId GoogleAccessId account_key subscription-key x-functions-key code X%2DAmz%2DSignature jwt auth"
).split()
IN_PARAMETERS = [f"https://host/v1?a=1&{name}={{}}&b=2" for name in PARAMETERS]
IN_PARAMETERS += [f"{scheme}://bucket/path{mark}sig={{}}" for scheme in ("s3", "abfss", "gs") for mark in "?#;&"]
OPTIONS = (
    "--api-key --api-keys --api_key --apikey --admin-api-key --hf-token --token --password --secret-key --hf_token"
)
IN_COMMANDS = [f"serve {{{{model}}}} {o}{b}{{}} --port {{{{port}}}}" for o, b in product(OPTIONS.split(), (" ", "="))]
IN_COMMANDS += [
    "serve --api-keys a {} --tp 2",
    "env VLLM_API_KEY={} serve",
    "HF_TOKEN={} serve",
    'serve --api-key "{}"',
]
IN_COMMANDS += ["curl -H 'Authorization: Bearer {}'", "curl -H 'X-Api-Key: {}'", 'serve --x \'{{"api_key": "{}"}}\'']
IN_COMMANDS += [
    "serve --header 'X-Auth-Token: {}'",
    "serve --header 'Cookie: session={}; b=c'",
    "serve --header 'Cookie: b=c; session={}'",
    "serve --wandb-key {}",
    "serve --env OTEL_HEADERS='authorization=Basic {}'",
    "curl -u user:{} {{{{port}}}}",
    "curl --proxy-user 'user:{}'",
    """serve --config '{{{{"token": "{}"}}}}'""",
    """serve --config {{{{"apikey":"{}"}}}}""",
    r"""serve --config {{{{\"token\":\"{}\"}}}}""",
    """serve --config '{{{{"apiKey": ["{}"]}}}}'""",
]
SINGLE_WORDS = ["serve token={}", "serve a secret={} b", "serve --config '{{{{token: {}}}}}'", "env PASSWORD={} serve"]
ODD_SLASHES = ["http:/u:{}@host/x", "https:///u:{}@host/x", "//user:{}@host/share", "x --from=//user:{}@host/share"]
BY_FORM = [
    HF,
    f"models/{HF}/x",
    "sk-aBcDeFgHiJkLmNoPqRs",
    "sk-proj-aB_cD-eFgHiJkLmN",
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_aBcDeFgHiJkLmNoPqRsTuVwXyZ0123456789",
    "AIzaSyA-aBcDeFgHiJkLmNoPqRsTuVwXyZ0123",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.abc",
]
HARMLESS = [
    "s3://bucket/path?region=us-east-1&endpoint_override=http%3A%2F%2F127.0.0.1%3A9000&scheme=http",
    "s3://bucket/path@2x.png",
    "s3://bucket/a:b/c@d",
    "s3://bucket/token=abc/password=x/part-0.parquet",
    "gs://anonymous@bucket/x",
    "abfss://container@account.dfs.core.windows.net/path",
    "hdfs://user@namenode:8020/x",
    "http://127.0.0.1:23333/v1",
    "http://[::1]:8000/v1",
    "http://h:80/v1/a@b",
    "https://host/a?w=300&page=2&next_token=3&max_tokens=9",
    "vllm serve {model} --port {port} --max-tokens 96 --tokenizer some/tokenizer --tokenizer-mode auto",
    "lmdeploy serve api_server {model} --server-name 127.0.0.1 --server-port {port} --tp 2 --model-name {model}",
    "sglang --model-path {model} --port {port} --max-total-tokens 9 --image-token x --ssl-keyfile k.pem --eos-id 2",
    "CUDA_VISIBLE_DEVICES=0 TOKENIZERS_PARALLELISM=false serve --hf-token --port {port}",
    "sh -c 'exec lmdeploy serve api_server {model} --api-keys \"$OPENAI_API_KEY\" --server-port {port}'",
    "serve --api-keys ${SERVER_KEY} --port {port}",
    "OpenGVLab/InternVL2-8B",
    "acme/my-token-model",
    "acme/secret-garden-key-7B",
    "hf-internal-testing/tiny-random",
    "hf_checkpoints/run-2024",
    "mask-rcnn/sk-learn-something-long-name",
    "/data/password=1/key.jpg",
    "What is the key in this picture? The password? Answer as key=value, code: 5, token: <image>.",
    "user@host:path",
    "C:/photos@2x/a",
    "host:/export/a:b@c",
    "file:///home/me@work/a",
    "hdfs:///data/me@work/a",
    "//server/share/a@b",
    "/data/my token=5/x",
    "photos/cookie=1/x",
    "images of Secret=Garden",
]
HARMLESS_COMMANDS = [
    "env HF_TOKEN=${HF_TOKEN} serve --header 'X-Auth-Token: $TOKEN' --token <token>",
    r"""sh -c "HF_TOKEN=\"$HF_TOKEN\" serve --api-key \"$KEY\" --config '{\"token\": \"$KEY\"}'" """,
    "docker run -u 1000:1000 -v /a:/b image --user 0:0",
    "sh -c 'docker run -u $(id -u):$(id -g) image'",
    """serve --config '{"token": "${TOKEN}", "key": "name", "eos_token": "</s>", "max-tokens": 5}'""",
    """serve --limit-mm-per-prompt '{"image": 4}' --sort-key name --pad-token-id 0 --hash-key sha256""",
    "serve --x http://127.0.0.1:{port}/v1 --tokenizer=a --secrets-dir /run -u --user me",
]
HARMLESS_PROSE = [
    "Transcribe any password: or pin: shown",
    "Extract the password: field if shown.",
    "Use user_token: yes if a badge is seen.",
    "The image has client_secret: text?",
    "Mention Authorization: headers if seen.",
    "Output api_key: none when nothing.",
    "KEY=VALUE style",
    "TOKEN=5 per line",
    "MAX_TOKENS=50 API_KEY=unknown",
    "Describe --style vivid and --key points",
    "See https://example.com/?code=5",
    "As https://example.com/?token=your_token_stands_here or http://me@host",
    "Bearer 12345678 shown?",
    'Answer as {"secret": "...", "token": "5"}; a Cookie: is a biscuit, -u a:b',
]


def fill(template: str, secret: str) -> str:
    return (
        template.replace("{{model}}", "\0")
        .replace("{}", secret)
        .replace("\0", "{model}")
        .replace("{{", "{")
        .replace("}}", "}")
    )


TEMPLATES = [*IN_FRONT_OF_HOSTS, *USERS_ALONE, *IN_PARAMETERS, *IN_COMMANDS, *ODD_SLASHES]


@pytest.mark.parametrize("template", TEMPLATES)
def test_credentials_are_refused_and_never_repeated(template: str) -> None:
    secrets = [SECRET, quote(SECRET, safe=""), "plainsecret", "1234567"]
    for secret in secrets[template in USERS_ALONE :]:  # a slash in a user alone begins the path
        text = fill(template, secret)
        with pytest.raises(UserError, match="keep credentials in the environment") as refused:
            refuse_credentials(text, "url")
        for said in (str(refused.value), redact(text), redact(f"no server at {text} (timeout)"), redact(repr(text))):
            assert secret not in said
            assert secret.partition("/")[2] not in said or "/" not in secret


@pytest.mark.parametrize("template", SINGLE_WORDS)
def test_option_with_a_one_word_secret_name_is_refused(template: str) -> None:
    with pytest.raises(UserError, match="keep credentials in the environment") as refused:
        refuse_credentials(fill(template, SECRET), "start", "command")
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("text", BY_FORM)
def test_tokens_are_recognised_by_their_form(text: str) -> None:
    for around in ("{}", "org/{}", "it said: {}.", "'{}'", "x={}"):
        with pytest.raises(UserError) as refused:
            refuse_credentials(around.format(text), "model")
        assert text not in str(refused.value)
        assert text not in redact(around.format(text))


@pytest.mark.parametrize("text", HARMLESS)
def test_texts_without_credentials_stay_as_they_are(text: str) -> None:
    refuse_credentials(text, "setting")
    assert redact(text) == text


@pytest.mark.parametrize("text", HARMLESS_COMMANDS)
def test_commands_without_credentials_stay_as_they_are(text: str) -> None:
    refuse_credentials(text, "start", "command")
    assert redact(text) == text


@pytest.mark.parametrize("text", HARMLESS_PROSE)
def test_prose_may_mention_credentials(text: str) -> None:
    refuse_credentials(text, "prompt", "prose")


@pytest.mark.parametrize(
    "text",
    [
        f"Say {HF}.",
        "As at https://user:hunter2@host/x",
        "As at http:/user:hunter2@host/x",
        f"See https://b.s3.amazonaws.com/x?X-Amz-Signature={'0a' * 32}",
        "See https://a.blob.core.windows.net/x?sv=1&sig=0123456789abcdefghij%3D",
    ],
)
def test_prose_with_a_credential_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="keep credentials in the environment"):
        refuse_credentials(text, "prompt", "prose")


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "KEY", "_K2", "my_key", "hunter2secretXYZ"])
def test_names_of_variables_are_accepted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "hunter2secretXYZ":  # whatever it is called, if it is set
        monkeypatch.setenv(name, "x")
    check_variable_name(name)


@pytest.mark.parametrize("name", ["hunter2secretXYZ", "plainsecret", "A" * 41, "AKIAIOSFODNN7EXAMPLE", HF, "a-b", ""])
def test_value_that_is_not_a_variable_name_is_not_repeated(name: str) -> None:
    with pytest.raises(UserError, match="key is the NAME of the environment variable") as refused:
        check_variable_name(name)
    assert not name or name not in str(refused.value)


def test_credential_of_a_url_within_a_url_is_refused() -> None:
    text = "s3://b/p?endpoint_override=http%3A%2F%2Fuser%3Ahidden1%40host%3A9000"
    with pytest.raises(UserError) as refused:
        refuse_credentials(text, "run")
    assert "hidden1" not in str(refused.value)
    assert "hidden1" not in redact(text)


def test_message_suggests_the_variable() -> None:
    for text, variable in (
        ("s3://KEY:SECRET@b", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ("http://USER@h", "OPENAI_API_KEY"),
        ("serve --api-keys x", "VLLM_API_KEY"),
        (HF, "HF_TOKEN"),
    ):
        with pytest.raises(UserError, match=variable):
            refuse_credentials(text, "x")


@pytest.mark.parametrize(
    "value",
    [
        {"engine": {"api_key": "abc"}},
        {"stages": [{"model": HF}]},
        {"pool": {"images": "s3://K:S@b"}},
        [{HF: 1}],
        {"password": 12345},
        ("a", ["http://u@h"]),
    ],
)
def test_credentials_in_nested_values_are_refused(value: object) -> None:
    with pytest.raises(UserError, match="recipe"):
        refuse_credentials_within(value, "recipe")


def test_variable_names_and_empty_values_are_not_credentials() -> None:
    refuse_credentials_within(
        {"engine": {"key": "OPENAI_API_KEY", "password": "", "token": None, "end_tokens": ["x"]}}, "r"
    )


def test_secrets_of_the_environment_are_redacted_by_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "blue-horse-battery")
    assert redact("it said blue-horse-battery!") == "it said …!"
    assert redact("it said green-horse!", "green-horse") == "it said …!"


def test_working_directory_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PWD", "OLDPWD"):
        monkeypatch.setenv(name, f"/folders/of/{name}")
        assert redact(f"/folders/of/{name}/a.jpg: no image") == f"/folders/of/{name}/a.jpg: no image"
    assert redact("https://h.example/?pwd=blue-horse") == "https://h.example/?pwd=…"


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        *((name, True) for name in ("api_key", "X-Amz-Signature", "hfToken", "AWSAccessKeyId", "PASSWORD", "sig")),
        *(
            (name, False)
            for name in ("max_tokens", "tokenizer", "pad_token", "monkey", "sort_key", "keyfile", "design")
        ),
    ],
)
def test_secret_names_are_recognised(name: str, secret: bool) -> None:
    assert is_secret_name(name) is secret


PIECES = ["http://", "http:/", "http://a/", "http://a:b", "//a: ", "--a ", "?a=", "a_", "a-b-", "A", "-eyJ", "a.b"]
PIECES += ["x://a@", '"a": ', "cookie:", "cookie:a; ", "-u a"]


@pytest.mark.parametrize("piece", PIECES)
def test_hostile_messages_are_redacted_in_linear_time(piece: str) -> None:
    begin = time.monotonic()
    redact(piece * (30_000 // len(piece)))
    assert time.monotonic() - begin < 5
