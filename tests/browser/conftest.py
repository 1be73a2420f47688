"""A real Chromium without a screen. Root may install it (Debian's package); others skip these tests, but not in CI."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome-stable")
PACKAGES = ("chromium", "fonts-noto-color-emoji")  # without the font, emoji are empty boxes
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


def chromium() -> str:
    """Where the browser is; installed first when that is possible. Skips the tests (fails them in CI) when there is none."""
    found = installed()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        install()
        found = installed()
    if found is not None:
        return found
    message = f"no Chromium here; as root: apt-get install {' '.join(PACKAGES)}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def installed() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def install() -> None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]  # another worker may be at it
    for command in ([*apt, "update"], [*apt, "install", "-y", "--no-install-recommends", *PACKAGES]):
        subprocess.run(command, env=environment, check=False, capture_output=True, timeout=900)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for a module. Not longer: Playwright keeps an event loop running, and asynchronous tests want their own."""
    path = chromium()
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield running
        running.close()
