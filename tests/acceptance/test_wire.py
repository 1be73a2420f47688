"""What goes over the wire is what the vendors' pages show, for everybody once, and what comes back is in the results."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from acceptance.workbench import IMAGE, PHONE_ID, TOKEN, Workbench, by_phone, numbers
from runner.sandbox import Entry, Sandbox

Pairs = list[tuple[str, object]]

ROWS = 300
NAMES = ["Ada", "Çiğdem Öz", "محمد", "李雷", "O'Brien", 'Anne "Nan" Lee', "NA", "Zoë\u0308", "😀", "a\\b"]
NOTES = [
    "plain",
    "two\nlines",
    'he said "yes", then left; twice',
    "مرحبا بالعالم",
    "👩‍👩‍👧‍👦 🇹🇷 👍🏽",
    "tab\there",
    "=1+1",
    "<b>&amp;</b> </script>",
    "100% {name} $NAME \\n %s",
    "ﬁ № ½ \u00a0 \u2028 end",
]
CAPTION = 'Dear {{ Name }},\n\n"{{ Note }}" — it\'s *for you* 🎁\nشكرا {{ Name }}\n#{{ Nr }}'

HTTP_HEADERS = {"host", "connection", "content-type", "accept", "accept-encoding", "content-length"}
WAPIM_HEADERS = {"token", *HTTP_HEADERS}
ZIXFLOW_HEADERS = {"authorization", *HTTP_HEADERS}


def people() -> list[tuple[str, str, str, str]]:
    """Phone, name, note, number: every name meets every note."""
    return [(f"+{phone}", NAMES[i % 10], NOTES[(i // 10) % 10], str(i + 1)) for i, phone in enumerate(numbers(ROWS))]


def caption_for(name: str, note: str, nr: str) -> str:
    return f'Dear {name},\n\n"{note}" — it\'s *for you* 🎁\nشكرا {name}\n#{nr}'


def strictly(body: str) -> object:
    """The JSON with objects as lists of pairs: a repeated key, or another order, shows."""
    return json.loads(body, object_pairs_hook=list)


def check_head(entry: Entry, path: str, names: set[str]) -> None:
    assert (entry.method, entry.path) == ("POST", path)
    assert {name.lower() for name, _ in entry.headers} == names
    assert len(entry.headers) == len(names)
    assert entry.header("content-type") == "application/json"
    assert entry.header("content-length") == str(len(entry.body.encode()))


def check_wapim(entry: Entry, phone: str, caption: str) -> None:
    check_head(entry, "/api/v1/whatsapp/message/image", WAPIM_HEADERS)
    assert entry.header("token") == TOKEN
    assert strictly(entry.body) == [("phone_number", phone), ("content_url", IMAGE), ("caption", caption)]


def check_zixflow(entry: Entry, phone: str, caption: str) -> None:
    check_head(entry, "/api/v1/campaign/whatsapp/message/send", ZIXFLOW_HEADERS)
    assert entry.header("authorization") == f"Bearer {TOKEN}"
    wanted: Pairs = [
        ("to", phone),
        ("phoneId", PHONE_ID),
        ("type", "image"),
        ("image", [("link", IMAGE), ("caption", caption)]),
        ("linkWithRecord", False),
        ("submissionStatus", True),
    ]
    assert strictly(entry.body) == wanted


@pytest.mark.parametrize("file", ["people.csv", "people.xlsx"])
@pytest.mark.parametrize("provider", ["wapim", "zixflow"])
def test_everybody_gets_exactly_the_request_of_the_vendors_page(
    bench: Workbench, box: Sandbox, provider: str, file: str
) -> None:
    bench.audience(people(), ("Phone", "Name", "Note", "Nr"), file)
    campaign = bench.campaign(
        box.url, provider={"name": provider}, audience={"file": file}, message={"caption": CAPTION}
    )

    bench.send(campaign).must(0)

    requests = by_phone(box)
    assert sorted(requests) == numbers(ROWS)
    check = check_wapim if provider == "wapim" else check_zixflow
    for phone, name, note, nr in people():
        check(requests[phone[1:]], phone[1:], caption_for(name, note, nr))
    assert len({entry.queue_id for entry in requests.values()}) == ROWS

    rows, cells = bench.results(), bench.sheet()
    assert len(rows) == len(cells) == ROWS
    for (phone, name, note, nr), row, cell in zip(people(), rows, cells, strict=True):
        entry = requests[phone[1:]]
        assert (row["phone"], row["status"], row["queue_id"]) == (phone[1:], "accepted", entry.queue_id)
        assert (cell["phone"], cell["status"], cell["queue_id"]) == (phone[1:], "accepted", entry.queue_id)
        assert row["caption"] == cell["caption"] == caption_for(name, note, nr)
        assert cell["Name"] == name
        assert cell["Note"] == note


def test_a_campaigns_scheduled_time_is_sent_as_text_of_unix_seconds(bench: Workbench, box: Sandbox) -> None:
    bench.audience([("+905320000001", "Ada"), ("+905320000002", "Grace")])
    campaign = bench.campaign(
        box.url,
        send={"scheduled_time": "2031-05-01 09:00", "timezone": "Europe/Istanbul"},
        message={"caption": None, "template": "t.j2"},
    )
    bench.write("templates/t.j2", "Hello")
    bench.send(campaign).must(0)
    seconds = str(int(datetime(2031, 5, 1, 6, 0, tzinfo=UTC).timestamp()))
    for phone, entry in by_phone(box).items():
        assert strictly(entry.body) == [
            ("phone_number", phone),
            ("content_url", IMAGE),
            ("caption", "Hello"),
            ("scheduled_time", seconds),
        ]


def test_a_column_can_give_each_row_its_own_scheduled_time(bench: Workbench, box: Sandbox) -> None:
    rows = [
        ("+905320000001", "2031-05-01 09:00"),
        ("+905320000002", "2031-05-01T09:00:00+00:00"),
        ("+905320000003", "2031-12-24 18:30"),
        ("+905320000004", "soon"),
    ]
    bench.audience(rows, ("Phone", "When"))
    campaign = bench.campaign(
        box.url,
        message={"caption": "Hello"},
        send={"scheduled_time": "{{ When }}", "timezone": "Europe/Istanbul"},
    )
    bench.send(campaign).must(0)
    times = {phone: json.loads(entry.body)["scheduled_time"] for phone, entry in by_phone(box).items()}
    assert times == {
        "905320000001": str(int(datetime(2031, 5, 1, 6, 0, tzinfo=UTC).timestamp())),
        "905320000002": str(int(datetime(2031, 5, 1, 9, 0, tzinfo=UTC).timestamp())),
        "905320000003": str(int(datetime(2031, 12, 24, 15, 30, tzinfo=UTC).timestamp())),
    }
    last = bench.results()[3]
    assert (last["status"], last["attempts"]) == ("skipped", "0")
    assert last["reason"].startswith("render_error")
    assert "'soon' is not a date-time" in last["reason"]


def test_zixflow_cannot_schedule_and_says_so_before_anything_is_sent(bench: Workbench, box: Sandbox) -> None:
    bench.audience([("+905320000001", "Ada")])
    campaign = bench.campaign(
        box.url, provider={"name": "zixflow"}, send={"scheduled_time": "2031-05-01T09:00:00+03:00"}
    )
    refused = bench.send(campaign).must(2)
    assert "Zixflow cannot send at a later time" in refused.err
    assert box.log == []


def test_zixflows_options_go_out_as_they_stand_in_the_campaign(bench: Workbench, box: Sandbox) -> None:
    bench.audience([("+905320000001", "Ada")])
    options: dict[str, object] = {
        "name": "zixflow",
        "link_with_record": True,
        "source": "Spring fair",
        "report_url": "https://example.com/hooks/zixflow?shop=1",
        "submission_status": False,
    }
    bench.send(bench.campaign(box.url, provider=options)).must(0)
    (entry,) = box.log
    assert strictly(entry.body) == [
        ("to", "905320000001"),
        ("phoneId", PHONE_ID),
        ("type", "image"),
        ("image", [("link", IMAGE), ("caption", "Hello Ada")]),
        ("source", "Spring fair"),
        ("linkWithRecord", True),
        ("reportURL", "https://example.com/hooks/zixflow?shop=1"),
        ("submissionStatus", False),
    ]
    (row,) = bench.results()
    assert (row["status"], row["queue_id"]) == ("accepted", "")  # without submissionStatus no id comes back


def test_the_image_address_may_differ_from_row_to_row(bench: Workbench, box: Sandbox) -> None:
    bench.audience([("+905320000001", "a b"), ("+905320000002", "ç"), ("+905320000003", "")], ("Phone", "Sku"))
    campaign = bench.campaign(
        box.url, message={"image": "https://cdn.example.com/{{ Sku|urlencode }}.jpg", "caption": "Hello"}
    )
    bench.send(campaign).must(0)
    images = {phone: json.loads(entry.body)["content_url"] for phone, entry in by_phone(box).items()}
    assert images["905320000001"] == "https://cdn.example.com/a%20b.jpg"
    assert images["905320000002"] == "https://cdn.example.com/%C3%A7.jpg"
    assert bench.results()[2]["reason"].startswith("render_error")


def test_the_secret_is_in_no_file_and_in_no_output(bench: Workbench, box: Sandbox) -> None:
    bench.audience([(f"+{phone}", "Ada") for phone in numbers(5)])
    campaign = bench.campaign(box.url)
    said = [bench.run("plan", campaign), bench.send(campaign), bench.run("status", "spring", "--json")]
    assert box.log[0].header("token") == TOKEN
    for finished in said:
        assert TOKEN not in finished.out + finished.err
    for path in bench.root.rglob("*"):
        if path.is_file():
            assert TOKEN.encode() not in path.read_bytes(), path
