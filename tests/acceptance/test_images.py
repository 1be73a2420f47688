"""Images are looked at beforehand when asked for: each address once, without our token, and nobody is sent one that fails."""

from __future__ import annotations

import re
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from acceptance import webpage
from acceptance.workbench import TOKEN, Workbench, by_phone, numbers
from runner.sandbox import Sandbox

FIVE_MEGABYTES = 5 * 1024 * 1024


def png(width: int, height: int) -> bytes:
    """A whole picture of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    lines = b"".join(b"\0" + b"\x80\xc0\x40" * width for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def jpeg(width: int, height: int, size: int = 0) -> bytes:
    """As much of a JPEG as is looked at: its head, its frame, its end mark; filled up to `size` bytes."""
    frame = struct.pack(">HBHHB", 17, 8, height, width, 3) + bytes((1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1))
    start = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00" + b"\xff\xc0" + frame
    scan = b"\xff\xda\x00\x0c\x03\x01\x00\x02\x11\x03\x11\x00\x3f\x00" + b"\x00" * 20
    filling = b"\x00" * max(0, size - len(start) - len(scan) - 2)
    return start + scan + filling + b"\xff\xd9"


@dataclass(slots=True)
class ImageHost:
    """A web server with pictures, good and bad, and what it was asked for."""

    port: int = 0
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    @property
    def entry(self) -> str:
        """As `image_hosts` wants it."""
        return f"127.0.0.1:{self.port}"

    def paths(self) -> list[str]:
        return sorted(path for path, _ in self.asked)


PAGES: dict[str, tuple[int, str, Callable[[], bytes]]] = {
    "/good.jpg": (200, "image/jpeg", lambda: jpeg(1200, 800)),
    "/good.png": (200, "image/png", lambda: png(60, 30)),
    "/page.jpg": (200, "image/jpeg", lambda: b"<!DOCTYPE html><html><title>Please sign in</title></html>"),
    "/gone.jpg": (404, "image/jpeg", lambda: jpeg(10, 10)),
    "/exact.jpg": (200, "image/jpeg", lambda: jpeg(10, 10, FIVE_MEGABYTES)),
    "/large.jpg": (200, "image/jpeg", lambda: jpeg(10, 10, FIVE_MEGABYTES + 1)),
    "/label.jpg": (200, "text/plain", lambda: jpeg(10, 10)),
    "/busy.jpg": (503, "text/plain", lambda: b"later"),
    "/empty.jpg": (200, "image/jpeg", lambda: b""),
}
ELSEWHERE = {"/inside.jpg": "http://10.255.255.1/secret.jpg", "/cloud.jpg": "http://169.254.169.254/latest/meta-data"}


class Handler(BaseHTTPRequestHandler):
    """Answers as PAGES say."""

    host: ImageHost

    def do_GET(self) -> None:  # the name that http.server calls
        path = self.path.partition("?")[0]
        self.host.asked.append((path, {name.lower(): value for name, value in self.headers.items()}))
        try:
            if path in ELSEWHERE:
                self.send_response(302)
                self.send_header("Location", ELSEWHERE[path])
                self.end_headers()
            elif path == "/drip.jpg":
                self._drip()
            else:
                status, kind, make = PAGES[path]
                body = make()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has seen enough

    def _drip(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "image/jpeg")
        self.end_headers()
        for byte in jpeg(10, 10, 600):
            self.wfile.write(bytes((byte,)))
            self.wfile.flush()
            time.sleep(0.1)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def images() -> Iterator[ImageHost]:
    host = ImageHost()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"host": host}))
    server.daemon_threads = True
    server.block_on_close = False
    host.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield host
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def mixed(bench: Workbench, box: Sandbox, host: ImageHost, addresses: list[str], **message: object) -> str:
    """Two people for every address, and a campaign to all of them."""
    twice = [address for address in addresses for _ in range(2)]
    bench.audience(
        [(f"+{phone}", address) for phone, address in zip(numbers(len(twice)), twice, strict=True)], ("Phone", "Img")
    )
    return bench.campaign(
        box.url, message={"image": "{{ Img }}", "caption": "Hi", "image_hosts": [host.entry], **message}
    )


SOUND = ("good.jpg", "good.png", "exact.jpg")
# The pictures here come over http, which is a doubt in itself.
DOUBTFUL = {"label.jpg": "labelled text/plain", "busy.jpg": "busy"}
BROKEN = {
    "page.jpg": ("not_an_image", "a web page"),
    "gone.jpg": ("not_found", "404"),
    "large.jpg": ("too_large", "5,242,881 bytes"),
    "empty.jpg": ("empty", "the file is empty"),
    "inside.jpg": ("private_address", "10.255.255.1"),
    "cloud.jpg": ("private_address", "169.254.169.254"),
}


def test_check_names_every_image_that_cannot_be_used_and_send_leaves_those_people_out(
    bench: Workbench, box: Sandbox, images: ImageHost
) -> None:
    base = f"http://{images.entry}"
    expired = f"{base}/good.jpg?X-Amz-Date=20200101T000000Z&X-Amz-Expires=60&X-Amz-Signature=00aa"
    outside = "http://localhost:80/good.jpg"
    other_port = f"http://localhost:{images.port}/good.jpg"
    names = [*SOUND, *DOUBTFUL, *BROKEN]
    addresses = [f"{base}/{name}" for name in names] + [expired, outside, other_port]
    campaign = mixed(bench, box, images, addresses)

    checked = bench.run("check", campaign, "--images", "--all").must(0)

    told = re.sub(r"\n {6,}", " ", checked.out)
    assert f"{len(addresses)} checked: 0 good, 9 cannot be used, 5 doubtful" in re.sub(r"\s+", " ", checked.out)
    for name, (reason, words) in BROKEN.items():
        assert re.search(rf"^  {re.escape(f'{base}/{name}')}: {reason}: .*{re.escape(words)}", told, re.MULTILINE), name
    for name, words in DOUBTFUL.items():
        assert re.search(rf"^  {re.escape(f'{base}/{name}')}: doubtful: .*{words}", told, re.MULTILINE), name
    assert re.search(
        r"^  \S+good\.jpg\?X-Amz-Date=.*: expires: the link stopped working on 2020-01-01", told, re.MULTILINE
    )
    assert re.search(r"^  http://localhost:80/good.jpg: private_address: localhost is (127|::)", told, re.MULTILINE)
    assert re.search(rf"^  {re.escape(other_port)}: bad_url: .*port {images.port}", told, re.MULTILINE)
    assert "18 rows cannot be sent" in checked.out
    assert "media_unusable" in checked.out
    assert "checking 14 images" in checked.err

    assert images.paths() == sorted(f"/{name}" for name in names), "each once, none of those that may not be asked"
    assert box.log == []

    mixed(bench, box, images, addresses, images="check")
    bench.send(campaign).must(0)

    sent = {entry.phone for entry in by_phone(box).values()}
    results = bench.results()
    by_image: dict[str, set[str]] = {}
    for row in results:
        by_image.setdefault(row["image"] or row["Img"], set()).add(
            f"{row['status']} {row['reason'].partition(':')[0]}".strip()
        )
        assert (row["phone"] in sent) == (row["status"] == "accepted")
    for name in (*SOUND, *DOUBTFUL):
        assert by_image[f"{base}/{name}"] == {"accepted"}, name
    for address in (*(f"{base}/{name}" for name in BROKEN), expired, outside, other_port):
        assert by_image[address] == {"skipped media_unusable"}, address
    reasons = {row["Img"].rpartition("/")[2]: row["reason"] for row in results}
    for name, (reason, words) in BROKEN.items():
        assert reasons[name].startswith(f"media_unusable: {reason}: ")
        assert words in reasons[name]
    assert images.paths() == sorted(f"/{name}" for name in names * 2)
    for _, headers in images.asked:
        assert set(headers) <= {"host", "accept", "accept-encoding", "user-agent", "connection"}
        assert not any(TOKEN in value for value in headers.values())
    assert any(entry.header("token") == TOKEN for entry in box.log)


def test_without_being_asked_no_image_is_fetched(bench: Workbench, box: Sandbox, images: ImageHost) -> None:
    campaign = mixed(bench, box, images, [f"http://{images.entry}/gone.jpg"])
    for command in ("check", "plan", "preview"):
        bench.run(command, campaign).must(0)
    bench.send(campaign).must(0)
    assert images.asked == []
    assert len(box.log) == 2


def test_a_previews_page_shows_the_pictures_in_their_own_shape(
    bench: Workbench, box: Sandbox, images: ImageHost
) -> None:
    base = f"http://{images.entry}"
    campaign = mixed(bench, box, images, [f"{base}/good.png", f"{base}/good.jpg", f"{base}/gone.jpg"])
    bench.run("preview", campaign, "--images").must(0)
    page = webpage.read(bench.report("preview.html"))
    pictures = page.all("image")
    assert [(one.attributes["width"], one.attributes["height"]) for one in pictures] == [("60", "30"), ("1200", "800")]
    assert [one.attributes["href"].partition(",")[0] for one in pictures] == [
        "data:image/png;base64",
        "data:image/jpeg;base64",
    ]
    assert {card.row for card in webpage.cards(page)} == {2, 3, 4, 5}


def test_an_entry_of_image_hosts_that_is_no_host_is_an_error_of_the_file(
    bench: Workbench, box: Sandbox, images: ImageHost
) -> None:
    campaign = mixed(bench, box, images, [f"http://{images.entry}/good.jpg"], image_hosts=["http://a/b"])
    refused = bench.run("check", campaign, "--images").must(2)
    assert "image_hosts" in refused.err or re.search(r"spring.yaml:\d+", refused.err)
    assert "'http://a/b' is not a host" in refused.err
    assert images.asked == []


@pytest.mark.slow
def test_an_image_that_drips_is_given_up_in_time_and_only_doubted(
    bench: Workbench, box: Sandbox, images: ImageHost
) -> None:
    """The host may just be busy, so its people are not left out."""
    base = f"http://{images.entry}"
    campaign = mixed(bench, box, images, [f"{base}/drip.jpg", f"{base}/good.jpg"], images="check")
    began = time.monotonic()
    checked = bench.run("check", campaign, "--images").must(0)
    assert 14 < time.monotonic() - began < 40
    assert re.search(r"drip.jpg: doubtful: slow: ", re.sub(r"\s+", " ", checked.out))
    assert "0 good, 0 cannot be used, 2 doubtful" in re.sub(r"\s+", " ", checked.out)
    bench.send(campaign).must(0)
    assert len(by_phone(box)) == 4
