"""A campaign file becomes a checked, frozen Campaign, or every problem at once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from pydantic import SecretStr

from runner.campaign import SANDBOX_NUMBER, SANDBOX_TOKEN, Campaign, load_campaign
from runner.errors import InputError
from runner.units import Rate
from runner.workspace import Workspace

TOKEN = "invented-token-4411"
GOOD = """\
campaign: spring-sale
provider:
  name: wapim
  token: ${WAPIM_TOKEN}
audience:
  file: customers.csv
  phone: Mobile
message:
  image: https://cdn.example.com/a.jpg
  caption: Hi
"""
ZIXFLOW = GOOD.replace("wapim", "zixflow").replace("WAPIM", "ZIXFLOW")


def load(text: str, folder: Path, env: dict[str, str] | None = None, base_url: str | None = None) -> Campaign:
    (folder / "customers.csv").touch()
    path = folder / "spring.yaml"
    path.write_text(text, encoding="utf-8")
    return load_campaign(path, Workspace(folder), {"WAPIM_TOKEN": TOKEN} if env is None else env, base_url)


def refused(text: str, folder: Path, env: dict[str, str] | None = None) -> str:
    with pytest.raises(InputError) as caught:
        load(text, folder, env)
    return str(caught.value)


# --- what comes out ---------------------------------------------------------------------------------------------------


def test_the_least_file_takes_the_providers_own_pace(tmp_path: Path) -> None:
    campaign = load(GOOD, tmp_path)
    assert campaign.name == "spring-sale"
    assert campaign.rates == (Rate(10, 60.0),)
    assert campaign.concurrency == 1
    assert campaign.audience_path == tmp_path / "customers.csv"
    assert (campaign.start_at, campaign.deadline, campaign.deadline_after, campaign.scheduled_at) == (None,) * 4
    assert campaign.settings.token.get_secret_value() == TOKEN


def test_it_is_frozen(tmp_path: Path) -> None:
    campaign = load(GOOD, tmp_path)
    with pytest.raises(dataclasses.FrozenInstanceError):
        campaign.name = "other"  # type: ignore[misc]  # the type checker refuses it as well
    with pytest.raises(ValueError, match="frozen"):
        campaign.send.retries = 7  # type: ignore[misc]  # likewise


def test_limits_are_stacked_from_the_shortest_window_and_unlimited_is_none(tmp_path: Path) -> None:
    stacked = load(GOOD + "send:\n  rate: [1000/day, 5/s]\n  concurrency: 7\n", tmp_path)
    assert stacked.rates == (Rate(5, 1.0), Rate(1000, 86400.0))
    assert stacked.concurrency == 7
    assert load(GOOD + "send:\n  rate: unlimited\n", tmp_path).rates == ()


def test_times_are_unix_seconds_and_durations_seconds(tmp_path: Path) -> None:
    send = "send:\n  timezone: Europe/Istanbul\n  start_at: 2026-12-01 09:00\n  deadline: 2026-12-01 20:00\n  timeout: 1.5min\n"
    campaign = load(GOOD + send, tmp_path)
    assert campaign.start_at == 1796104800
    assert campaign.deadline == 1796104800 + 11 * 3600
    assert campaign.send.timeout == 90
    assert load(GOOD + "send:\n  deadline: 3h\n", tmp_path).deadline_after == 3 * 3600


def test_a_schedule_is_one_time_for_all_or_a_template_for_each_row(tmp_path: Path) -> None:
    assert load(GOOD + "send:\n  scheduled_time: 2026-12-01 09:00+03:00\n", tmp_path).scheduled_at == 1796104800
    each = load(GOOD + 'send:\n  scheduled_time: "{{ When }}"\n', tmp_path)
    assert each.scheduled_at is None
    assert each.send.scheduled_time == "{{ When }}"


def test_an_empty_caption_in_quotes_is_a_picture_without_words(tmp_path: Path) -> None:
    assert load(GOOD.replace("caption: Hi", 'caption: ""'), tmp_path).message.caption == ""


def test_settings_without_their_secrets_are_fit_for_plans_and_reports(tmp_path: Path) -> None:
    campaign = load(GOOD, tmp_path)
    assert campaign.public_settings() == {"name": "wapim", "base_url": "https://api.wapim.io"}
    assert TOKEN not in repr(campaign)


# --- secrets and variables --------------------------------------------------------------------------------------------


def test_a_token_in_the_file_is_refused_without_being_shown(tmp_path: Path) -> None:
    for token in (TOKEN, f'"{TOKEN}"', f"x${{WAPIM_TOKEN}}{TOKEN}", f"[{TOKEN}]", f"{{a: {TOKEN}}}"):
        said = refused(GOOD.replace("${WAPIM_TOKEN}", token), tmp_path)
        assert said.startswith("spring.yaml:4:3 provider.token: must be ${WAPIM_TOKEN}")
        assert TOKEN not in said


def test_a_value_from_the_environment_is_never_shown(tmp_path: Path) -> None:
    text = ZIXFLOW.replace("audience:", "  phone_id: ${ZIXFLOW_PHONE_ID}\n  report_url: ${HOOK}\naudience:", 1)
    env = {"ZIXFLOW_TOKEN": "has space inside", "ZIXFLOW_PHONE_ID": "letters-4413", "HOOK": "http://hook.example/4414"}
    said = refused(text, tmp_path, env)
    assert [line.split(" ")[1] for line in said.splitlines() if line.startswith("spring")] == [
        "provider.token:",
        "provider.phone_id:",
        "provider.report_url:",
    ]
    assert not [value for value in ("inside", "letters-4413", "4414") if value in said]


def test_a_variable_may_be_a_part_of_a_setting_that_is_no_secret(tmp_path: Path) -> None:
    text = GOOD.replace("audience:", "  base_url: https://${HOST}/wapim\naudience:", 1)
    campaign = load(text, tmp_path, {"WAPIM_TOKEN": TOKEN, "HOST": "api.example.com"})
    assert campaign.settings.base_url == "https://api.example.com/wapim"


def test_a_value_of_the_environment_is_not_searched_for_variables(tmp_path: Path) -> None:
    campaign = load(GOOD, tmp_path, {"WAPIM_TOKEN": "${HOME}x${OTHER}"})
    assert campaign.settings.token == SecretStr("${HOME}x${OTHER}")


def test_practice_needs_no_account(tmp_path: Path) -> None:
    text = ZIXFLOW.replace("audience:", "  phone_id: ${ZIXFLOW_PHONE_ID}\n  report_url: ${HOOK}\naudience:", 1)
    campaign = load(text, tmp_path, {}, "http://127.0.0.1:9")
    assert campaign.settings.token.get_secret_value() == SANDBOX_TOKEN
    assert campaign.public_settings() | {"source": None} == {
        "name": "zixflow",
        "base_url": "http://127.0.0.1:9",
        "phone_id": SANDBOX_NUMBER,
        "source": None,
        "link_with_record": False,
        "report_url": None,
        "submission_status": True,
    }


def test_practice_still_refuses_a_token_in_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be"):
        load(GOOD.replace("${WAPIM_TOKEN}", TOKEN), tmp_path, {}, "http://127.0.0.1:9")


# --- problems ---------------------------------------------------------------------------------------------------------


def test_problems_of_every_kind_come_together_in_the_order_of_the_lines(tmp_path: Path) -> None:
    text = (
        GOOD.replace("spring-sale", "Spring")
        .replace("${WAPIM_TOKEN}", "${NOBODY_SET_THIS}")
        .replace("customers.csv", "nobody.csv")
        .replace("  caption: Hi\n", "")
        + "send:\n  timezone: Mars/Olympus\n  deadline: soon\n"
    )
    lines = [int(line.split(":")[1]) for line in refused(text, tmp_path).splitlines() if line.startswith("spring.yaml")]
    assert lines == [1, 4, 6, 8, 11, 12]


@pytest.mark.parametrize("name", ["Spring", "a b", "a/b", "..", "-a", "_a", "a" * 65, "çiçek", "a.b", "spring-sandbox"])
def test_a_name_that_cannot_be_a_folder_is_refused(name: str, tmp_path: Path) -> None:
    assert "cannot be a campaign's name" in refused(GOOD.replace("spring-sale", f'"{name}"'), tmp_path)


def test_a_blank_key_is_never_as_if_it_were_not_there(tmp_path: Path) -> None:
    """A blank `where:` would send to everybody."""
    for key in ("where", "suppress", "allowed_countries", "default_region"):
        said = refused(GOOD.replace("message:", f"  {key}:\nmessage:", 1), tmp_path)
        assert said.startswith(f"spring.yaml:8:3 audience.{key}: has no value")
        assert said.count("spring.yaml") == 1
    assert refused(GOOD + "send:\n", tmp_path).startswith("spring.yaml:11:1 send: has no value")
    assert refused(GOOD + "vars:\n  a: [~]\n", tmp_path).startswith("spring.yaml:12:3 vars.a: must be a single value")


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("  rate: true\n", "must be a rate such as 20/s"),
        ("  rate: []\n", "is an empty list"),
        ("  rate: [[5/s]]\n", "must be a rate such as 20/s"),
        ("  rate: -5\n", "-5 has no unit"),
        ("  timeout: [30s]\n", "must be a duration such as 30s"),
        ("  timeout: true\n", "must be a duration such as 30s"),
        ("  retries: -1\n", "-1 is out of range: it must be at least 0"),
        ("  retries: 1.5\n", "must be a whole number, not 1.5"),
        ("  retries: true\n", "must be a whole number, not true"),
        ("  deadline: 0s\n", "leaves no time"),
        ("  start_at: 5\n", "must be text, not the number 5"),
        ("  timezone: ../etc/passwd\n", "is no time zone"),
        ("  timezone: Europe\n", "is no time zone"),
        ("  scheduled_time: noon\n", "is not a date-time"),
    ],
)
def test_a_wrong_value_under_send_is_named(lines: str, says: str, tmp_path: Path) -> None:
    said = refused(GOOD + "send:\n" + lines, tmp_path)
    assert said.startswith("spring.yaml:12:")
    assert says in said
    assert said.count("spring.yaml") == 1


@pytest.mark.parametrize(
    ("code", "near"), [("tr", "TR"), ("UK", "GB"), ("Turkey", ""), ("XX", ""), ("T", ""), ("90", "")]
)
def test_a_country_that_is_none_is_refused_with_the_likely_code(code: str, near: str, tmp_path: Path) -> None:
    said = refused(GOOD.replace("message:", f'  allowed_countries: [DE, "{code}"]\nmessage:', 1), tmp_path)
    assert said.startswith("spring.yaml:8:27 audience.allowed_countries[2]: ")
    assert (f"did you mean {near}?" in said) == bool(near)


@pytest.mark.parametrize("provider", ["[wapim]", "wapim", "5", "[]"])
def test_a_provider_that_is_no_block_is_refused(provider: str, tmp_path: Path) -> None:
    text = GOOD.replace("provider:\n  name: wapim\n  token: ${WAPIM_TOKEN}\n", f"provider: {provider}\n")
    said = refused(text, tmp_path)
    assert said.startswith("spring.yaml:2:1 provider: must be a block of keys")
    assert "name: and token:" in said


def test_a_needed_setting_of_the_provider_is_asked_for(tmp_path: Path) -> None:
    said = refused(ZIXFLOW, tmp_path, {"ZIXFLOW_TOKEN": TOKEN})
    assert said.startswith("spring.yaml:2:1 provider.phone_id: is missing")
    assert "add a line such as phone_id: ..." in said


def test_a_path_with_a_sign_that_no_path_can_hold_is_refused(tmp_path: Path) -> None:
    said = refused(GOOD.replace("customers.csv", '"a\\0.csv"'), tmp_path)
    assert said.startswith("spring.yaml:6:3 audience.file: ")


def test_any_other_shape_of_file_is_refused(tmp_path: Path) -> None:
    for text, says in (
        ("", "is empty"),
        ("# only\n", "is empty"),
        ("- a\n", "is a list"),
        ("hello\n", "is plain text"),
    ):
        assert f"spring.yaml: {says}" in refused(text, tmp_path)
