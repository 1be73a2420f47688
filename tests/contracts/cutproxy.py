"""A TCP proxy that can lose an answer: what the server says after it has been asked for something, with the connection."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class CutProxy:
    """Passes everything on; after `lose(words)` the next message with these words reaches the server, its answer nobody."""

    def __init__(self, port: int) -> None:
        self._server = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._words: list[bytes] = []
        self.lost = 0
        self._threads: list[threading.Thread] = []
        self._run(self._accept)

    def lose(self, words: bytes, times: int = 1) -> None:
        """Lose the answers to the next so many messages that hold these words."""
        self._words += [words] * times

    def close(self) -> None:
        """Take no more connections. Those that are open end with their programs."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)

    def _run(self, function: object, *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)  # type: ignore[arg-type]  # any of ours
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            server = socket.create_connection(self._server)
            cut = threading.Event()
            self._run(self._upward, client, server, cut)
            self._run(self._downward, client, server, cut)

    def _upward(self, client: socket.socket, server: socket.socket, cut: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                if self._words and self._words[0] in data:
                    self._words.pop(0)
                    self.lost += 1
                    cut.set()
                server.sendall(data)
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _downward(self, client: socket.socket, server: socket.socket, cut: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if cut.is_set():
                    break
                client.sendall(data)
        for each in (client, server):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
