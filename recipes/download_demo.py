"""From a list of URLs to shards: serve the demo's photographs on this machine, and run `download-demo.yaml` on them.

Some of the URLs are as they are on the web: gone, forbidden, busy for the moment, a page instead of an image, or not
for training. The recipe runs twice. By then the busy ones answer, and nothing else is asked for again.

Usage: python recipes/download_demo.py    (after `python recipes/demo_pool.py demo/pool`)
"""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import quote, unquote

from PIL import Image

PHOTOGRAPHS, LIST, RUN = Path("demo/pool/photographs"), Path("demo/download/list.csv"), Path("demo/download/run")
RECIPE = Path(__file__).with_name("download-demo.yaml")
FAULTS = ("gone", "forbidden", "busy", "page", "not-for-training")


class Server(ThreadingHTTPServer):
    """Serves the photographs, and counts requests.

    Attributes:
        busy: Whether URLs under `/busy/` get the status 503.
        requests: The number of requests so far.
    """

    busy = True
    requests = 0


class Handler(BaseHTTPRequestHandler):
    """Answers with a photograph, or with the fault that the first part of the path names."""

    server: Server

    def do_GET(self) -> None:
        self.server.requests += 1
        fault, _, name = unquote(self.path).lstrip("/").rpartition("/")
        file = PHOTOGRAPHS / name
        if fault == "gone" or not file.is_file():
            self._answer(404)
        elif fault == "forbidden":
            self._answer(403)
        elif fault == "busy" and self.server.busy:
            self._answer(503)
        elif fault == "page":
            self._answer(
                200, ("Content-Type", "text/html"), body=b"<!DOCTYPE html><title>Our images have moved</title>"
            )
        elif fault == "not-for-training":
            self._answer(200, ("X-Robots-Tag", "noai"), body=file.read_bytes())
        else:
            self._answer(200, body=file.read_bytes())

    def _answer(self, status: int, *headers: tuple[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (*headers, ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        with suppress(ConnectionError):  # who does not want the image hangs up
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> None:
    if not PHOTOGRAPHS.is_dir():
        sys.exit(f"{PHOTOGRAPHS}: no such folder: run `python recipes/demo_pool.py demo/pool` first")
    with Server(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        write_list(f"http://127.0.0.1:{server.server_port}")
        run()
        first = server.requests
        server.busy = False
        run()
        print(f"\n{first} requests by the first run, {server.requests - first} by the second", file=sys.stderr)
        server.shutdown()
    print("Look closer:  vl3syn funnel demo/download/run", file=sys.stderr)
    print("              vl3syn explain demo/download/run file:///etc/passwd", file=sys.stderr)


def write_list(address: str) -> None:
    """Write the list: URL, caption and, for some, width and height, as lists of the web have them."""
    LIST.parent.mkdir(parents=True, exist_ok=True)
    with LIST.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("url", "caption", "width", "height"))
        writer.writerows(rows(address))


def rows(address: str) -> Iterator[tuple[object, ...]]:
    photographs = sorted(PHOTOGRAPHS.iterdir())
    for number, file in enumerate(photographs):
        with Image.open(file) as image:
            size = image.size if number % 3 else ("", "")
        caption = f"A photograph called {file.stem.replace('_', ' ')}"
        yield (f"{address}/{quote(file.name)}", caption, *size)
        if number % 4 == 0:
            fault = FAULTS[number // 4 % len(FAULTS)]
            yield (f"{address}/{fault}/{quote(file.name)}", caption, *size)
    yield (f"{address}/{quote(photographs[0].name)}", "The first photograph again", "", "")
    yield ("file:///etc/passwd", "Not a picture", "", "")
    yield ("http://169.254.169.254/latest/meta-data", "An address inside a data centre", "", "")


def run() -> None:
    subprocess.run([sys.executable, "-m", "pipeline", "run", str(RECIPE), "--run", str(RUN)], check=True)


if __name__ == "__main__":
    main()
