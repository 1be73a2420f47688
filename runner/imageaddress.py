"""Where an image may be fetched from: a plain http(s) address, on the host that the template names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from jinja2 import nodes

from runner.templatevalues import shown

IMAGE_LIMIT = 2_048  # characters of an image's address

# RFC 3986, section 2: what a URL is made of. No user name: it would be sent to the provider in every request.
_ADDRESS = re.compile(
    r"https?://(?:[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?(?:[/?#][a-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*)?",
    re.IGNORECASE | re.ASCII,
)


def address_fault(address: str, lock: re.Pattern[str] | None) -> str:
    """What is wrong with an image's address, or ""; `lock` is what `host_lock` made of its template."""
    if len(address) > IMAGE_LIMIT:
        return f"is {len(address):,} characters long; at most {IMAGE_LIMIT:,}"
    if not _ADDRESS.fullmatch(address):
        if not re.match(r"https?://[^/?#]", address, re.IGNORECASE):
            return "is not an http:// or https:// address with a host"
        odd = re.search(r"[^A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]", address)
        if odd:
            sign = "a space" if odd[0] == " " else shown(odd[0])
            return f"holds {sign}, which must be percent-encoded: put |urlencode behind the value, or mend the cell"
        return "has no plain host name (no user name, no odd marks)"
    if lock is not None and not lock.match(address):
        return "a value has changed the host that the template names; check the cell"
    return ""


def host_lock(tree: nodes.Template, variables: Mapping[str, object]) -> re.Pattern[str] | None:
    """The scheme and host as far as the template itself writes them; cells may fill in but never change them.

    `https://cdn.example.com/{{ sku }}.jpg` is held to that host, `https://img{{ n }}.example.com/` to such hosts. What
    stands right behind an open host (`https://cdn.example.com{{ path }}`) must begin the path.
    """
    pieces = _pieces(tree, variables)
    first = (pieces[0] or "").lstrip() if pieces else ""
    scheme = re.match(r"https?://", first, re.IGNORECASE)
    if not scheme:
        return None
    host: list[str | None] = []
    for piece in [first[scheme.end() :], *pieces[1:]]:
        end = re.search(r"[/?#]", piece or "")
        host.append(piece[: end.start()] if piece is not None and end else piece)
        if end:
            break
    else:
        host = host[:1]
    while host and (host[-1] is None or not host[-1].strip()):
        host.pop()
    if not host:
        return None
    pattern = "".join("[A-Za-z0-9.-]*" if piece is None else re.escape(piece.rstrip()) for piece in host)
    return re.compile(re.escape(scheme[0]) + pattern + r"(?=[/?#]|\Z)", re.IGNORECASE)


def _pieces(tree: nodes.Template, variables: Mapping[str, object]) -> list[str | None]:
    """What a template writes out itself, variables included; None for whatever a cell, an if or a filter makes."""
    pieces: list[str | None] = []
    for piece in _outputs(tree, variables):
        if piece is not None and pieces and pieces[-1] is not None:
            pieces[-1] += piece
        else:
            pieces.append(piece)
    return pieces


def _outputs(tree: nodes.Template, variables: Mapping[str, object]) -> Iterator[str | None]:
    for node in tree.body:
        if isinstance(node, nodes.Assign | nodes.AssignBlock | nodes.Macro | nodes.Import | nodes.FromImport):
            continue
        for child in node.nodes if isinstance(node, nodes.Output) else [node]:
            match child:
                case nodes.TemplateData():
                    yield child.data
                case nodes.Name() if child.name in variables:
                    yield str(variables[child.name])
                case _:
                    yield None
