"""What an address, an IP, a signed link and the first bytes of a file are judged to be. No network."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.media import (
    ImageVerdict,
    MediaPolicy,
    check_all,
    check_images,
    judge,
    size_text,
)
from runner.mediafetch import Fetched
from runner.mediaformat import complete, name_of, recognise
from runner.mediaguard import Fault, Guard, RefusedError, literal, local, public
from runner.medialinks import lease

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC).timestamp()
LATER = int(NOW) + 3600
UNSPECIFIED = "0.0.0.0"  # noqa: S104 - nothing is bound to it


def png(width: int = 640, height: int = 480) -> bytes:
    header = b"\0\0\0\rIHDR" + width.to_bytes(4) + height.to_bytes(4) + b"\x08\x02\0\0\0" + b"\0\0\0\0"
    return b"\x89PNG\r\n\x1a\n" + header + b"\0\0\0\0IEND\xaeB`\x82"


def jpeg(width: int = 640, height: int = 480, components: int = 3, camera_data: int = 300) -> bytes:
    camera = b"\xff\xe1" + (camera_data + 2).to_bytes(2) + b"E" * camera_data
    frame = b"\xff\xc2\0\x11\x08" + height.to_bytes(2) + width.to_bytes(2) + bytes([components]) + b"\0" * 9
    return b"\xff\xd8" + camera + frame + b"\xff\xda\0\x02pixels\xff\xd9"


def fetched(body: bytes, mime: str = "image/jpeg", **changes: object) -> Fetched:
    facts: dict[str, object] = {
        "mime": mime, "encoding": "", "declared": len(body), "size": len(body), "whole": True, "head": body[:65536],
        "tail": body[-4096:], "body": None, "hops": 0, "host": "cdn.example",
    }  # fmt: skip
    return Fetched(**(facts | changes))  # type: ignore[arg-type]  # a test's shorthand


def refusal(address: str, *allow: str) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        Guard(allow).target(address)
    return caught.value


# --- IP addresses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"])
def test_an_address_that_everybody_reaches_is_public(text: str) -> None:
    assert public(ip_address(text))


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1", "127.255.255.254", UNSPECIFIED, "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
        "169.254.169.254", "100.64.0.1", "100.127.255.255", "198.18.0.1", "192.0.2.1", "198.51.100.1", "203.0.113.1",
        "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
        "::", "::1", "fe80::1", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1",
        "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808",
        "2002:7f00:1::", "2002:808:808::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "4000::1",
    ],
)  # fmt: skip
def test_an_address_of_a_private_or_special_network_is_not_public(text: str) -> None:
    assert not public(ip_address(text))


@pytest.mark.parametrize(
    "text", ["169.254.169.254", "fe80::1", UNSPECIFIED, "224.0.0.1", "8.8.8.8", "::ffff:169.254.1.1"]
)
def test_no_allowance_covers_link_local_or_special_addresses(text: str) -> None:
    assert not local(ip_address(text))


@given(st.ip_addresses())
def test_no_address_is_both_public_and_local(address: object) -> None:
    assert not (public(ip_address(str(address))) and local(ip_address(str(address))))


LOOPBACK = [
    "127.0.0.1", "127.0.0.1.", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0X7F.0.0.1", "0177.0.0.1",
    "017700000001", "127.0.0x0.1", "127.00.0.01", "１２７.0.0.1", "127。0。0。1", "①②⑦.0.0.1",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::1]", "[0:0:0:0:0:0:0:1]", "[64:ff9b::7f00:1]", "0", "0x",
]  # fmt: skip


@pytest.mark.parametrize("host", LOOPBACK)
def test_a_private_ip_is_refused_however_it_is_spelled(host: str) -> None:
    assert refusal(f"http://{host}/a.jpg").fault is Fault.PRIVATE_ADDRESS


@pytest.mark.parametrize(
    "host",
    [
        "256.1.1.1",
        "1.2.3.4.5",
        "1.2.3.0x1ffff",
        "08.1",
        "1.2.3.-4.5",
        "0x1ffffffff",
        "[fe80::1%25eth0]",
        "a.1",
        "9" * 60,
    ],
)
def test_a_host_that_looks_like_an_ip_but_is_none_is_refused(host: str) -> None:
    assert refusal(f"http://{host}/a.jpg").fault is Fault.BAD_URL


def test_a_public_ip_in_an_odd_spelling_is_asked_for_in_its_usual_one() -> None:
    target = Guard().target("http://134744072/a.jpg")
    assert str(target.url) == "http://8.8.8.8/a.jpg"
    assert literal("010.8.8.8") == ip_address("8.8.8.8")


# --- the text of an address ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "", " ", "cdn.example/a.jpg", "//cdn.example/a.jpg", "ftp://cdn.example/a.jpg", "file:///etc/passwd",
        "data:image/png;base64,AAAA", "gs://bucket/a.jpg", "javascript:alert(1)", "https:///a.jpg", "https:/cdn.example/a.jpg",
        "https://cdn.example:99999/a.jpg", "https://cdn.example:x/a.jpg", "https://[::1/a.jpg", "https://cdn example/a.jpg",
        "https://%31%32%37.0.0.1/a.jpg", "https://cdn.example%00.evil.example/", "https://a..b/",
        "https://cdn.example/a\r\nHost: evil.example", "https://cdn.example/a\tb.jpg", "https://cdn.example/a\x00",
        " https://cdn.example/a.jpg", "https://cdn.example/a.jpg\n", "https://good.example\\@127.0.0.1/a.jpg",
        "https://cdn.example/a\\b.jpg", "https://cdn.example/\ud800", "https://cdn.example/" + "a" * 8000,
        "https://" + "a" * 64 + ".example/", "https://" + "a." * 130 + "example/",
    ],
)  # fmt: skip
def test_what_is_not_plainly_a_web_address_is_refused(address: str) -> None:
    assert refusal(address).fault is Fault.BAD_URL


@pytest.mark.parametrize(
    "address",
    ["https://user:secret@cdn.example/", "https://user@cdn.example/", "https://@cdn.example/", "https://:@cdn.example"],
)
def test_a_user_name_in_the_address_is_refused_and_not_repeated(address: str) -> None:
    error = refusal(address)
    assert error.fault is Fault.BAD_URL
    assert "user name" in error.detail
    assert "secret" not in error.detail


def test_an_at_sign_behind_the_host_is_nothing_special() -> None:
    assert Guard().target("https://cdn.example/@shop/a@2x.jpg?by=a@b").host == "cdn.example"


@pytest.mark.parametrize(
    "address", ["http://cdn.example:22/", "https://cdn.example:8443/a.jpg", "http://cdn.example:0/"]
)
def test_other_ports_than_80_and_443_are_refused(address: str) -> None:
    assert refusal(address).fault is Fault.BAD_URL


def test_a_signed_path_and_query_are_sent_exactly_as_they_were_written() -> None:
    address = "https://CDN.Example/%7Ea/%2f/../b+c.jpg?sig=a%2Fb+c%3D&x=%c3%a9&empty=&&"
    assert str(Guard().target(address).url) == address.replace("CDN.Example", "cdn.example")


def test_letters_outside_ascii_and_blanks_are_encoded() -> None:
    url = Guard().target("https://bücher.example/kırmızı gömlek.jpg").url
    assert str(url) == "https://xn--bcher-kva.example/k%C4%B1rm%C4%B1z%C4%B1%20g%C3%B6mlek.jpg"


def test_an_allowed_host_may_be_private_at_its_own_port_only() -> None:
    guard = Guard(["127.0.0.1:8080", "intranet.example", "[::1]:81", "fd00::7"])
    loopback, lan = ip_address("127.0.0.1"), ip_address("10.1.2.3")
    assert guard.target("http://127.0.0.1:8080/a.jpg").port == 8080
    assert guard.target("http://127.1:8080/a.jpg").port == 8080
    assert guard.target("http://[0::1]:81/a.jpg").port == 81
    assert guard.target("https://[fd00::7]/a.jpg").port == 443
    assert guard.admits("intranet.example", 80, lan)
    assert guard.admits("intranet.example", 443, loopback)
    assert not guard.admits("intranet.example", 8080, lan)
    assert not guard.admits("other.example", 80, lan)
    assert not guard.admits("intranet.example", 80, ip_address("169.254.169.254"))
    assert refusal("http://127.0.0.1/a.jpg", "127.0.0.1:8080").fault is Fault.PRIVATE_ADDRESS
    assert refusal("http://intranet.example:8080/", "intranet.example").fault is Fault.BAD_URL


@pytest.mark.parametrize(
    "entry", ["", "https://intranet.example", "intranet.example/path", "a b", "user@host", "host:x", "1.2.3.4.5"]
)
def test_an_allowed_host_that_is_no_host_is_an_error_of_the_caller(entry: str) -> None:
    with pytest.raises(ValueError, match="is not a host"):
        Guard([entry])


def test_a_redirect_is_read_relative_to_where_it_stands() -> None:
    guard = Guard()
    here = guard.target("https://cdn.example/a/b.jpg?x=1")
    assert str(guard.follow(here, "../c.jpg").url) == "https://cdn.example/c.jpg"
    assert str(guard.follow(here, "//img.example/c.jpg").url) == "https://img.example/c.jpg"
    assert str(guard.follow(here, "?y=2").url) == "https://cdn.example/a/b.jpg?y=2"


@pytest.mark.parametrize(
    ("location", "fault"),
    [
        ("http://cdn.example/b.jpg", Fault.REDIRECTED),
        ("//127.0.0.1/b.jpg", Fault.PRIVATE_ADDRESS),
        ("https://0x7f.1/b.jpg", Fault.PRIVATE_ADDRESS),
        ("https://[::ffff:10.0.0.1]/b.jpg", Fault.PRIVATE_ADDRESS),
        ("https:\\\\127.0.0.1\\b.jpg", Fault.REDIRECTED),
        ("file:///etc/passwd", Fault.BAD_URL),
        ("https://user:pw@cdn.example/b.jpg", Fault.BAD_URL),
        ("https://cdn.example:22/b.jpg", Fault.BAD_URL),
        ("https://[::1", Fault.REDIRECTED),
        ("/b\r\nX: y", Fault.REDIRECTED),
    ],
)
def test_a_redirect_is_judged_as_the_first_address_was(location: str, fault: Fault) -> None:
    guard = Guard()
    with pytest.raises(RefusedError) as caught:
        guard.follow(guard.target("https://cdn.example/a.jpg"), location)
    assert caught.value.fault is fault


@given(st.text(max_size=60))
def test_any_text_gives_a_checked_address_or_a_refusal(text: str) -> None:
    for address in (text, f"https://{text}", f"https://cdn.example/{text}"):
        try:
            target = Guard().target(address)
        except RefusedError as error:
            assert error.fault
        else:
            assert target.port in {80, 443}
            assert target.literal is None or public(target.literal)
            assert str(target.url).isascii()


# --- signed links ----------------------------------------------------------------------------------------------------------


def policy_of(moment: int) -> str:
    text = json.dumps({"Statement": [{"Resource": "*", "Condition": {"DateLessThan": {"AWS:EpochTime": moment}}}]})
    return base64.b64encode(text.encode()).decode().translate(str.maketrans("+=/", "-_~"))


def token_of(moment: int) -> str:
    parts = (json.dumps(part).encode() for part in ({"alg": "HS256"}, {"url": "a.jpg", "exp": moment}, {"s": 1}))
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def links(moment: int) -> Iterator[tuple[str, str]]:
    """One link of every family, all of which stop working at the same moment."""
    iso = datetime.fromtimestamp(moment, UTC)
    start = f"{datetime.fromtimestamp(moment - 900, UTC):%Y%m%dT%H%M%SZ}"
    yield "plain", f"Expires={moment}"
    yield "milliseconds", f"expires={moment}000"
    yield "short", f"exp={moment}&token=abc"
    yield "S3 version 2", f"AWSAccessKeyId=AK&Expires={moment}&Signature=x%3D"
    yield "S3 version 4", f"X-Amz-Algorithm=A&X-Amz-Date={start}&X-Amz-Expires=900&X-Amz-Signature=ab"
    yield "Google version 4", f"X-Goog-Date={start}&X-Goog-Expires=900&X-Goog-Signature=ab"
    yield "Alibaba version 4", f"x-oss-date={start}&x-oss-expires=900&x-oss-signature=ab"
    yield "Azure SAS", f"sv=2024-05-04&se={iso:%Y-%m-%dT%H:%M:%S}Z&sr=b&sp=r&sig=a%2Bb"
    yield "Azure SAS, encoded", f"se={iso:%Y-%m-%dT%H%%3A%M%%3A%S}Z&sig=a"
    yield "Azure SAS, offset", f"se={iso:%Y-%m-%dT%H:%M:%S}+00:00&sig=a"
    yield "Facebook", f"_nc_ht=x&oh=00_AB&oe={moment:X}"
    yield "Discord", f"ex={moment:x}&is=1&hm=ab"
    yield "Akamai", f"hdnts=st=1~exp={moment}~acl=/*~hmac=ab"
    yield "Tencent", f"q-sign-algorithm=sha1&q-sign-time={moment - 900};{moment}&q-signature=ab"
    yield "CloudFront, canned", f"Expires={moment}&Signature=ab&Key-Pair-Id=K"
    yield "CloudFront, policy", f"Policy={policy_of(moment)}&Signature=ab&Key-Pair-Id=K"
    yield "JSON web token", f"token={token_of(moment)}"


FAMILIES = [family for family, _ in links(LATER)]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_moment_at_which_a_signed_link_stops_working_is_read_from_it(family: str) -> None:
    assert lease("https://cdn.example/a.jpg?" + dict(links(LATER))[family]).until == LATER


@pytest.mark.parametrize("family", FAMILIES)
def test_a_link_that_has_stopped_working_or_will_during_the_campaign_is_refused_without_a_request(family: str) -> None:
    for moment, words in ((int(NOW) - 60, "stopped working on 2026-05-01 11:59 UTC"), (LATER, "stops working on")):
        url = "https://cdn.example/a.jpg?" + dict(links(moment))[family]
        verdict = check_all([url], MediaPolicy(), clock=lambda: NOW)[url]
        assert (verdict.ok, verdict.reason) == (False, "expires")
        assert words in verdict.detail


@pytest.mark.parametrize(
    "query",
    [
        "", "v=3", "exp=5", "exposure=1700000000", "oe=utf8", "oe=UTF-8", "ex=12337678z", "se=tr", "se=2024-01-01", "expires=never",
        "Expires=3600", "X-Amz-Expires=900", "X-Amz-Date=garbage&X-Amz-Expires=900", "X-Amz-Date=20260501T000000Z&X-Amz-Expires=x",
        "token=a.b.c", "token=" + "A" * 9000, "Policy=%%%", "Policy=" + base64.b64encode(b"[" * 3000).decode(), "expires=0",
        "hdnts=exp=soon", "token=" + token_of(0).replace(".", ".."), "exp=99999999999999999999", "se=0001-01-01T00:00Z&sig=a",
        "&".join(f"a{n}=1" for n in range(300)) + "&expires=1700000000",
    ],
)  # fmt: skip
def test_a_parameter_that_tells_no_moment_does_not_condemn_a_link(query: str) -> None:
    assert lease(f"https://cdn.example/a.jpg?{query}").until is None


def test_a_fragment_is_not_a_query() -> None:
    assert lease("https://cdn.example/a.jpg#?expires=1700000000").until is None


def test_of_several_moments_the_earliest_counts() -> None:
    assert lease(f"https://cdn.example/a.jpg?expires={LATER}&exp={LATER - 60}").until == LATER - 60


@given(st.text(max_size=80))
def test_reading_a_link_never_fails(text: str) -> None:
    for name in ("expires", "se", "Policy", "token", "oe", "hdnts", "X-Amz-Date"):
        lease(f"https://cdn.example/a.jpg?sig=1&{name}={text}")


# --- files -----------------------------------------------------------------------------------------------------------------


def test_the_size_of_a_picture_is_read_from_its_header() -> None:
    for picture in (
        recognise(png(1200, 800)),
        recognise(jpeg(1200, 800)),
        recognise(jpeg(1200, 800, camera_data=60_000)),
    ):
        assert picture is not None
        assert (picture.width, picture.height, picture.readable) == (1200, 800, True)


def test_a_header_that_is_cut_off_or_nonsense_gives_no_size() -> None:
    for head in (png()[:12], jpeg()[:3], jpeg()[:200], b"\xff\xd8\xff" + b"\0" * 100, b"\xff\xd8" + b"\xff" * 1000):
        picture = recognise(head)
        assert picture is not None
        assert (picture.width, picture.height) == (0, 0)


@given(st.binary(max_size=200))
def test_any_bytes_behind_a_signature_are_read_without_failing(rest: bytes) -> None:
    for start in (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"\0\0\0\x20ftyp"):
        recognise(start + rest)
        assert name_of(start + rest)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"RIFF\x10\0\0\0WEBPVP8 ", "a WebP picture"),
        (b"GIF89a", "a GIF picture"),
        (b"\0\0\0\x18ftypheic", "an HEIC picture (iPhone)"),
        (b"\0\0\0\x18ftypmif1", "an HEIC picture (iPhone)"),
        (b"\0\0\0\x1cftypavif", "an AVIF picture"),
        (b"\0\0\0\x20ftypisom", "an MP4 video"),
        (b"<svg xmlns='x'>", "an SVG drawing"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- x -->\n<svg>", "an SVG drawing"),
        (b"\r\n  <!DOCTYPE html><html>", "a web page (HTML)"),
        (b"<!-- hello --><html>", "a web page (HTML)"),
        (b"<HTML><BODY>", "a web page (HTML)"),
        (b"<?xml version='1.0'?><Error>", "an XML document"),
        (b'{"error": 1}', "JSON data"),
        (b"%PDF-1.7", "a PDF document"),
        (b"BM6\0", "a BMP picture"),
        (b"II*\0", "a TIFF picture"),
        (b"PK\x03\x04", "a ZIP archive or Office document"),
        (b"\x1f\x8b\x08", "gzip-compressed data"),
        (b"Not found", "text"),
        (b"\xff\xd8", "a file of an unknown kind"),
        (b"\0\x01\x02", "a file of an unknown kind"),
    ],
)
def test_another_kind_of_file_is_named_as_what_it_is(head: bytes, name: str) -> None:
    assert recognise(head) is None
    assert name_of(head) == name


def test_a_picture_without_its_end_mark_is_told_from_a_complete_one() -> None:
    for body in (png(), jpeg()):
        picture = recognise(body)
        assert picture is not None
        assert complete(picture, body)
        assert complete(picture, body + b"camera trailer" * 100)
        assert not complete(picture, body[:-8])


# --- the verdict -----------------------------------------------------------------------------------------------------------

LIMIT = 5 * 1024 * 1024
URL = "https://cdn.example/a.jpg"


def test_a_good_picture_is_described() -> None:
    verdict = judge(URL, fetched(jpeg(1200, 800)), LIMIT)
    assert verdict == ImageVerdict(
        URL,
        ok=True,
        detail="JPEG, 1,200 x 800, 337 bytes",
        size=337,
        mime="image/jpeg",
        width=1200,
        height=800,
        warnings=(),
        thumbnail=None,
    )


def test_the_bytes_decide_and_a_wrong_label_is_a_warning() -> None:
    for label, words in (
        ("text/plain", "labelled text/plain"),
        ("image/jpeg", "labelled image/jpeg"),
        ("", "without a"),
    ):
        verdict = judge(URL, fetched(png(), label), LIMIT)
        assert verdict.ok
        assert verdict.mime == "image/png"
        assert len(verdict.warnings) == 1
        assert words in verdict.warnings[0]


@pytest.mark.parametrize("label", ["image/jpeg", "image/jpg", "image/pjpeg"])
def test_the_usual_labels_of_a_jpeg_are_all_right(label: str) -> None:
    assert judge(URL, fetched(jpeg(), label), LIMIT).warnings == ()


def test_absurd_dimensions_print_colours_and_a_missing_end_are_warned_of() -> None:
    assert "pixels" in judge(URL, fetched(png(20_000, 20_000), "image/png"), LIMIT).warnings[0]
    assert "CMYK" in judge(URL, fetched(jpeg(components=4)), LIMIT).warnings[0]
    assert "cut off" in judge(URL, fetched(jpeg()[:-2]), LIMIT).warnings[0]
    assert judge(URL, fetched(jpeg()[:-2], whole=False), LIMIT).warnings == ()


def test_a_picture_may_have_the_limit_and_not_a_byte_more() -> None:
    assert judge(URL, fetched(jpeg(), declared=LIMIT), LIMIT).ok
    declared = judge(URL, fetched(jpeg(), declared=LIMIT + 1), LIMIT)
    assert (declared.ok, declared.reason, declared.size) == (False, "too_large", LIMIT + 1)
    assert "5,242,881 bytes; at most 5,242,880 (5 MB)" in declared.detail
    undeclared = judge(URL, fetched(jpeg(), declared=None, size=LIMIT + 1, whole=False), LIMIT)
    assert undeclared.reason == "too_large"
    assert "more" in undeclared.detail


def test_an_unreadable_png_header_is_not_an_image() -> None:
    for body in (png(0, 100), png().replace(b"IHDR", b"CgBI")):
        assert judge(URL, fetched(body, "image/png"), LIMIT).reason == "not_an_image"


def test_a_compressed_reply_is_refused_even_if_it_looks_like_a_picture() -> None:
    verdict = judge(URL, fetched(jpeg(), encoding="gzip"), LIMIT)
    assert (verdict.reason, "gzip" in verdict.detail) == ("not_an_image", True)


def test_only_faults_that_may_pass_are_temporary() -> None:
    temporary = {fault for fault in Fault if ImageVerdict(URL, ok=False, reason=fault).temporary}
    assert temporary == {Fault.UNREACHABLE, Fault.SLOW, Fault.BROKEN_OFF, Fault.BUSY, Fault.SERVER_ERROR}


@pytest.mark.parametrize(
    ("size", "text"), [(1, "1 bytes"), (348_160, "340 KB"), (5 * 1024 * 1024, "5 MB"), (1_600_000, "1.53 MB")]
)
def test_sizes_are_written_for_people(size: int, text: str) -> None:
    assert size_text(size) == text


# --- the check as a whole --------------------------------------------------------------------------------------------------


def test_addresses_that_cannot_be_fetched_get_a_verdict_each_and_once() -> None:
    urls = ["", "ftp://cdn.example/", "http://10.0.0.1/a.jpg", "http://10.0.0.1/a.jpg", "\ud800"]
    verdicts = check_all(urls, MediaPolicy(), clock=lambda: NOW)
    assert [verdict.reason for verdict in verdicts.values()] == ["bad_url", "bad_url", "private_address", "bad_url"]
    assert list(verdicts) == list(dict.fromkeys(urls))


async def test_what_the_source_of_addresses_raises_comes_out_as_it_is() -> None:
    class LostError(Exception):
        pass

    def urls() -> Iterator[str]:
        yield "ftp://cdn.example/"
        raise LostError

    with pytest.raises(LostError):
        await check_images(urls(), MediaPolicy(), clock=lambda: NOW, on_verdict=lambda _: None)


async def test_what_the_listener_raises_ends_the_check_as_it_is() -> None:
    def listener(verdict: ImageVerdict) -> None:
        raise KeyError(verdict.url)

    with pytest.raises(KeyError, match="ftp"):
        await check_images(["ftp://a/", "ftp://b/"], MediaPolicy(), clock=lambda: NOW, on_verdict=listener)


@pytest.mark.parametrize(
    "policy", [MediaPolicy(per_second=0), MediaPolicy(concurrency=0), MediaPolicy(allow_hosts=frozenset({"a/b"}))]
)
def test_a_policy_that_cannot_be_followed_is_an_error_of_the_caller(policy: MediaPolicy) -> None:
    with pytest.raises(ValueError, match=r"needs a rate|is not a host"):
        check_all(["https://cdn.example/a.jpg"], policy, clock=lambda: NOW)
