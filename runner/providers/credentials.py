"""What may stand in a request's head: the token and the address it travels to. Pure rules; nothing is looked up."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import urlsplit


def check_token(token: str) -> None:
    """Refuse a token that cannot be one header value (RFC 9110 section 5.5). The message never shows it.

    Only visible ASCII passes: a line end would be another header, and a space that cannot be seen
    (U+00A0 and its kin) comes with copying from a web page.
    """
    if not token.strip():
        raise ValueError("the token is empty")
    if token.lower().startswith(("bearer ", "token ")):
        raise ValueError("the token holds a word such as 'Bearer' before the key; give the key alone")
    if not all("!" <= character <= "~" for character in token):
        raise ValueError("the token holds a space, a line end or a letter outside ASCII; copy it again, alone")
    if len(token) > 4096:
        raise ValueError(f"the token is {len(token)} characters long; servers take at most 4096 or so")


_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)*")
_DEFAULT_PORTS = {"https": 443, "http": 80}


def check_address(text: str, *, prefix_only: bool) -> str:
    """The web address in one spelling: lower-case host, no default port. Raises ValueError, which says what is wrong.

    https only, since the token or customers' data travels to it; plain http where nothing leaves this machine
    (127.0.0.0/8, ::1, localhost). With `prefix_only` no query, and a path that is only a prefix, without its final
    slash. Never shows a user name or password that the address may hold.
    """
    if any(not "!" <= character <= "~" or character in '\\<>"' for character in text) or not text:
        raise ValueError(
            "must be a web address without spaces, backslashes or letters outside ASCII (write such a host name as xn--…)"
        )
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("must be a web address such as https://api.example.com, with a port of 1 to 65535") from None
    if "@" in parts.netloc:
        raise ValueError("must not hold a user name or password")
    if parts.scheme not in _DEFAULT_PORTS or not host:
        raise ValueError("must begin with https:// and a host name")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError(
            "must begin with https://; write https (plain http is for this machine only: 127.0.0.1, ::1, localhost)"
        )
    if not _is_host(host, bracketed="[" in parts.netloc) or port == 0:
        raise ValueError("must hold a valid host name, and a port of 1 to 65535 if any")
    if "#" in text:
        raise ValueError("must not hold a # part")
    if prefix_only and ("?" in text or not _PREFIX.fullmatch(parts.path.rstrip("/"))):
        raise ValueError("must be a host and at most a plain path prefix, without a ? part")
    if prefix_only and {".", ".."} & set(parts.path.split("/")):
        raise ValueError("must not hold . or .. in its path")
    place = f"[{host}]" if ":" in host else host
    if port is not None and port != _DEFAULT_PORTS[parts.scheme]:
        place += f":{port}"
    if prefix_only:
        return f"{parts.scheme}://{place}{parts.path.rstrip('/')}"
    return f"{parts.scheme}://{place}{parts.path}" + (f"?{parts.query}" if parts.query else "")


def _is_host(host: str, *, bracketed: bool) -> bool:
    if not bracketed:
        return len(host) <= 253 and _HOST.fullmatch(host) is not None
    try:
        return IPv6Address(host).scope_id is None
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether a host, as written, is this machine: 127.0.0.0/8, ::1 or localhost. Nothing is looked up."""
    if host == "localhost":
        return True
    try:
        return IPv6Address(host) == IPv6Address("::1") if ":" in host else IPv4Address(host).is_loopback
    except ValueError:
        return False
