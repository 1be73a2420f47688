"""Which addresses of images may be fetched: the text of a URL, its host, its port, and the IP address behind the host.

The audience file decides which addresses are asked for, so a hostile row could make this machine call its neighbours or a
cloud's metadata service. Only addresses that the provider could reach as well are let through; pure rules, no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urljoin

from yarl import URL

LONGEST_ADDRESS = 8000  # characters; servers must take 8,000 octets (RFC 9110, 4.1), more is nobody's image
PORTS = frozenset({80, 443})

Address = IPv4Address | IPv6Address


class Fault(StrEnum):
    """Why an image cannot be used. A closed list, so that reports can total it."""

    NONE = ""
    BAD_URL = "bad_url"  # not an http(s) address, or one that programs read in different ways
    PRIVATE_ADDRESS = "private_address"  # inside a network that the provider cannot reach, and must not be asked about
    EXPIRES = "expires"  # a signed link that stops working before the campaign is over
    UNKNOWN_HOST = "unknown_host"  # no such host name
    UNREACHABLE = "unreachable"  # no connection
    CERTIFICATE = "certificate"  # the server's certificate cannot be trusted
    SLOW = "slow"  # not complete in time
    BROKEN_OFF = "broken_off"  # the connection broke before the end
    BAD_REPLY = "bad_reply"  # not HTTP that can be read
    NOT_FOUND = "not_found"  # 404, 410
    REFUSED = "refused"  # any other answer but 200: a login, a hotlink guard
    BUSY = "busy"  # 429, 503
    SERVER_ERROR = "server_error"  # other 5xx
    REDIRECTED = "redirected"  # too often, in a circle, or from https down to http
    EMPTY = "empty"  # no bytes
    NOT_AN_IMAGE = "not_an_image"  # neither JPEG nor PNG
    TOO_LARGE = "too_large"


TEMPORARY = frozenset({Fault.UNREACHABLE, Fault.SLOW, Fault.BROKEN_OFF, Fault.BUSY, Fault.SERVER_ERROR})


class RefusedError(Exception):
    """One image cannot be used. Caught where the image is checked; `detail` is safe to show."""

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Target:
    """One address, checked and in its one spelling. `host` is lower case, without a final dot; an IP in its usual form."""

    url: URL
    host: str
    port: int
    literal: Address | None  # the host, if it is an IP address


_LOCAL_4 = tuple(
    IPv4Network(block)
    for block in ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15")
)
_LOCAL_6 = (IPv6Network("::1/128"), IPv6Network("fc00::/7"))
_UNICAST = IPv6Network("2000::/3")  # the only global unicast block handed out so far (RFC 4291, IANA)
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the IPv4 address is in the last 32 bits
_TUNNELS = (IPv6Network("2002::/16"), IPv6Network("2001::/32"))  # 6to4 (dropped by RFC 7526) and Teredo carry any IPv4
_HOST = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_NOT_IN_URL = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]")


def plain(address: Address) -> Address:
    """The IPv4 address inside an IPv4-mapped or NAT64 one; any other unchanged. On an IPv6-only network every IPv4 host
    is a NAT64 address, so these cannot simply be refused."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def public(address: Address) -> bool:
    """Global unicast: whether anybody in the internet reaches the same machine under this address."""
    address = plain(address)
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    return isinstance(address, IPv4Address) or (
        address in _UNICAST and not any(address in tunnel for tunnel in _TUNNELS)
    )


def local(address: Address) -> bool:
    """In a network that a person may allow by name. Link-local never is: cloud metadata services (169.254.169.254) live there."""
    address = plain(address)
    if isinstance(address, IPv4Address):
        return any(address in network for network in _LOCAL_4)
    return any(address in network for network in _LOCAL_6)


def literal(host: str) -> Address | None:
    """The IP address that a URL's host spells, or None for a name.

    Covers what the C library's inet_aton takes: `127.1`, `2130706433`, `0x7f.1`, `0177.0.0.1`. A host whose last label is a
    number must be an IPv4 address (the URL standard's rule); ValueError if it is none.
    """
    if ":" in host:
        if "%" in host:
            raise ValueError("an IPv6 zone")
        return IPv6Address(host)
    labels = host.rstrip(".").split(".")
    if not _NUMBER.fullmatch(labels[-1]):
        return None
    if len(labels) > 4:
        raise ValueError("too many parts")
    numbers = [_number(label) for label in labels]
    *bytes_, last = numbers
    if any(byte > 255 for byte in bytes_) or last >= 256 ** (4 - len(bytes_)):
        raise ValueError("a part is too large")
    return IPv4Address(sum(byte << (24 - 8 * place) for place, byte in enumerate(bytes_)) + last)


def _number(label: str) -> int:
    if not _NUMBER.fullmatch(label) or len(label) > 40:
        raise ValueError("not a number")
    if label.startswith("0x"):
        return int(label[2:] or "0", 16)
    return int(label, 8 if label.startswith("0") else 10)


class Guard:
    """The rules for one check. `allow_hosts` are hosts that may be private: `intranet.example` (ports 80 and 443), or
    `127.0.0.1:8080` for just that port. Raises ValueError for an entry that is neither."""

    def __init__(self, allow_hosts: Iterable[str] = ()) -> None:
        self._allowed: set[tuple[str, int]] = set()
        for entry in allow_hosts:
            host, port = _entry(entry)
            self._allowed.update((host, each) for each in ([port] if port else PORTS))

    def target(self, text: str) -> Target:
        """Check the text of an address before anything is asked of the network. Raises RefusedError."""
        url, host, address = _read(text)
        port = url.port
        assert port is not None  # noqa: S101 - http and https have one
        if port not in PORTS and not self.allowed(host, port):
            raise RefusedError(Fault.BAD_URL, f"the address names port {port}; images are fetched from 80 and 443 only")
        if address is not None:
            self.admit(host, port, address)
        return Target(url, host, port, address)

    def follow(self, here: Target, location: str) -> Target:
        """Where a redirect leads, checked like the first address. Raises RefusedError."""
        location = location.strip(" ")
        try:
            there = "" if _NOT_IN_URL.search(location) else urljoin(str(here.url), location)  # urljoin would drop some
        except ValueError:
            there = ""
        if not there:
            raise RefusedError(Fault.REDIRECTED, "it is redirected to something that is not an address")
        try:
            target = self.target(there)
        except RefusedError as error:
            raise RefusedError(error.fault, f"it is redirected, and there: {error.detail}") from None
        if here.url.scheme == "https" and target.url.scheme == "http":
            raise RefusedError(Fault.REDIRECTED, f"the redirect leaves https: it goes to http://{target.host}")
        return target

    def allowed(self, host: str, port: int) -> bool:
        """Whether a person has allowed this host to be private."""
        return (host, port) in self._allowed

    def admits(self, host: str, port: int, address: Address) -> bool:
        """Whether `address`, which `host` spells or resolves to, may be connected to."""
        return public(address) or (self.allowed(host, port) and local(address))

    def admit(self, host: str, port: int, address: Address) -> None:
        """Raises RefusedError unless the address may be connected to."""
        if not self.admits(host, port, address):
            means = "" if host == str(address) else f"{host} is "
            raise RefusedError(
                Fault.PRIVATE_ADDRESS, f"{means}{address}, an address the provider cannot reach from the internet"
            )


def _read(text: str) -> tuple[URL, str, Address | None]:
    """A URL that is sent as it was written if that can be done, so that no signature in it breaks, but for its host."""
    if len(text) > LONGEST_ADDRESS:
        raise RefusedError(Fault.BAD_URL, f"the address has {len(text):,} characters; no server need take that many")
    if not text:
        raise RefusedError(Fault.BAD_URL, "there is no address")
    if text.strip() != text or _NOT_IN_URL.search(text):
        raise RefusedError(Fault.BAD_URL, "the address has blanks around it, or a control character or backslash in it")
    try:
        seen = URL(text)
        raw = URL(text, encoded=True) if text.isascii() and " " not in text else seen
        scheme, name, port = seen.scheme, seen.raw_host, seen.port
    except ValueError:
        raise RefusedError(Fault.BAD_URL, "that is not an address of the web") from None
    if scheme not in {"http", "https"}:
        raise RefusedError(Fault.BAD_URL, "the address must begin with https:// (or http://)")
    if not name or not port:
        raise RefusedError(Fault.BAD_URL, "the address names no host")
    if "@" in re.split(r"[/?#]", text.split("//", 1)[1], maxsplit=1)[0]:
        raise RefusedError(Fault.BAD_URL, "the address holds a user name or password in front of its host")
    host, address = _host(name)
    url = URL.build(
        scheme=scheme,
        host=f"[{host}]" if ":" in host else host,
        port=seen.explicit_port,
        path=raw.raw_path or "/",
        query_string=raw.raw_query_string,
        encoded=True,
    )
    return url, host, address


def _host(name: str) -> tuple[str, Address | None]:
    name = name.lower().rstrip(".")
    try:
        address = literal(name)
    except ValueError:
        raise RefusedError(Fault.BAD_URL, "the host looks like an IP address, but is none") from None
    if address is not None:
        return str(address), address
    if not _HOST.fullmatch(name) or len(name) > 253:
        raise RefusedError(Fault.BAD_URL, "the host is not a name that the web can have")
    return name, None


def _entry(entry: str) -> tuple[str, int]:
    text = entry.strip()
    try:
        text = str(ip_address(text))
    except ValueError:
        pass
    else:
        return text, 0
    try:
        url = URL(f"http://{text}/")
        host, _ = _host(url.raw_host or "")
    except (ValueError, RefusedError):
        raise ValueError(f"{entry!r} is not a host, such as intranet.example or 127.0.0.1:8080") from None
    if url.raw_path != "/" or url.raw_query_string or url.user or url.password:
        raise ValueError(f"{entry!r} is not a host: leave out what stands around the name, as in intranet.example")
    return host, url.explicit_port or 0
