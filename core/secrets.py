"""Credentials have their place in the environment: what looks like one in a URL, command or recipe is refused.

A recipe is copied, a run directory is shared, a card is published, a log is mailed. `refuse_credentials` comes before
anything is stored or printed; `redact` is the last thing that happens to a message.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from core.errors import UserError

_HIDDEN = "…"
_SHORTEST = 8  # characters of a secret that is looked for by its value; a shorter one is part of too many words
_USERS_ARE_NAMES = ("abfs", "abfss", "wasb", "wasbs", "hdfs", "viewfs", "webhdfs", "sftp", "ssh", "scp", "ftp", "smb")
"""Schemes whose user is a container or an account's name. Elsewhere (http, s3) a user alone may be a key."""

_ENVIRONMENT = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS",
    "abfs": "AZURE_STORAGE_ACCOUNT_KEY or a login of Azure's command line",
    "abfss": "AZURE_STORAGE_ACCOUNT_KEY or a login of Azure's command line",
    "hf": "HF_TOKEN",
    "http": "the variable that the engine's `key` names, OPENAI_API_KEY by default",
    "https": "the variable that the engine's `key` names, OPENAI_API_KEY by default",
}
_OF_A_COMMAND = (
    "the server inherits the environment, so set the variable that it reads (VLLM_API_KEY, HF_TOKEN), or have a shell "
    "fill it in: sh -c '… --api-keys $OPENAI_API_KEY'"
)

_SCHEME = r"(?<![A-Za-z0-9+.-])(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)"
_IN_URL = r"[^\s?#\"'<>]"
_USER = re.compile(  # up to the last @; a secret key of Amazon's may have a slash in it, so that a path is not safe
    rf"{_SCHEME}://(?P<user>(?![^/]*:\d+/)[^\s/?#\"'<>@:\[]*:{_IN_URL}{{0,300}}|[^\s/?#\"'<>]*)@(?P<host>[^\s/?#\"'<>@]*)"
)
_ENCODED_USER = re.compile(r"(%3A%2F%2F)(?:(?!%40|%2F)[^\s&\"'])*(%40)", re.IGNORECASE)
_PARAMETER = re.compile(r"(?P<before>[?&;#])(?P<name>[^=&;#?\s\"'/]+)=(?P<value>[^&;#\s\"']+)")
_OPTION = re.compile(
    r"(?<![\w-])(?P<name>--?[A-Za-z][\w.-]*)(?P<between>\s*[=:]\s*|\s+)(?P<value>(?!-)\S+(?:[ \t]+(?!-)\S+)*)"
)
_VARIABLE = re.compile(r"(?<![\w.-])(?P<name>[A-Z][A-Z0-9_]*)(?P<between>=)(?P<value>\S+)")
_HEADER = re.compile(
    r"(?P<name>\b(?:proxy-)?authorization|\bx-api-key|\bapi-key)(?P<between>[\"']?\s*[:=]\s*[\"']?)"
    r"(?P<value>(?:(?:bearer|basic|token)\s+)?[^\s\"',;]+)",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(?P<name>Bearer)(?P<between>\s+)(?P<value>(?=\S*\d)[A-Za-z0-9._~+/=-]{8,})")
_ENTRY = re.compile(  # of JSON, YAML or a program's own arguments; names of one word say too little there
    r"(?<![\w/-])(?P<name>[A-Za-z]\w{0,40}[_-]\w{1,40}|passw(?:or)?d)(?P<between>[\"']?\s*[:=]\s*[\"'\[]*)(?P<value>[^\s\"',\]}]+)"
)
_SHAPES = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"hf_(?=[a-z0-9]*[A-Z])[A-Za-z0-9]{12,}|hf_[A-Za-z0-9]{24,}|api_org_[A-Za-z0-9]{16,}"  # Hugging Face
    r"|sk-(?:[a-z]{2,8}-)?[A-Za-z0-9]{16,}[\w-]*|sk-(?:proj|ant|or|svcacct|admin)-[\w-]{12,}"  # OpenAI and its likes
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{30,}|ya29\.[\w-]{20,}"  # Amazon, Google
    r"|gh[opsru]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}"
    r"|nvapi-[\w-]{20,}|gsk_[A-Za-z0-9]{20,}|r8_[A-Za-z0-9]{30,}|pypi-[\w-]{30,}"
    r"|eyJ[\w-]{10,2000}\.[\w-]{10,}\.[\w-]*|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r")"
)

_SECRET_NAME = re.compile(
    r"(?:^|api|access|secret|account|private|subscription|auth|master|admin|shared|storage|functions?|server|service"
    r"|openai|azure|anthropic|encryption|customer|signing|license|hf|user|client)keys?(?:id)?$"
    r"|secrets?$|passw(?:or)?d$|passphrase$|^pwd$|^pass$|^sig$|signature$|credentials?$|^auth$|authorization$|accessid$"
    r"|^jwt$|bearer$|^sas$|^code$"
)
_TOKENS_OF_TEXT = re.compile(
    r"(?:image|video|audio|mm|vision|media|pad|eos|bos|unk|stop|mask|special|start|end|begin|max|min|new|next|first|per"
    r"|time|think|thinking|reasoning|tool|call|sep|cls|draft|placeholder|prompt|completion|output|input|context|batched"
    r"|num|number|speculative|logprob|tail|extra|added|prefix|suffix|generated|cached|total|of|skip|by|chunk)s?$"
)
_HARMLESS = re.compile(r"[\"']*(?:\$\w+|\$\{\w+\}|\{\w+\}|…)[\"']*(?:\s+[\"']*(?:\$\w+|\$\{\w+\}|\{\w+\})[\"']*)*")
"""A value that says where the secret is: a variable that a shell fills in, or a placeholder."""


def refuse_credentials(text: str, what: str) -> None:
    """Refuse a text that has something like a credential in it.

    Args:
        text: A URL, path, command or other setting.
        what: What it is, for the error.

    Raises:
        UserError: Without the credential, with what to do instead.
    """
    for seen in dict.fromkeys((text, unquote(text), unquote(unquote(text)))):
        for kind, remedy in _credentials(seen):
            raise UserError(f"{what}: {kind} is a credential; keep credentials in the environment, not here ({remedy})")


def refuse_credentials_within(value: Any, what: str) -> None:
    """`refuse_credentials` for every text in nested mappings and lists, keys included.

    Raises:
        UserError: As there.
    """
    if isinstance(value, str):
        refuse_credentials(value, what)
    elif isinstance(value, dict):
        for key, inner in value.items():
            refuse_credentials_within(key, what)
            _refuse_entry(key, inner, f"{what}: {redact(str(key))}")
            refuse_credentials_within(inner, f"{what}: {redact(str(key))}")
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            refuse_credentials_within(inner, f"{what}[{number}]")


def redact(text: str, *known: str | None) -> str:
    """The text without what looks like a credential, without those of the environment and the `known` ones.

    Args:
        text: A message, possibly of another program.
        known: Secrets themselves, such as the value of the API key's variable.
    """
    for secret in (*known, *(value for name, value in os.environ.items() if is_secret_name(name))):
        if secret and len(secret) >= _SHORTEST:
            text = text.replace(secret, _HIDDEN)
    text = _ENCODED_USER.sub(rf"\1{_HIDDEN}\2", _USER.sub(_without_user, text))
    for pattern in (_PARAMETER, _OPTION, _VARIABLE, _ENTRY):
        text = pattern.sub(_without_value, text)
    for pattern in (_HEADER, _BEARER):
        text = pattern.sub(rf"\g<name>\g<between>{_HIDDEN}", text)
    return _SHAPES.sub(_HIDDEN, text)


def _credentials(text: str) -> Iterator[tuple[str, str]]:
    """What is in the text, in words that do not repeat it, and where it belongs."""
    for url in _USER.finditer(text):
        if _is_credential(url):
            scheme = url["scheme"].lower()
            remedy = _ENVIRONMENT.get(scheme, "as its client reads it")
            yield f"what stands before the host of a {scheme}:// URL", remedy
    for parameter in _PARAMETER.finditer(text):
        if _names_secret(parameter):
            scheme = re.match(_SCHEME, text)
            remedy = _ENVIRONMENT.get(scheme["scheme"].lower() if scheme else "", "as its client reads it")
            yield f"{parameter['name'][:40]}=… in a URL", remedy
    for pattern in (_OPTION, _VARIABLE, _ENTRY):
        for option in pattern.finditer(text):
            if _names_secret(option):
                yield f"the value of `{option['name'][:40]}`", _OF_A_COMMAND
    for header in (*_HEADER.finditer(text), *_BEARER.finditer(text)):
        if not _HARMLESS.fullmatch(header["value"].split()[-1]):
            yield f"the value of {header['name']}", _OF_A_COMMAND
    if shape := _SHAPES.search(text):
        yield f"{shape[0][:3]}{_HIDDEN}, by its form,", "HF_TOKEN, OPENAI_API_KEY and so on"


def _refuse_entry(key: object, value: object, what: str) -> None:
    """Refuse `api_key: …` and the like in a recipe; `key` alone names a variable of the environment."""
    if not isinstance(key, str) or key == "key" or not is_secret_name(key):
        return
    if type(value) in (str, int) and value != "" and not _HARMLESS.fullmatch(str(value)):
        raise UserError(f"{what} is a credential; keep credentials in the environment, not here")


def is_secret_name(name: str) -> bool:
    """Whether what is called so is a secret: `api_key`, `X-Amz-Signature`, `hf-token`; not `pad_token`, `tokenizer`."""
    plain = re.sub(r"[^a-z0-9]", "", unquote(name).lower())
    if _SECRET_NAME.search(plain):
        return True
    return plain.endswith("token") and not _TOKENS_OF_TEXT.search(plain.removesuffix("token"))


def _names_secret(match: re.Match[str]) -> bool:
    return is_secret_name(match["name"]) and not _HARMLESS.fullmatch(match["value"])


def _is_credential(url: re.Match[str]) -> bool:
    scheme, user = url["scheme"].lower(), url["user"]
    if not user or user == "anonymous":  # of Google's storage
        return False
    return ":" in user or scheme not in _USERS_ARE_NAMES


def _without_user(url: re.Match[str]) -> str:
    return f"{url['scheme']}://{_HIDDEN}@{url['host']}" if _is_credential(url) else url[0]


def _without_value(match: re.Match[str]) -> str:
    if not _names_secret(match):
        return match[0]
    groups = match.groupdict()
    return f"{groups.get('before', '')}{match['name']}{groups.get('between', '=')}{_HIDDEN}"
