"""Which image addresses are taken, and that no cell changes the host."""

from __future__ import annotations

import pytest
from rendering import ROW, of_note, renderer

from runner.captions import Rendered, RenderFault
from runner.model import SkipReason


@pytest.mark.parametrize(
    "address",
    [
        "https://cdn.example.com/a.jpg",
        "http://cdn.example.com:8080/a%20b.jpg?x=1&y=2#z",
        "HTTPS://CDN.example.com/a",
        "https://[2001:db8::1]/a.jpg",
        "https://a_b.example.com",
    ],
)
def test_an_address_from_a_cell_is_taken_as_it_is(address: str) -> None:
    assert renderer(image=" {{ image_url }} ").render((*ROW[:4], address)) == Rendered(address, "")


@pytest.mark.parametrize(
    "address",
    [
        "cdn.example.com/a.jpg",
        "ftp://cdn.example.com/a.jpg",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://",
        "https:///a.jpg",
        "https:/cdn.example.com/a.jpg",
        "https://user:pw@cdn.example.com/a.jpg",
        "https://cdn.example.com\\@evil.example/a.jpg",
        "https://cdn.example.com/a b.jpg",
        "https://cdn.example.com/a\nb.jpg",
        "https://cdn.example.com/ş.jpg",
        "https://cdn.example.com/{{ x }}",
        "https://-/a",
        "https://cdn.example.com/" + "a" * 2048,
    ],
)
def test_what_is_no_plain_http_address_is_a_fault_that_shows_it(address: str) -> None:
    rendered = renderer(image="{{ image_url }}").render((*ROW[:4], address))
    assert isinstance(rendered, RenderFault)
    assert rendered.reason is SkipReason.RENDER_ERROR
    assert rendered.detail.startswith("image '")


def test_a_space_or_a_letter_with_a_mark_asks_for_urlencode() -> None:
    made = renderer(image="https://cdn.example.com/{{ note }}.jpg").render(of_note("a b"))
    assert isinstance(made, RenderFault)
    assert "a space, which must be percent-encoded: put |urlencode behind the value" in made.detail
    encoded = renderer(image="https://cdn.example.com/{{ note|urlencode }}.jpg").render(of_note("ş b"))
    assert encoded == Rendered("https://cdn.example.com/%C5%9F%20b.jpg", "")


@pytest.mark.parametrize(
    ("image", "cell"),
    [
        ("https://cdn.example.com{{ note }}", ".evil.example/x.jpg"),
        ("https://cdn.example.com{{ note }}", "@evil.example/x.jpg"),
        ("https://cdn.example.com{{ note }}/x.jpg", "evil"),
        ("https://cdn.example.com{{ note }}", ":81/x.jpg"),
        ("https://img{{ note }}.example.com/x.jpg", ".evil.example/"),
        ("https://img{{ note }}.example.com/x.jpg", "@evil.example#"),
        ("{{ cdn }}{{ note }}", ".evil.example/x.jpg"),
        ("https://cdn.example.com{% if city %}{{ note }}{% endif %}", ".evil.example/x.jpg"),
    ],
)
def test_a_cell_cannot_change_the_host_that_the_template_names(image: str, cell: str) -> None:
    made = renderer(image=image, variables={"cdn": "https://cdn.example.com"}).render(of_note(cell))
    assert isinstance(made, RenderFault)
    assert made.detail.startswith("image ")


@pytest.mark.parametrize(
    ("image", "cell", "address"),
    [
        ("https://cdn.example.com/{{ note }}.jpg", "A1", "https://cdn.example.com/A1.jpg"),
        ("https://cdn.example.com/{{ note }}", "@evil.example", "https://cdn.example.com/@evil.example"),
        ("https://cdn.example.com{{ note }}", "/A1.jpg", "https://cdn.example.com/A1.jpg"),
        ("https://cdn.example.com{{ note }}/x.jpg", "/A1", "https://cdn.example.com/A1/x.jpg"),
        ("https://img{{ note }}.example.com/x.jpg", "7", "https://img7.example.com/x.jpg"),
        ("https://{{ note }}.example.com/x.jpg", "shop", "https://shop.example.com/x.jpg"),
        ("https://{{ note }}/x.jpg", "shop.example.com", "https://shop.example.com/x.jpg"),
        ("{{ cdn }}/{{ note }}", "A1.jpg", "https://cdn.example.com/A1.jpg"),
        ("{% set s = note|lower %}https://cdn.example.com/{{ s }}", "A1", "https://cdn.example.com/a1"),
        ("https://cdn.example.com \n\n", "1", "https://cdn.example.com"),
        ("https://cdn.example.com?x={{ note }}", "1", "https://cdn.example.com?x=1"),
    ],
)
def test_a_cell_may_fill_in_what_the_template_leaves_open(image: str, cell: str, address: str) -> None:
    made = renderer(image=image, variables={"cdn": "https://cdn.example.com"}).render(of_note(cell))
    assert made == Rendered(address, "")


def test_a_blank_in_the_address_stops_the_row() -> None:
    made = renderer(image="https://cdn.example.com/{{ note }}.jpg").render(ROW)
    assert made == RenderFault(SkipReason.RENDER_ERROR, "column 'note' is blank")
