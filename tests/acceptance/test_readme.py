"""The README's commands are run as they stand, in order, and their output is compared with what it shows."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
CHANGING = re.compile(r"\b[0-9a-f]{16}\b|\b\d{4}-\d\d-\d\d \d\d:\d\d\b")


def test_every_command_of_the_tour_does_what_the_readme_shows(tmp_path: Path) -> None:
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "campaign").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m runner "$@"\n')
    (bin_folder / "campaign").chmod(0o755)
    environment = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    blocks = BLOCK.findall(README.read_text("utf-8"))
    assert len(blocks) >= 4
    for block in blocks:
        command, _, shown = block.partition("\n")
        assert command.startswith("$ "), block
        done = subprocess.run(
            shlex.split(command[2:]), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        if shown.strip():
            assert plain(done.stdout) == plain(shown), command


def plain(text: str) -> list[str]:
    return [CHANGING.sub("…", line).rstrip() for line in text.strip().splitlines()]


def test_the_campaign_file_shown_is_the_one_that_init_writes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "runner", "init", str(tmp_path)], check=True, capture_output=True)
    written = (tmp_path / "campaigns" / "hello.yaml").read_text("utf-8")
    shown = re.search(r"```yaml\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert shown is not None
    keys = [line.split("#")[0].rstrip() for line in shown[1].splitlines()]
    assert keys == [line.split("#")[0].rstrip() for line in written.splitlines() if not line.startswith("#")]
