"""One form of a URL for comparison: two spellings that every server takes for the same URL become equal texts.

Only what RFC 3986 (section 6.2.2 and 6.2.3) calls equivalent is made equal. `http` and `https`, another order of
parameters, or a slash at the end may be another image, and stay different.
"""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

_PORTS = {"http": "80", "https": "443", "ftp": "21"}
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_SENT_AS_IT_IS = "%/:=&?~#+!$,;'@()*[]|"


def comparable_url(url: str) -> str | None:
    """Return the form of a URL that is compared; None: the text is no URL with a scheme and a host.

    Scheme and host are in lower case, a host of other letters in its ASCII form, the usual port and the fragment are
    left out, escapes are written in one way, and `.` and `..` are resolved.
    """
    try:
        parts = urlsplit(url.strip())
        host, port = _host(parts.hostname or ""), parts.port
    except ValueError:  # such as a port that is no number
        return None
    scheme = parts.scheme.lower()
    if not scheme or not host or "://" not in url:
        return None
    login, at, _ = parts.netloc.rpartition("@")
    number = "" if port is None or str(port) == _PORTS.get(scheme) else f":{port}"
    query = f"?{_escaped(parts.query)}" if parts.query else ""
    return f"{scheme}://{login}{at}{host}{number}{_resolved(_escaped(parts.path))}{query}"


def host_forms(url: str) -> set[str]:
    """Return the spellings of a URL's host in lower case, of which every URL with an equal form has one."""
    try:
        host = (urlsplit(url.strip()).hostname or "").rstrip(".").lower()
    except ValueError:
        return set()
    forms = {host, _host(host)}
    try:
        forms.add(host.encode("ascii").decode("idna"))
    except UnicodeError:
        pass  # it is in its own letters already, or no name of a host
    return forms - {""}


def _host(host: str) -> str:
    try:
        name = host.rstrip(".").encode("idna").decode("ascii").lower()
    except UnicodeError:
        name = host.rstrip(".").lower()
    return f"[{name}]" if ":" in name else name


def _escaped(text: str) -> str:
    def rewritten(match: re.Match[str]) -> str:
        character = chr(int(match[1], 16))
        return character if character in _UNRESERVED else f"%{match[1].upper()}"

    return _ESCAPE.sub(rewritten, quote(text, _SENT_AS_IT_IS, errors="replace"))


def _resolved(path: str) -> str:
    """Return a path without `.` and `..`; the path of a host alone is `/`."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments and segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)
