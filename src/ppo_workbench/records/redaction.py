"""Keep passwords out of everything that is printed or stored."""

import os
import re
from urllib.parse import unquote

MASK = "***"

_USERINFO = re.compile(r"(?<=://)[^\s/@]*@")
_SECRET_QUERY = re.compile(
    r"([?&;][^=&;\s]*(?:password|passwd|pwd|secret|token|key)=)[^&;\s]+", re.IGNORECASE
)
# Below this length a secret would also hit ordinary words; URLs are caught by their form anyway.
_SHORTEST = 4
_SECRET_VARIABLES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


def redact_urls(text: str) -> str:
    """Replace user names, passwords and tokens in every URL of `text` by `***`."""
    return _SECRET_QUERY.sub(rf"\1{MASK}", _USERINFO.sub(f"{MASK}@", text))


class Redactor:
    """Replaces the secrets of some URIs, and of MLflow's own variables, in any text."""

    def __init__(self, *uris: str) -> None:
        """Take every secret out of `uris`, percent-encoded and decoded."""
        found = {os.environ.get(name, "") for name in _SECRET_VARIABLES}
        for uri in uris:
            found |= _secrets_of(uri)
        found |= {unquote(secret) for secret in found}
        self._secrets = sorted((s for s in found if len(s) >= _SHORTEST), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return `text` without the secrets."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return redact_urls(text)

    def __repr__(self) -> str:
        """Show how many secrets are known, never which."""
        return f"Redactor({len(self._secrets)} secrets)"


def _secrets_of(uri: str) -> set[str]:
    """Return passwords and secret query values; a password may itself contain `@` or `/`."""
    _, _, rest = uri.partition("://")
    userinfo, at, _ = rest.rpartition("@")
    secrets = {match.group(0).partition("=")[2] for match in _SECRET_QUERY.finditer(uri)}
    if at:
        user, colon, password = userinfo.partition(":")
        secrets.add(password if colon else user)
    return secrets
