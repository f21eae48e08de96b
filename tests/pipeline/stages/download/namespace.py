"""Downloads in a network namespace of its own, where every address is this machine's and no packet leaves it.

`unshare -rnm python namespace.py PYTHON FOLDER` prints, as JSON, the outcome of each URL and the addresses that were
connected to. Names are looked up at a DNS server in here.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections import Counter
from ipaddress import ip_address
from pathlib import Path

sys.path.insert(0, os.fspath(Path(__file__).parents[4]))

from pipeline.stages.download.engine import Engine
from pipeline.stages.download.settings import DownloadSettings, EngineSettings
from tests.web_server import serving

PUBLIC = "93.184.216.34"

NAMES = {
    "public.example.com": [PUBLIC],
    "private.example.com": ["10.0.0.1"],
    "metadata.example.com": ["169.254.169.254"],
    "mixed.example.com": ["10.0.0.1", PUBLIC],
    "mapped.example.com": ["::ffff:10.0.0.1"],
    "nat64.example.com": ["64:ff9b::10.0.0.1"],
}
"""Names and what they always resolve to. Of `rebinding.example.com` each look-up after the first is private."""

LITERALS = (
    "10.0.0.1 167772161 012.0.0.1 0xa.0.0.1 10.1 172.16.0.1 192.168.0.1 100.64.0.1 0.0.0.0 0 127.0.0.1 2130706433 "
    "169.254.169.254 2852039166 224.0.0.1 240.0.0.1 255.255.255.255 [::] [::1] [::ffff:10.0.0.1] [::ffff:a9fe:a9fe] "
    "[64:ff9b::a9fe:a9fe] [2002:a00:1::] [2001:0:a00:1::] [fe80::1%25lo] [fec0::1] [fd00::1] [ff02::1]"
).split()


def main(python: str, folder: Path) -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for family in ("-4", "-6"):
        subprocess.run(["ip", family, "route", "replace", "local", "default", "dev", "lo"], check=True)
    resolver = folder / "resolv.conf"
    resolver.write_text("nameserver 127.0.0.1\n")
    subprocess.run(["mount", "--bind", resolver, os.path.realpath("/etc/resolv.conf")], check=True)
    threading.Thread(target=_answer_names, daemon=True).start()

    urls = [f"http://{name}/image/{name}" for name in [*NAMES, "rebinding.example.com"]]
    urls += [f"http://{host}/image/a" for host in LITERALS]
    targets = ["http://169.254.169.254/latest/meta-data/", "http://private.example.com/", "file:///etc/passwd"]
    urls += [f"http://public.example.com/to/{target.replace('/', '%2F')}" for target in targets]
    engine = EngineSettings(python=python)
    with serving("::", 80) as server:
        outcomes = _download(DownloadSettings(engine=engine, timeout=5), urls, folder / "guarded")
        connections = Counter(server.connections)
        # The same without the guard: these connections would have been seen.
        anywhere = DownloadSettings(engine=engine, timeout=2, allow=("0.0.0.0/0", "::/0"))
        _download(anywhere, urls, folder / "open")
        unguarded = Counter(server.connections) - connections
    print(json.dumps({"outcomes": outcomes, "guarded": connections, "unguarded": unguarded}))


def _download(settings: DownloadSettings, urls: list[str], folder: Path) -> dict[str, str | None]:
    folder.mkdir()
    with Engine(settings) as engine:
        return {
            url: outcome.error for url, outcome in zip(urls, engine.download(0, urls, folder).outcomes, strict=True)
        }


def _answer_names() -> None:
    """Answer questions for A and AAAA records."""
    rebindings = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 53))
        while True:
            question, client = server.recvfrom(512)
            labels, position = [], 12
            while length := question[position]:
                labels.append(question[position + 1 : position + 1 + length].decode())
                position += 1 + length
            (kind,) = struct.unpack(">H", question[position + 1 : position + 3])
            name = ".".join(labels)
            found = NAMES.get(name, [])
            if name == "rebinding.example.com" and kind == 1:
                found = ["10.0.0.1"] if rebindings else [PUBLIC]
                rebindings += 1
            addresses = [ip_address(text).packed for text in found]
            records = [a for a in addresses if len(a) == (4 if kind == 1 else 16)]
            head = question[:2] + struct.pack(">HHHHH", 0x8180, 1, len(records), 0, 0)
            answers = [struct.pack(">HHHIH", 0xC00C, kind, 1, 0, len(a)) + a for a in records]
            server.sendto(head + question[12 : position + 5] + b"".join(answers), client)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
