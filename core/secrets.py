"""Refuse credentials in URLs, commands and recipes, and redact them from messages. They belong in the environment.

Recipes are copied, run directories are shared, cards are published, logs are mailed. So `refuse_credentials` runs
before anything is stored or printed, and `redact` is the last step before a message is shown. What looks like a
credential depends on the kind of text: people write "password:" in a prompt, but not in a path.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal
from urllib.parse import unquote

from core.errors import UserError

Kind = Literal["prose", "setting", "command"]
"""Kinds of text: prose for people or models; a setting (URL, path or name); the command that starts a program."""

_KINDS: dict[str, Kind] = {
    "name": "prose",
    "prompt": "prose",
    "prompts": "prose",
    "language": "prose",
    "start": "command",
}
"""Keys of a recipe whose texts are not settings."""

_HIDDEN = "…"
_FOLDERS = ("PWD", "OLDPWD")
"""Variables of a shell with a folder. In URLs and settings, `pwd` is a password."""

_SHORTEST = 8  # characters; a shorter value occurs inside too many words
_SIGNED = 16  # characters; in prose, a URL parameter of this length with a digit counts as a credential, too
_LONGEST_NAME = 40  # characters of a variable's name
_USERS_ARE_NAMES = ("abfs", "abfss", "wasb", "wasbs", "hdfs", "viewfs", "webhdfs", "sftp", "ssh", "scp", "ftp", "smb")
"""Schemes whose user part names a container or an account. In other schemes (http, s3) a user alone may be a key."""

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

_SCHEME = (  # a well-known scheme may have one slash: `Path` turns two slashes into one
    r"(?<![A-Za-z0-9+.-])(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*(?=://[^/])|(?i:" + "|".join(_ENVIRONMENT) + r")(?=:/))"
)
_NO_SCHEME = r"(?<![^\s\"'=])(?=//[^\s/@]*:)"  # //user:password@host
_IN_URL = r"[^\s?#\"'<>]"
_USER = re.compile(  # up to the last @: an AWS secret key may contain a slash, so a password may look like a path
    rf"(?:{_SCHEME}:|{_NO_SCHEME})/{{1,3}}"
    rf"(?P<user>(?![^/]*:\d+/)[^\s/?#\"'<>@:\[]*:{_IN_URL}{{0,300}}|[^\s/?#\"'<>]*)@(?P<host>[^\s/?#\"'<>@]*)"
)
_ENCODED_USER = re.compile(r"(%3A%2F%2F)(?:(?!%40|%2F)[^\s&\"'])*(%40)", re.IGNORECASE)
_PARAMETER = re.compile(r"[?&;#](?P<name>[^=&;#?\s\"'/]+)=(?P<value>[^&;#\s\"']+)")
_OPTION = re.compile(  # --api-key a b
    r"(?<![\w-])(?P<name>--?[A-Za-z][\w.-]*)(?:\s*[=:]\s*|\s+)(?P<value>(?!-)\S+(?:[ \t]+(?!-)\S+)*)"
)
_VARIABLE = re.compile(r"(?<![\w.-])(?P<name>[A-Z][A-Z0-9_]*)=(?P<value>\S+)")  # HF_TOKEN=a
_IS = r"[\\\"']*\s*[:=]\s*[\\\"'\[]*(?P<value>\$\{\w+\}|[^\s\\\"',\]}]+)"
_ENTRY = re.compile(  # entries of JSON, YAML and headers; a name of one word is too vague unless quoted, as in JSON
    r"(?:(?<![\w/-])(?P<name>[A-Za-z][A-Za-z0-9]{0,40}(?:[_-]{1,2}[A-Za-z0-9]{1,40}){1,8}|passw(?:or)?d)"
    rf"|(?<=[\"'])(?P<quoted>(?!keys?\b|code\b)[A-Za-z]{{1,40}})(?=\\*[\"']\s*:)){_IS}"
)
_WORD = re.compile(rf"(?<![\w/-])(?P<name>token|apikey|secret|passw(?:or)?d){_IS}", re.IGNORECASE)  # token=a
_HEADER = re.compile(  # Authorization: Bearer a; a cookie has several parts, so it extends to the end of the line
    r"(?<![\w/-])(?P<name>(?:proxy-)?authorization|(?:set-)?cookie)[\"']?\s*[:=]\s*[\"']?"
    r"(?P<value>(?:(?:bearer|basic|token)\s+)?[^\s\"',;]+(?:;[^\"'\r\n]*)?)",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(?P<name>Bearer)\s+(?P<value>(?=\S*\d)[A-Za-z0-9._~+/=-]{8,})")
_LOGIN = re.compile(  # curl -u user:password; not docker's numeric user:group, and not $(id -u)
    r"(?<![\w-])(?P<name>-u|--(?:proxy-)?user)[\s=]+[\"']?(?P<value>(?!\d+:\d+(?!\S)|\$)[^\s:\"'/]+:[^\s\"']+)"
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
    r"|openai|azure|anthropic|encryption|customer|signing|license|hf|user|client|wandb|comet|ngc|hub|deploy)keys?(?:id)?$"
    r"|secrets?$|passw(?:or)?d$|passphrase$|^pwd$|^pass$|^sig$|signature$|credentials?$|^auth$|authorization$|accessid$"
    r"|^jwt$|bearer$|^sas$|^code$|connectionstring$|^(?:set)?cookie$"
)
_TOKENS_OF_TEXT = re.compile(
    r"(?:image|video|audio|mm|vision|media|pad|eos|bos|unk|stop|mask|special|start|end|begin|max|min|new|next|first|per"
    r"|time|think|thinking|reasoning|tool|call|sep|cls|draft|placeholder|prompt|completion|output|input|context|batched"
    r"|num|number|speculative|logprob|tail|extra|added|prefix|suffix|generated|cached|total|of|skip|by|chunk)s?$"
)
_FILLED_IN = r"[\\\"']*(?:\$\w+|\$\{\w+\}|\{\w+\}|<[\w-]+>|…)[\\\"']*"
_HARMLESS = re.compile(rf"{_FILLED_IN}(?:\s+{_FILLED_IN})*")
"""A value that only points to the secret: a shell variable or a placeholder."""

_NAMED: dict[Kind, tuple[re.Pattern[str], ...]] = {
    "prose": (),
    "setting": (_OPTION, _VARIABLE, _ENTRY),
    "command": (_OPTION, _VARIABLE, _ENTRY, _WORD),
}
"""Patterns of named values, by kind of text. A value is a credential if its name is a secret's (`is_secret_name`)."""

_SENT = (_HEADER, _BEARER, _LOGIN)
"""Patterns that are credentials by their form, except in prose."""


def refuse_credentials(text: str, what: str, kind: Kind = "setting") -> None:
    """Refuse a text that contains something like a credential.

    Args:
        text: A URL, path, command or other setting, or a prompt.
        what: What the text is, for the error.
        kind: In prose, only tokens of a known form and URLs with a password or signature count as credentials.

    Raises:
        UserError: The text contains one. The message does not repeat it and says what to do instead.
    """
    for seen in dict.fromkeys((text, unquote(text), unquote(unquote(text)))):
        for credential, remedy in _credentials(seen, kind):
            raise UserError(
                f"{what}: {credential} is a credential; keep credentials in the environment, not here ({remedy})"
            )


def refuse_credentials_within(value: object, what: str, kind: Kind = "setting") -> None:
    """Apply `refuse_credentials` to every text in nested mappings and lists, keys included.

    The key of a recipe decides the kind of its text (`_KINDS`).

    Raises:
        UserError: As in `refuse_credentials`, or a key names a secret and its value is not a placeholder.
    """
    if isinstance(value, str):
        refuse_credentials(value, what, kind)
    elif isinstance(value, dict):
        for key, inner in value.items():
            where = f"{what}: {redact(str(key))}"
            refuse_credentials_within(key, what, kind)
            if kind != "prose":
                _refuse_entry(key, inner, where)
            refuse_credentials_within(inner, where, _KINDS.get(key, kind) if isinstance(key, str) else kind)
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            refuse_credentials_within(inner, f"{what}[{number}]", kind)


def check_variable_name(name: str) -> None:
    """Refuse a text that is not the name of an environment variable: most often it is the API key itself.

    Names are in upper case, or in lower case with underscores. Any other name must exist in the environment.

    Raises:
        UserError: It is not a name. The message does not repeat it.
    """
    usual = re.fullmatch(r"[A-Z_][A-Z0-9_]*|[a-z]+(?:_[a-z]+)+", name) or name in os.environ
    if not usual or len(name) > _LONGEST_NAME or _SHAPES.search(name):
        raise UserError(
            "key is the NAME of the environment variable that holds the API key, such as OPENAI_API_KEY, and not the "
            "API key; keep credentials in the environment, not here"
        )


def redact(text: str, *known: str | None) -> str:
    """Return the text without credentials: those that look like one, those in the environment, and the `known` ones.

    Args:
        text: A message, possibly of another program.
        known: Values of secrets, such as the API key itself. Values of fewer than 8 characters are searched as words.
    """
    of_environment = (value for name, value in os.environ.items() if name not in _FOLDERS and is_secret_name(name))
    for secret in (*known, *of_environment):
        if secret and len(secret) >= _SHORTEST:
            text = text.replace(secret, _HIDDEN)
    for short in (secret for secret in known if secret and len(secret) < _SHORTEST):
        text = re.sub(rf"(?<![\w-]){re.escape(short)}(?![\w-])", _HIDDEN, text)
    text = _ENCODED_USER.sub(rf"\1{_HIDDEN}\2", _USER.sub(_without_user, text))
    for pattern in (_PARAMETER, *_NAMED["setting"]):
        text = pattern.sub(_without_value, text)
    for pattern in _SENT:
        text = pattern.sub(_hide_value, text)
    return _SHAPES.sub(_HIDDEN, text)


def _credentials(text: str, kind: Kind) -> Iterator[tuple[str, str]]:
    """Yield a description of each credential, which does not repeat it, and where it belongs instead."""
    yield from _of_urls(text, prose=kind == "prose")
    for pattern in _NAMED[kind]:
        for named in pattern.finditer(text):
            if _names_secret(named):
                yield f"the value of `{_name(named)[:40]}`", _OF_A_COMMAND
    for pattern in () if kind == "prose" else _SENT:
        for sent in pattern.finditer(text):
            if not _HARMLESS.fullmatch(sent["value"].split()[-1]):
                yield f"the value of {sent['name']}", _OF_A_COMMAND
    if shape := _SHAPES.search(text):
        yield f"{shape[0][:3]}{_HIDDEN}, by its form,", "HF_TOKEN, OPENAI_API_KEY and so on"


def _of_urls(text: str, prose: bool) -> Iterator[tuple[str, str]]:
    for url in _USER.finditer(text):
        if _is_credential(url) and (":" in url["user"] or not prose):
            of = f"{url['scheme'].lower()}:// URL" if url["scheme"] else "URL"
            yield f"what stands before the host of a {of}", _remedy(url["scheme"])
    for parameter in _PARAMETER.finditer(text):
        signed = len(parameter["value"]) >= _SIGNED and re.search(r"\d", parameter["value"])
        if _names_secret(parameter) and (signed or not prose):
            scheme = re.search(_SCHEME, text)
            yield f"{parameter['name'][:40]}=… in a URL", _remedy(scheme and scheme["scheme"])


def _remedy(scheme: str | None) -> str:
    return _ENVIRONMENT.get((scheme or "").lower(), "as its client reads it")


def _refuse_entry(key: object, value: object, what: str) -> None:
    """Refuse `api_key: …` and similar entries of a recipe. The key `key` is allowed: it names a variable."""
    if not isinstance(key, str) or key == "key" or not is_secret_name(key):
        return
    if type(value) in (str, int) and value != "" and not _HARMLESS.fullmatch(str(value)):
        raise UserError(f"{what} is a credential; keep credentials in the environment, not here")


@lru_cache(maxsize=1024)  # `redact` asks for the name of each variable of the environment at each call
def is_secret_name(name: str) -> bool:
    """Return whether a name is that of a secret: `api_key`, `X-Amz-Signature`, `hf-token`; not `pad_token`."""
    plain = re.sub(r"[^a-z0-9]", "", unquote(name).lower())
    if _SECRET_NAME.search(plain):
        return True
    return plain.endswith("token") and not _TOKENS_OF_TEXT.search(plain.removesuffix("token"))


def _name(match: re.Match[str]) -> str:
    return match["name"] or match["quoted"]


def _names_secret(match: re.Match[str]) -> bool:
    return is_secret_name(_name(match)) and not _HARMLESS.fullmatch(match["value"])


def _is_credential(url: re.Match[str]) -> bool:
    user = url["user"]
    if not user or user == "anonymous":  # public access to Google Cloud Storage
        return False
    return ":" in user or (url["scheme"] or "").lower() not in _USERS_ARE_NAMES


def _without_user(url: re.Match[str]) -> str:
    return f"{url.string[url.start() : url.start('user')]}{_HIDDEN}@{url['host']}" if _is_credential(url) else url[0]


def _without_value(match: re.Match[str]) -> str:
    return _hide_value(match) if _names_secret(match) else match[0]


def _hide_value(match: re.Match[str]) -> str:
    return f"{match.string[match.start() : match.start('value')]}{_HIDDEN}"
