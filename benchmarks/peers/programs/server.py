"""Serves a folder on a free port of this machine, and prints the port.

http.server's own command lets five connections wait; a sixth is asked to come again after a second.

    python server.py FOLDER
"""

from __future__ import annotations

import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    request_queue_size = 1024


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


if __name__ == "__main__":
    with Server(("127.0.0.1", 0), partial(Handler, directory=sys.argv[1])) as server:
        print(server.server_port, flush=True)
        server.serve_forever()
