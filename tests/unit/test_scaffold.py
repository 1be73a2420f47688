"""`campaign init`: what it writes works as it is, and nothing that exists is touched."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import orjson
import pytest
import yaml

from runner.campaign import load_campaign, schema
from runner.errors import InputError
from runner.scaffold import scaffold
from runner.workspace import find_workspace


def test_the_sample_campaign_loads_and_its_files_are_there(tmp_path: Path) -> None:
    written = scaffold(tmp_path / "new", orjson.dumps(schema()))
    assert all(path.is_file() for path in written)
    file = tmp_path / "new" / "campaigns" / "hello.yaml"
    place = find_workspace(file, None)
    assert place.root == tmp_path / "new"
    campaign = load_campaign(file, place, {"WAPIM_TOKEN": "invented-token-4411"})
    assert campaign.name == "hello"
    assert campaign.audience_path.is_file()
    assert campaign.message.template is not None
    assert (place.templates / campaign.message.template).is_file()


def test_the_first_line_leads_an_editor_to_a_schema_that_the_sample_fulfils(tmp_path: Path) -> None:
    scaffold(tmp_path, orjson.dumps(schema()))
    file = tmp_path / "campaigns" / "hello.yaml"
    header = re.match(r"# yaml-language-server: \$schema=(\S+)\n", file.read_text(encoding="utf-8"))
    assert header is not None
    found = json.loads((file.parent / header[1]).read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(found).validate(yaml.safe_load(file.read_text(encoding="utf-8")))


def test_reports_are_for_the_owners_eyes_and_secrets_stay_out_of_git(tmp_path: Path) -> None:
    scaffold(tmp_path, b"{}")
    assert (tmp_path / "reports").stat().st_mode & 0o077 == 0
    assert {"reports/", ".env"} <= set((tmp_path / ".gitignore").read_text().split())


def test_nothing_that_is_there_is_touched(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "hello.j2").write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        scaffold(tmp_path, b"{}")
    assert (tmp_path / "templates" / "hello.j2").read_text() == "mine"
    assert not (tmp_path / "campaigns").exists()


def test_a_gitignore_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("mine\n")
    assert tmp_path / ".gitignore" not in scaffold(tmp_path, b"{}")
    assert (tmp_path / ".gitignore").read_text() == "mine\n"
