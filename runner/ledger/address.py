"""A PostgreSQL address (`postgresql://user:password@host:port/database?sslmode=...`): checked, shown without its secrets, and
what the server's refusals mean. The options after the question mark are libpq's own and are passed on as they are
(PostgreSQL manual, 'Database Connection Control Functions').
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from runner.errors import InputError, Problem

SCHEMES = ("postgresql", "postgres")
INSTALL = 'pip install "campaign-runner[postgres]"'
# A network that has gone silent is noticed within a minute, not after the two hours of the operating system.
DEFAULTS = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "application_name": "campaign",
}
_SECRET = ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")
_SPELL = "write @ as %40, / as %2F, : as %3A, ? as %3F, # as %23, % as %25 and a space as %20 in the user name and the password"


@dataclass(frozen=True, slots=True)
class Address:
    """Where the ledger is. `shown` names it for people, without any secret."""

    parameters: Mapping[str, str] = field(repr=False)
    shown: str

    def scrub(self, text: str) -> str:
        """The text without any secret of the address, should the server or the library have repeated one."""
        for key in _SECRET:
            secret = self.parameters.get(key, "")
            if len(secret) > 3:
                text = text.replace(secret, "***")
        return text


def is_address(place: str) -> bool:
    """Whether this is an address rather than the path of a file."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", place) is not None


def read_address(text: str, where: str = "the ledger's address") -> Address:
    """Check an address. Raises InputError, in whose text nothing of the address is repeated that may be a secret."""
    scheme = text.split("://", 1)[0].lower()
    if scheme == "sqlite":
        raise InputError(Problem(where, "a SQLite ledger is named by its file", "give the path alone"))
    if scheme not in SCHEMES:
        fix = "give postgresql://USER:PASSWORD@HOST/DATABASE, or the path of a SQLite file"
        raise InputError(Problem(where, f"no ledger can be kept in {scheme!r}", fix))
    psycopg_there(where)
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    rest = text.split("://", 1)[1]
    if "@" in re.split(r"[/?]", rest, maxsplit=1)[0].replace("@", "", 1) or (
        "@" in rest.split("?", 1)[0] and "@" not in re.split(r"[/?]", rest, maxsplit=1)[0]
    ):
        raise InputError(Problem(where, "is not a PostgreSQL address that can be read", _SPELL))
    _check_options(text, where)
    try:
        read = conninfo_to_dict(text)
    except ProgrammingError:  # its text may repeat a piece of the password
        raise InputError(Problem(where, "is not a PostgreSQL address that can be read", _SPELL)) from None
    parameters = {key: str(value) for key, value in read.items() if value is not None}
    if not re.fullmatch(r"[0-9,]*", parameters.get("port", "")):
        raise InputError(Problem(where, "the port is not a number", _SPELL))
    return Address(DEFAULTS | parameters, _shown(parameters))


def psycopg_there(where: str) -> None:
    """Raise InputError where the driver is not installed."""
    try:
        import psycopg  # noqa: F401 - only whether it is there
    except ImportError:
        raise InputError(Problem(where, "PostgreSQL needs a driver that is not installed", INSTALL)) from None


def _check_options(text: str, where: str) -> None:
    from psycopg import pq

    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()} | {"ssl"}
    for part in urlsplit(text).query.split("&"):
        name = part.split("=", 1)[0]
        if name and name not in known:
            import difflib

            near = difflib.get_close_matches(name, known, 1)
            shown = repr(name) if re.fullmatch(r"[a-z_]{1,30}", name) and near else "an option after the ?"
            fix = f"did you mean {near[0]}?" if near else f"see docs/ledger.md; in a password: {_SPELL}"
            raise InputError(Problem(where, f"PostgreSQL knows no {shown}", fix))


def _shown(parameters: Mapping[str, str]) -> str:
    user = quote(parameters["user"], safe="") + "@" if "user" in parameters else ""
    hosts = parameters.get("host", parameters.get("hostaddr", "")).split(",")
    ports = parameters.get("port", "").split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    places = ",".join(host + (f":{port}" if port else "") for host, port in zip(hosts, ports, strict=False))
    if places.startswith("/"):  # a folder of sockets
        places = ""
    return f"postgresql://{user}{places}/{parameters.get('dbname', '')}"


@dataclass(frozen=True, slots=True)
class _Refusal:
    mark: str  # a piece of the server's or library's text, in small letters
    fix: str


_FULL = "free some space on the server's disk, then run the same command again: it goes on where it stopped"
_REFUSALS = (
    _Refusal("password authentication failed", "check the user name and the password; " + _SPELL),
    _Refusal(
        "no password supplied", "the address lacks the password (or name a passfile): postgresql://USER:PASSWORD@..."
    ),
    _Refusal("certificate verify failed", "the server's certificate is not signed by the authority in sslrootcert"),
    _Refusal("does not match host name", "the certificate names another host: use that name in the address"),
    _Refusal("root certificate file", "give sslrootcert=FILE with the authority's certificate, or sslrootcert=system"),
    _Refusal(
        "does not support ssl", "the server has no TLS: switch it on there, or use sslmode=disable on a trusted network"
    ),
    _Refusal(
        "no pg_hba.conf entry",
        "the server does not let this user in from here: its pg_hba.conf must (TLS or not: sslmode)",
    ),
    _Refusal("ssl error", "TLS could not be set up: check sslmode, sslrootcert and the server's certificate"),
    _Refusal("name or service not known", "check the host's name in the address"),
    _Refusal("failed to resolve host", "check the host's name in the address"),
    _Refusal("could not translate host", "check the host's name in the address"),
    _Refusal("connection refused", "start the server, or check host and port in the address"),
    _Refusal("no such file or directory", "no server listens on this machine: name a host in the address"),
    _Refusal("timeout expired", "nothing answers there: check host and port, and the firewalls between"),
    _Refusal("no route to host", "nothing answers there: check host and port, and the firewalls between"),
    _Refusal("network is unreachable", "nothing answers there: check host and port, and the firewalls between"),
    _Refusal("too many clients", "the server has no connection left: raise its max_connections or close others"),
    _Refusal(
        "remaining connection slots", "the server has no connection left: raise its max_connections or close others"
    ),
    _Refusal(
        "permission denied", "the role may not do this: make it the owner of the database (or grant it the rights)"
    ),
    _Refusal(
        "read-only transaction", "this server is a read-only copy: name the primary (target_session_attrs=read-write)"
    ),
    _Refusal("no space left", _FULL),
    _Refusal("could not extend", _FULL),
    _Refusal("starting up", "wait until the server is up, then run the same command again"),
    _Refusal("shutting down", "start the server again, then run the same command again"),
    _Refusal("terminating connection", "the server ended the connection; run the same command again"),
    _Refusal("closed the connection", "the connection broke; run the same command again"),
    _Refusal("connection is lost", "the connection broke; run the same command again"),
    _Refusal("connection is closed", "the connection broke; run the same command again"),
)
_LASTING = ("authentication failed", "no password supplied", "pg_hba.conf", "certificate", "does not exist", "ssl")


def explain(text: str) -> str:
    """The server's words on one line, and how to mend it."""
    line = re.sub(r"\s*\n\s*(?!hint)", "; ", text.strip(), flags=re.IGNORECASE)
    small = text.lower()
    fix = next((refusal.fix for refusal in _REFUSALS if refusal.mark in small), "")
    if not fix and "database" in small and "does not exist" in small:
        fix = "make the database first: createdb --encoding UTF8 NAME (or correct its name in the address)"
    if not fix and "role" in small and "does not exist" in small:
        fix = "check the user name in the address"
    return line + (f"\n    fix: {fix}" if fix else "")


def passes(text: str) -> bool:
    """Whether a refused connection may be granted a moment later: the server is away, not the address wrong."""
    small = text.lower()
    return not any(mark in small for mark in _LASTING)
