"""A scenario file: what each key means, and what is said about a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.sandbox import Action, Drop, RateLimit, Rule, Scenario, ScenarioError, parse_scenario, read_scenario
from runner.sandbox_scenario import RuleBook, SlidingLimit


def test_an_empty_file_is_a_provider_without_faults() -> None:
    assert parse_scenario("") == parse_scenario("# nothing\n") == parse_scenario("{}") == Scenario()


def test_every_key_of_a_file_is_understood(tmp_path: Path) -> None:
    file = tmp_path / "storm.yaml"
    file.write_text(
        """
seed: 7
latency: [20ms, 0.5s]
rate_limit: 10/min
queue_seconds: 0.5
wapim_device_offline: true
magic: false
rules:
  - phone: "90532[0-4]*"
    times: 2
    after: 1
    every: 3
    status: 503
    retry_after: 3
    latency: 50ms
    headers: {X-Kind: storm}
    taken: true
  - drop: reset
  - retry_after: "Wed, 21 Oct 2026 07:28:00 GMT"
  - body: {a: [1, null]}
  - body: "<p>"
    status: 502
    headers: {content-type: text/html}
""",
        encoding="utf-8",
    )
    assert read_scenario(file) == Scenario(
        seed=7,
        latency=(0.02, 0.5),
        rate_limit=RateLimit(10, 60.0),
        queue_seconds=0.5,
        wapim_device_offline=True,
        magic=False,
        rules=(
            Rule(
                Action(
                    status=503,
                    headers=(("X-Kind", "storm"), ("Retry-After", "3")),
                    latency=(0.05, 0.05),
                    taken=True,
                ),
                phone="90532[0-4]*",
                times=2,
                after=1,
                every=3,
            ),
            Rule(Action(drop=Drop.RESET)),
            Rule(Action(status=429, headers=(("Retry-After", "Wed, 21 Oct 2026 07:28:00 GMT"),))),
            Rule(Action(status=200, body=b'{"a":[1,null]}')),
            Rule(Action(status=502, body=b"<p>", content_type="text/html")),
        ),
    )


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("- a\n", 1, "must be a mapping of settings, not a list"),
        ("seed: 1\nrules: [\n", 3, "not valid YAML"),
        ("a: !!python/object:x {}\n", 1, "not valid YAML"),
        ("seed: 1\n? [a]\n: 1\n", 2, "not valid YAML"),
        ("seed: 2026-13-45\n", 1, "not valid YAML"),
        ("seed: 1\nratelimit: 4/s\n", 2, "ratelimit: unknown key; did you mean 'rate_limit'?"),
        ("zzz: 1\n", 1, "zzz: unknown key; known are seed, latency"),
        ("seed: 1\nseed: 2\n", 2, "seed: is written twice (first on line 1)"),
        ("seed: x\n", 1, "seed: must be a whole number, not 'x'"),
        ("seed: true\n", 1, "seed: must be a whole number, not True"),
        ("\nlatency: 50\n", 2, "latency: must be a time with a unit such as 50ms"),
        ("latency: 50 minutes\n", 1, "latency: must be a time with a unit"),
        ("latency: [80ms, 20ms]\n", 1, "latency: must be a list [shortest, longest]"),
        ("latency: [80ms]\n", 1, "latency: must be a list [shortest, longest]"),
        ("rate_limit: 40\n", 1, "rate_limit: must be a rate such as 40/s"),
        ("rate_limit: 0/s\n", 1, "rate_limit: must be a rate such as 40/s"),
        ("queue_seconds: -1\n", 1, "queue_seconds: must be a number of seconds"),
        ("queue_seconds: .inf\n", 1, "queue_seconds: must be a number of seconds"),
        ("wapim_device_offline: 1\n", 1, "wapim_device_offline: must be true or false, not 1"),
        ("rules: reset\n", 1, "rules: must be a list, not 'reset'"),
        ("rules:\n  - status: 500\n  - reset\n", 3, "rules[2]: a rule is a mapping, not a text"),
        ('rules:\n  - phone: "1*"\n', 2, "rules[1]: the rule does nothing"),
        ("rules:\n  - status: 500\n    tiems: 2\n", 3, "rules[1].tiems: unknown key; did you mean 'times'?"),
        ("rules:\n  - phone: 905320001234\n    status: 500\n", 2, "rules[1].phone: must be digits or a glob"),
        ('rules:\n  - phone: "+90*"\n    status: 500\n', 2, "rules[1].phone: must be digits or a glob"),
        ("rules:\n  - status: 99\n", 2, "rules[1].status: must be an HTTP status from 200 to 599, not 99"),
        ("rules:\n  - status: 500\n    times: 0\n", 3, "rules[1].times: must be a whole number, 1 or more, not 0"),
        ("rules:\n  - status: 500\n    every: 0\n", 3, "rules[1].every: must be a whole number, 1 or more"),
        ("rules:\n  - status: 500\n    after: -1\n", 3, "rules[1].after: must be a whole number, 0 or more"),
        ("rules:\n  - drop: explode\n", 2, "rules[1].drop: must be one of before_read, after_read, reset"),
        ("rules:\n  - drop: reset\n    status: 500\n", 3, "rules[1].status: cannot be had together with `drop`"),
        ('rules:\n  - phone: "1*"\n    drop: before_read\n', 2, 'rules[1].phone: must be "*" with `drop: before_read`'),
        ("rules:\n  - drop: before_read\n    latency: 1s\n", 3, "rules[1].latency: cannot be had together with"),
        ("rules:\n  - retry_after: 1.5\n", 2, "rules[1].retry_after: must be whole seconds"),
        ("rules:\n  - body: 5\n", 2, "rules[1].body: must be a text or a mapping"),
        ("rules:\n  - body: {1: a}\n", 2, "rules[1].body: cannot be written as JSON"),
        ("rules:\n  - body: &a {b: *a}\n", 2, "rules[1].body: cannot be written as JSON"),
        ("rules:\n  - headers: [a]\n", 2, "rules[1].headers: must be a mapping"),
        ('rules:\n  - headers: {"a b": c}\n', 2, "rules[1].headers: 'a b' is no header name"),
        ("rules:\n  - headers: {X-Kind: 5}\n", 2, "rules[1].headers: X-Kind must be a text of printable ASCII"),
        ('rules:\n  - headers: {X-Kind: "a\\r\\nb"}\n', 2, "rules[1].headers: X-Kind must be a text of printable"),
        ('rules:\n  - headers: {Content-Length: "5"}\n', 2, "rules[1].headers: Content-Length cannot be set by hand"),
        ("rules:\n  - headers: {Content-Type: a/b}\n", 2, "rules[1].headers: Content-Type can only be set together"),
    ],
)
def test_a_wrong_file_names_the_file_the_line_and_the_key(text: str, line: int, said: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(text, "storm.yaml")
    assert str(caught.value).startswith(f"storm.yaml:{line}: {said}")
    assert "\n" not in str(caught.value)


def test_every_problem_of_a_file_is_told_at_once() -> None:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario("seed: x\nmagic: maybe\nrules:\n  - {status: 5, drop: x}\n", "storm.yaml")
    lines = str(caught.value).splitlines()
    assert sorted(line.split(" ")[0] + " " + line.split(" ")[1] for line in lines) == [
        "storm.yaml:1: seed:",
        "storm.yaml:2: magic:",
        "storm.yaml:4: rules[1].drop:",
        "storm.yaml:4: rules[1].status:",
    ]


def test_a_file_that_cannot_be_read_is_a_scenario_error(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"absent\.yaml: cannot be read"):
        read_scenario(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"# \xe9\n")
    with pytest.raises(ScenarioError, match=r"latin\.yaml: cannot be read"):
        read_scenario(tmp_path / "latin.yaml")
    (tmp_path / "nul.yaml").write_bytes(b"seed: \x00\n")
    with pytest.raises(ScenarioError, match=r"nul\.yaml:1: not valid YAML"):
        read_scenario(tmp_path / "nul.yaml")


def test_a_rule_that_is_used_up_makes_way_and_one_that_does_not_match_counts_nothing() -> None:
    book = RuleBook(
        [
            Rule(Action("first", 500), phone="905*", times=1),
            Rule(Action("second", 502), phone="90532000123[45]", after=1),
        ]
    )
    picked = [book.pick(phone) for phone in ("4915", "905320001234", "905320001234", "905320001235", "905320001236")]
    assert [found and found[0] for found in picked] == [None, 1, None, 2, None]


def test_rules_that_close_unread_are_asked_apart_from_the_others() -> None:
    book = RuleBook([Rule(Action(status=500)), Rule(Action(drop=Drop.BEFORE_READ), after=1, times=1)])
    assert [book.before_read() for _ in range(3)] == [None, 2, None]
    assert book.pick("905320001234") == (1, Action(status=500))


@pytest.mark.parametrize("status", [None, 200, 204, 299])
def test_a_success_takes_the_message(status: int | None) -> None:
    assert Action(status=status).takes
    assert not Action(status=status, taken=False).takes


def test_a_refused_request_does_not_use_up_the_limit() -> None:
    limit = SlidingLimit(RateLimit(2, 1.0))
    waits = [limit.refuse("token", at) for at in (0, 1, 2, 3, 999_999, 1_000_000, 1_000_000, 1_000_001)]
    assert waits == [0, 0, 1, 1, 1, 0, 1, 0]
