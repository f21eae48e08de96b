"""What looks like a credential is refused without being repeated, and taken out of messages; what does not stays."""

from __future__ import annotations

import time
from itertools import product
from urllib.parse import quote

import pytest

from core.errors import UserError
from core.secrets import is_secret_name, redact, refuse_credentials, refuse_credentials_within

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
]


def fill(template: str, secret: str) -> str:
    return (
        template.replace("{{model}}", "\0")
        .replace("{}", secret)
        .replace("\0", "{model}")
        .replace("{{", "{")
        .replace("}}", "}")
    )


@pytest.mark.parametrize("template", [*IN_FRONT_OF_HOSTS, *USERS_ALONE, *IN_PARAMETERS, *IN_COMMANDS])
def test_credentials_are_refused_and_redacted_and_never_repeated(template: str) -> None:
    secrets = [SECRET, quote(SECRET, safe=""), "plainsecret", "1234567"]
    for secret in secrets[template in USERS_ALONE :]:  # a slash in a user alone begins the path
        text = fill(template, secret)
        with pytest.raises(UserError, match="keep credentials in the environment") as refused:
            refuse_credentials(text, "url")
        for said in (str(refused.value), redact(text), redact(f"no server at {text} (timeout)"), redact(repr(text))):
            assert secret not in said
            assert secret.partition("/")[2] not in said or "/" not in secret


@pytest.mark.parametrize("text", BY_FORM)
def test_tokens_are_known_by_their_form(text: str) -> None:
    for around in ("{}", "org/{}", "it said: {}.", "'{}'", "x={}"):
        with pytest.raises(UserError) as refused:
            refuse_credentials(around.format(text), "model")
        assert text not in str(refused.value)
        assert text not in redact(around.format(text))


@pytest.mark.parametrize("text", HARMLESS)
def test_other_texts_stay_as_they_are(text: str) -> None:
    refuse_credentials(text, "setting")
    assert redact(text) == text


def test_a_url_within_a_url() -> None:
    text = "s3://b/p?endpoint_override=http%3A%2F%2Fuser%3Ahidden1%40host%3A9000"
    with pytest.raises(UserError) as refused:
        refuse_credentials(text, "run")
    assert "hidden1" not in str(refused.value)
    assert "hidden1" not in redact(text)


def test_the_remedy_names_the_variable() -> None:
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
def test_nested_values(value: object) -> None:
    with pytest.raises(UserError, match="recipe"):
        refuse_credentials_within(value, "recipe")


def test_the_name_of_a_variable_and_empty_values_are_no_credentials() -> None:
    refuse_credentials_within(
        {"engine": {"key": "OPENAI_API_KEY", "password": "", "token": None, "end_tokens": ["x"]}}, "r"
    )


def test_secrets_of_the_environment_are_redacted_by_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "blue-horse-battery")
    assert redact("it said blue-horse-battery!") == "it said …!"
    assert redact("it said green-horse!", "green-horse") == "it said …!"


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
def test_names(name: str, secret: bool) -> None:
    assert is_secret_name(name) is secret


@pytest.mark.parametrize(
    "piece", ["http://", "http://a/", "http://a:b", "--a ", "?a=", "a_", "A", "-eyJ", "a.b", "x://a@"]
)
def test_hostile_messages_take_no_longer_than_their_length(piece: str) -> None:
    begin = time.monotonic()
    redact(piece * (30_000 // len(piece)))
    assert time.monotonic() - begin < 5
