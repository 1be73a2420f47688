"""Where things lie, and what may be read from there."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.errors import InputError
from runner.workspace import Workspace, campaign_name_from, find_workspace


def test_the_workspace_is_the_parent_of_the_campaigns_folder(tmp_path: Path) -> None:
    folder = tmp_path / "shop" / "campaigns" / "2026"
    folder.mkdir(parents=True)
    assert find_workspace(folder / "spring.yaml", None).root == tmp_path / "shop"


def test_without_a_campaigns_folder_it_is_the_files_own(tmp_path: Path) -> None:
    assert find_workspace(tmp_path / "spring.yaml", None).root == tmp_path


def test_the_option_wins_and_must_name_a_folder(tmp_path: Path) -> None:
    (tmp_path / "campaigns").mkdir()
    assert find_workspace(tmp_path / "x" / "spring.yaml", tmp_path).root == tmp_path
    with pytest.raises(InputError, match="no such folder"):
        find_workspace(None, tmp_path / "nowhere")


def test_without_a_file_it_is_where_you_are_or_above_campaigns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "campaigns").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_workspace(None, None).root == tmp_path
    monkeypatch.chdir(tmp_path / "campaigns")
    assert find_workspace(None, None).root == tmp_path


def test_practice_never_shares_a_ledger_or_a_folder_with_the_real_thing(tmp_path: Path) -> None:
    real, practice = Workspace(tmp_path), Workspace(tmp_path, sandbox=True)
    assert real.ledger_path != practice.ledger_path
    assert real.folder("spring") == tmp_path / "reports" / "spring"
    assert practice.folder("spring") == tmp_path / "reports" / "spring-sandbox"


# --- the environment --------------------------------------------------------------------------------------------------


def test_the_environment_wins_over_the_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("CAMPAIGN_TEST_A=file\nCAMPAIGN_TEST_B='with space'\nCAMPAIGN_TEST_C\n")
    monkeypatch.setenv("CAMPAIGN_TEST_A", "shell")
    found = Workspace(tmp_path).environment()
    assert found["CAMPAIGN_TEST_A"] == "shell"
    assert found["CAMPAIGN_TEST_B"] == "with space"
    assert "CAMPAIGN_TEST_C" not in found


def test_a_value_of_the_env_file_is_never_filled_in_from_another(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CAMPAIGN_TEST_A=x${HOME}y\n")
    assert Workspace(tmp_path).environment()["CAMPAIGN_TEST_A"] == "x${HOME}y"


def test_an_env_file_of_a_windows_editor_is_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes("\ufeffCAMPAIGN_TEST_A=x\r\n".encode())
    assert Workspace(tmp_path).environment()["CAMPAIGN_TEST_A"] == "x"


def test_an_env_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"A=\xff\xfe")
    with pytest.raises(InputError, match=r"\.env: is not UTF-8 text"):
        Workspace(tmp_path).environment()


# --- paths ------------------------------------------------------------------------------------------------------------


def test_a_path_is_relative_to_the_campaign_file(tmp_path: Path) -> None:
    base = tmp_path / "campaigns"
    assert Workspace(tmp_path).resolve("a/../b.csv", base=base, where="x") == base / "b.csv"
    assert Workspace(tmp_path).resolve("../lists/b.csv", base=base, where="x") == tmp_path / "lists" / "b.csv"


@pytest.mark.parametrize("name", ["../../b.csv", "/etc/passwd", "link.csv", "nul\0.csv"])
def test_a_path_that_leads_out_of_the_workspace_is_refused(name: str, tmp_path: Path) -> None:
    root = tmp_path / "shop"
    (root / "campaigns").mkdir(parents=True)
    (tmp_path / "outside.csv").write_text("x")
    (root / "campaigns" / "link.csv").symlink_to(tmp_path / "outside.csv")
    with pytest.raises(InputError) as caught:
        Workspace(root).resolve(name, base=root / "campaigns", where="spring.yaml:3:1 audience.file")
    assert str(caught.value).startswith("spring.yaml:3:1 audience.file: ")


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    ["campaign: spring\n", "# c\ncampaign:   'spring'  # x\n", '\ufeffcampaign: "spring"\n', "a: b\ncampaign: spring"],
)
def test_a_campaign_may_be_named_by_its_file(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(content, encoding="utf-8")
    assert campaign_name_from(str(tmp_path / "a.yaml")) == "spring"
    assert campaign_name_from("spring") == "spring"


@pytest.mark.parametrize(
    ("content", "says"), [(b"a: b", "names no campaign"), (b"\xff\xfe", "is not UTF-8"), (None, "cannot be read")]
)
def test_a_file_that_names_none_is_refused(content: bytes | None, says: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(InputError, match=says):
        campaign_name_from(str(tmp_path / "a.yaml"))


URL = "postgresql://anna:hunter2-x@db.example.com/campaigns"


@pytest.mark.parametrize(
    ("option", "environment", "dotenv", "expected"),
    [
        ("", "", "", "ROOT/reports/ledger.sqlite3"),
        ("", "", URL, URL),
        ("", "shared.sqlite3", URL, "ROOT/shared.sqlite3"),
        ("mine.sqlite3", URL, URL, "HERE/mine.sqlite3"),
        (URL, "shared.sqlite3", "", URL),
    ],
    ids=["nothing said", ".env", "environment over .env", "option over both", "option"],
)
def test_the_ledger_lies_where_it_was_said_to_be(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    environment: str,
    dotenv: str,
    expected: str,
) -> None:
    root, here = tmp_path / "root", tmp_path / "here"
    root.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("CAMPAIGN_LEDGER", environment) if environment else monkeypatch.delenv("CAMPAIGN_LEDGER", False)
    if dotenv:
        (root / ".env").write_text(f"CAMPAIGN_LEDGER={dotenv}\n")
    place = find_workspace(None, root, ledger=option)
    assert str(place.ledger_place()) == expected.replace("ROOT", str(root)).replace("HERE", str(here))
    practice = find_workspace(None, root, sandbox=True, ledger=option)
    assert practice.ledger_place() == root / "reports" / "sandbox.sqlite3"
    assert "hunter2" not in repr(place)
