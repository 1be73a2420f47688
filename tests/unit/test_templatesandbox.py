"""Hostile templates end soon; harmless ones come out as Jinja itself renders them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from rendering import IMAGE, ROW, renderer, templates_folder, write  # noqa: F401  # templates_folder is a fixture

from runner.captions import Rendered, RenderFault
from runner.errors import InputError

BOMBS = [
    "{{ 'a' * 10**9 }}",
    "{{ 10**9 * 'a' }}",
    "{{ [1] * 10**9 }}",
    "{{ 10**(10**8) }}",
    "{{ (10**1000)**(10**5) }}",
    "{{ '%0900000000d' % 1 }}",
    "{{ '%0900000000d'|format(1) }}",
    "{{ '%*d'|format(900000000, 1) }}",
    "{{ 'a'.ljust(900000000) }}",
    "{{ 'a'.center(900000000) }}",
    "{{ 'a'.zfill(900000000) }}",
    "{{ 'a'|center(900000000) }}",
    "{{ 'a'|indent(900000000) }}",
    "{{ ('a\n' * 2000)|indent(2000) }}",
    "{{ 1.5|round(900000000) }}",
    "{{ [1]|batch(900000000, 'x')|list }}",
    "{{ [1]|slice(900000000)|list }}",
    "{{ range(10**9)|list }}",
    "{{ range(100000)|join }}",
    "{{ 'x'.replace('', 'y'*2000).replace('y', 'z'*2000).replace('z', 'w'*2000) }}",
    "{{ ('x'*2000)|replace('x', 'y'*2000) }}",
    "{{ ('y'*2000).join('x'*2000) }}",
    "{{ ('x'*2000)|join('y'*2000) }}",
    "{% for i in range(2000) %}{% for j in range(2000) %}{% endfor %}{% endfor %}",
    "{% for i in range(2000) %}{% for j in range(2000) if false %}{% endfor %}{% endfor %}",
    "{% for i in range(2000) %}" + "x" * 2000 + "{% endfor %}",
    "{% filter upper %}{% for i in range(2000) %}" + "x" * 2000 + "{% endfor %}{% endfilter %}",
    "{% set x %}{% for i in range(2000) %}{{ 'x' * 2000 }}{% endfor %}{% endset %}",
    "{% set n = namespace(a='aaaaaaaa') %}{% for i in range(40) %}{% set n.a = n.a ~ n.a %}{% endfor %}{{ n.a }}",
    "{% set n = namespace(a='aaaaaaaa') %}{% for i in range(40) %}{% set n.a = n.a + n.a %}{% endfor %}{{ n.a }}",
    "{% set n = namespace(a=[1]) %}{% for i in range(40) %}{% set n.a = n.a + n.a %}{% endfor %}{{ n.a|length }}",
    "{% set n = namespace(a=9) %}{% for i in range(400) %}{% set n.a = n.a * n.a %}{% endfor %}{{ n.a }}",
    "{% set n = namespace(a=[1], b=[1]) %}{% for i in range(60) %}{% set n.a = [n.a, n.a] %}"
    "{% set n.b = [n.b, n.b] %}{% endfor %}{{ 'x' if n.a == n.b }}",
    "{% set n = namespace(a=(1,)) %}{% for i in range(60) %}{% set n.a = (n.a, n.a) %}{% endfor %}{{ {n.a: 1}|length }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{% macro m() %}{{ m(varargs, varargs) }}{% endmacro %}{{ m(1) }}",
    "{{ lipsum(n=100000) }}",
    "{{ city|wordwrap(1) }}",
    "{{ '{:900000000}'.format(1) }}",
    "{{ " + "(" * 90 + "1" + ")" * 90 + " }}",
    "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "{{ " + "not " * 3000 + "1 }}",
    "{{ 1" + "+1" * 9000 + " }}",
    "{{ city" + "|upper" * 4000 + " }}",
    "{{ [" + "1," * 9000 + "] }}",
    "{{ " + "9" * 9000 + " }}",
    "{% for i in [1] %}" * 30 + "{% endfor %}" * 30,
    "{% if city %}" * 300 + "{% endif %}" * 300,
    "{{ city }}" * 3000,
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ city['__class__'] }}",
    "{{ city|attr('__class__') }}",
    "{{ [city]|map(attribute='__class__')|join }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context.environment }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ range.__globals__ }}",
    "{{ namespace.__mro__ }}",
    "{{ joiner('x').__class__ }}",
    "{{ row._values }}",
    "{{ row.__class__ }}",
    "{{ row.items.__func__ }}",
    "{{ (1).to_bytes(900000000) }}",
    "{{ city.encode() }}",
    "{{ city.translate({}) }}",
    "{{ 'a'.expandtabs(900000000) }}",
    "{{ loop }}",
    "{% for x in [1] %}{{ loop._iterator }}{% endfor %}",
    "{% macro m() %}{% endmacro %}{{ m._environment }}",
    "{% macro m() %}{% endmacro %}{{ m.name }}",
    "{{ city.format_map(row) }}",
    "{{ city['format'](1) }}",
    "{{ x|(keep) }}",
]


@pytest.mark.parametrize("bomb", BOMBS, ids=range(len(BOMBS)))
def test_a_hostile_template_ends_soon_in_a_fault_or_an_error(bomb: str) -> None:
    start = time.process_time()
    try:
        assert isinstance(renderer(bomb).render(ROW), RenderFault)
    except InputError as error:
        assert "spring.yaml:14" in str(error)  # either end will do
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    "text", ["{% macro a() %}{% endmacro %}", "{% block b# %}{% endblock %}", "{% include 'a.j2' %}"]
)
def test_a_crowd_of_small_things_ends_soon(text: str, templates: Path) -> None:
    write(templates, a="{% include 'b.j2' %}" * 50, b="{% include 'c.j2' %}" * 50, c="{% include 'd.j2' %}" * 50, d="x")
    start = time.process_time()
    try:
        made = renderer("".join(text.replace("#", str(i)) for i in range(1000)), templates=templates)
    except InputError:
        pass
    else:
        made.render(ROW)
    assert time.process_time() - start < 2


PLAIN = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


SAME = [
    "Merhaba {{ First_Name }}, {{ city }} için %20!\nKod: {{ note }}",
    "{% if age > '5' %}{{ city|upper }}{% elif city == 'x' %}b{% else %}{{ note|title }}{% endif %}",
    "{% set x = city ~ '-' ~ note %}{{ x }}{% set x = x|lower %}{{ x }}",
    "{% for c in city %}{{ loop.index }}{{ c }}{% if not loop.last %}, {% endif %}{% endfor %}",
    "{% for i in range(3) if i %}{{ i }}{{ city[i:] }}{% else %}none{% endfor %}",
    "{% macro m(a, b='y') %}{{ a }}{{ b }}{% endmacro %}{{ m(city) }}{{ m(note, b=city) }}",
    "{% macro m(a) %}{{ a }}{{ caller() }}{% endmacro %}{% call m(note) %}!{{ city }}{% endcall %}",
    "{% filter upper %}{{ city }}{% endfilter %}{% set x %}{{ note }}{% endset %}{{ x|length }}",
    "{% block a %}{{ city }}{% endblock %}{{ self.a() }}",
    "{{ [3, 1, 2]|sort|first }}{{ [city, note]|map('upper')|join }}{{ [1, 2]|select('odd')|list|length }}{{ 'ab'|last }}",
    "{{ {'b': 2, 'a': 1}|dictsort|length }}{{ [[1, city], [2, note]]|map(attribute=1)|join('+') }}{{ [2, 1]|min }}{{ 3.7|round }}",
    "{{ [1, 1, 2]|unique|join }}{{ '3.7'|int }}{{ '3'|float }}{{ city|capitalize }}{{ note|wordcount }}",
    "{{ -3|abs }}{{ '<b>x</b>'|striptags }}{{ range(5)|slice(2)|first|join }}",
    "{% for g in [{'k': 1}, {'k': 2}]|groupby('k') %}{{ g.grouper }}{{ g.list|length }}{% endfor %}",
    "{% for k, v in {'a': city}.items() %}{{ k }}{{ v }}{% endfor %}",
    "{{ cycler(1, 2).next() }}{% set j = joiner(',') %}{{ j() }}{{ j() }}",
    "{{ (city, note)|join('/') }}{{ {'a': city}['a'] }}{{ [1, 2]|sum }}{{ 7 // 2 }}{{ 2 ** 5 }}{{ '%s!'|format(note) }}",
    "{{ city.split('a')|length }}{{ note.replace('a', 'b') }}{{ city.strip().upper() }}{{ 'x' if city in note else 'y' }}",
    "{% set ns = namespace(n=0) %}{% for c in city %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}{{ city|reverse }}",
    "{% with t = city|trim %}{{ t }}{% endwith %}{{ city|truncate(5) }}{{ note|indent(2) }}{{ city|center(9) }}|",
]


TEMPLATES_OF_BOTH = [(renderer(text), PLAIN.from_string(text)) for text in SAME]


WORDS = st.text(st.characters(categories=["L", "N", "P", "Zs"], exclude_characters="{}%"), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(*[WORDS.filter(str.strip)] * 3)
def test_what_comes_out_is_what_jinja_itself_renders(first: str, city: str, note: str) -> None:
    for made, plain in TEMPLATES_OF_BOTH:
        expected = plain.render(First_Name=first, city=city, age="34", note=note, image_url="x").strip()
        hollow = {"nan", "null", "None", "undefined", "NULL", "NaN", "NAN", "NaT"} & {first, city, note}
        if not hollow:
            assert made.render((first, city, "34", note, "x")) == Rendered(IMAGE, expected)
