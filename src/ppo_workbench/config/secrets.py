"""Keep passwords, tokens and keys out of everything that is printed, logged or stored.

What stands for a secret is known by its form (`redact`: the user info and the query of an
address, `password=...` anywhere) or by its very text (`Redactor`: the secrets of the addresses
that a command was given, wherever they appear).  A value that is still `${oc.env:NAME}` tells
nothing and stays.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus, unquote, unquote_plus

MASK = "***"

# Without a default, which would be a secret in clear: `${oc.env:NAME,hunter2}`.
_UNRESOLVED = r"\$\{[\w.:]+\}"
_NAME_OF_SECRET = r"pass(?:word|wd|phrase)|pwd|secret|token"
# A path has no user: sqlite:////home/me@work.
_SCHEME = r"(?<![\w.+-])(?!sqlite|file)[\w.+-]*://"
# Up to the last `@`: a password may hold `/`, `@` and `:`.
_USERINFO = re.compile(rf"({_SCHEME})([^\s\"']*)@([^\s\"']*)")
_OPEN_USERINFO = re.compile(rf"(?:(?:[^\s:/@$]*|{_UNRESOLVED}):)?{_UNRESOLVED}")
_ENDS = r"(?=[:,.)\]}]*(?:[&\s\"']|$))"
_QUERY = re.compile(rf"(?<=[?&;])([^=&;\s\"']+)=({_UNRESOLVED}|[^&\s\"']+?){_ENDS}")
_FIELD = re.compile(r"(?<=[?&;])([^=&;]+)=([^&]+)")  # in an address alone, which has an end
_SECRET_KEY = re.compile(rf"{_NAME_OF_SECRET}|key|sig|credential|auth", re.IGNORECASE)
_ASSIGNMENT = re.compile(
    rf"((?:{_NAME_OF_SECRET})[\w.-]*\s?=\s?)"
    rf"({_UNRESOLVED}|'[^']*'|\"[^\"]*\"|[^\s\"'&;]+?{_ENDS})",
    re.IGNORECASE,
)
# Below these lengths a secret would also hit ordinary words; addresses are caught by their form.
_SHORTEST, _SHORTEST_USER = 4, 8
_OPEN = "\0"
_VARIABLES = (
    *("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "PGPASSWORD", "DATABRICKS_TOKEN"),
    *("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
)


def redact(text: str) -> str:
    """Replace what has the form of a secret in `text` by `***`.

    >>> redact("cannot reach postgresql://me:pa/ss@host/db?sslkey=x&user=me")
    'cannot reach postgresql://***@host/db?sslkey=***&user=me'
    """
    text = _USERINFO.sub(_clean_userinfo, text)
    return _ASSIGNMENT.sub(_clean_assignment, _QUERY.sub(_clean_query, text))


def _clean_userinfo(found: re.Match[str]) -> str:
    scheme, user, host = found.groups()
    if _OPEN_USERINFO.fullmatch(user):
        return found[0]
    # Behind a `?` the `@` may stand in a password of the query, whose end would be left.
    return f"{scheme}{MASK}" if "?" in user else f"{scheme}{MASK}@{host}"


def _clean_query(found: re.Match[str]) -> str:
    return f"{found[1]}={MASK}" if _is_secret(found[1], found[2]) else found[0]


def _is_secret(key: str, value: str) -> bool:
    """Tell whether a field of a query is secret, or holds what is: `odbc_connect=PWD%3Dx`."""
    if re.fullmatch(_UNRESOLVED, value):
        return False
    return bool(_SECRET_KEY.search(unquote(key)) or _ASSIGNMENT.search(unquote(value)))


def _clean_assignment(found: re.Match[str]) -> str:
    return found[0] if re.fullmatch(_UNRESOLVED, found[2].strip("'\"")) else f"{found[1]}{MASK}"


class Redactor:
    """Replaces the secrets of some addresses in any text, and what has the form of a secret."""

    def __init__(self, *addresses: str | None) -> None:
        """Learn every secret of `addresses`, of MLflow's own, and of well-known variables.

        Args:
            addresses: URIs, or overrides that hold some; percent-encoded or not.
        """
        found = {os.environ.get(name, "") for name in _VARIABLES}
        for address in (*addresses, os.environ.get("MLFLOW_TRACKING_URI")):
            found.update(_secrets_of(address or ""))
        found = {form for secret in found if _OPEN not in secret for form in _forms(secret)}
        self._secrets = {secret for secret in found if len(secret) >= _SHORTEST}

    def __call__(self, text: str) -> str:
        """Return `text` without the secrets."""
        clean, end = [], 0
        for start, stop in sorted(self._found(text)):
            if start >= end:
                clean += [text[end:start], MASK]
            end = max(end, stop)
        return redact("".join(clean) + text[end:])

    def _found(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield where secrets stand; some overlap, for which `@` ends a password is a guess."""
        for secret in self._secrets:
            yield from (found.span() for found in re.finditer(re.escape(secret), text))

    def __repr__(self) -> str:
        """Show how many secrets are known, never which."""
        return f"Redactor({len(self._secrets)} secrets)"


def _secrets_of(address: str) -> Iterator[str]:
    """Yield what may be a secret of an address; a password may itself hold `@`, `:` or `/`."""
    address = re.sub(_UNRESOLVED, _OPEN, address)
    for scheme in re.finditer(_SCHEME, address):
        rest = address[scheme.end() :]
        for at in re.finditer("@", rest):
            user, _, password = rest[: at.start()].partition(":")
            if password:
                yield password
                yield f"{user}:{password}"  # where the user is a token, its password is any
            elif len(user) >= _SHORTEST_USER:
                yield user
    for field in _FIELD.finditer(address):
        if _is_secret(*field.groups()):
            yield field[2]
            yield field[2].rstrip("\"'")  # of an override that quotes the address
    yield from (found[2].strip("'\"") for found in _ASSIGNMENT.finditer(address))


def _forms(secret: str) -> set[str]:
    """Return a secret as addresses, forms and JSON write it."""
    plain = {secret, unquote(secret), unquote_plus(secret)}
    written = {form for text in plain for form in (quote(text, safe=""), quote_plus(text))}
    return plain | written | {json.dumps(text)[1:-1] for text in plain}


def masked(values: Any) -> Any:
    """Copy nested plain values, such as an unresolved configuration, without secrets."""
    if isinstance(values, Mapping):
        return {key: masked(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [masked(value) for value in values]
    return Redactor(values)(values) if isinstance(values, str) else values
