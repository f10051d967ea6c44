"""What counts as a secret, and what is left of a text that holds one."""

import json

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from ppo_workbench.config.secrets import Redactor, masked, redact

SECRET = "C4n4ry-7f3a9c"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("postgresql://user:pw@host/db", "postgresql://***@host/db"),
        ("postgresql://user:se/cret@host/db", "postgresql://***@host/db"),
        ("postgresql://user:p@:/s@host:1/db", "postgresql://***@host:1/db"),
        ("https://token@host", "https://***@host"),
        ("https://token:@host", "https://***@host"),
        ("a https://u:p@h/x and http://v:q@i/y.", "a https://***@h/x and http://***@i/y."),
        ("mysql://h/db?user=u&password=pw&x=1", "mysql://h/db?user=u&password=***&x=1"),
        ("sqlite:////x.db?password=pw", "sqlite:////x.db?password=***"),
        ("sqlite:////x.db?token=pw: it fails", "sqlite:////x.db?token=***: it fails"),
        ("postgresql:///db?user=u&password=a;b", "postgresql:///db?user=u&password=***"),
        ("https://h/?X-Amz-Signature=pw&sig=pw", "https://h/?X-Amz-Signature=***&sig=***"),
        ("https://h/?pass%77ord=pw", "https://h/?pass%77ord=***"),
        ("mssql://?odbc_connect=UID%3Du%3BPWD%3Dpw", "mssql://?odbc_connect=***"),
        ("dsn host=h password=pw user=u", "dsn host=h password=*** user=u"),
        ("PWD='p w';UID=u", "PWD=***;UID=u"),
        ("p://h/d?user=u&password=a@b/c and more", "p://*** and more"),
        ("p://u:${oc.env:PW}@h/d?password=${oc.env:PW}",) * 2,
        ("p://${oc.env:U}:${oc.env:PW}@h", "p://${oc.env:U}:${oc.env:PW}@h"),
        ("p://u:x${oc.env:PW}@h", "p://***@h"),
        ("p://u:${oc.env:PW,pw}@h", "p://***@h"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("mail me@example.org; write key=value", "mail me@example.org; write key=value"),
        ("budget.timesteps=3 seed=7", "budget.timesteps=3 seed=7"),
        ("/data/me@work/bars-2024.csv?", "/data/me@work/bars-2024.csv?"),
        ("file:///home/me@work/bars.csv", "file:///home/me@work/bars.csv"),
        ("2024-01-02T14:30:00+01:00 at 09:30", "2024-01-02T14:30:00+01:00 at 09:30"),
    ],
)
def test_redact_known_forms_lose_their_secrets_alone(text: str, clean: str) -> None:
    assert redact(text) == clean
    assert redact(clean) == clean


PASSWORDS = st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0"), max_size=12)


FORMS = ["postgresql://u:{}@host/db", "https://{}@host", "postgresql://h/db?user=u&password={}"]


@given(PASSWORDS, PASSWORDS, st.sampled_from(FORMS))
@example("se/", "@:", "postgresql://u:{}@host/db")
@example("a@b/", "?x=1@", "postgresql://u:{}@host/db")
@example("a@b/", "", "postgresql://h/db?user=u&password={}")
@example("", ":0", "https://{}@host")
@example("a b", '"c', "https://{}@host")
def test_masked_no_password_in_an_address_survives(before: str, after: str, form: str) -> None:
    assume("&" not in before + after or "password=" not in form)  # there it ends the value
    address = form.format(before + SECRET + after)
    values = {"uri": address, "list": [address], "override": f"tracking.uri='{address}'"}

    assert SECRET not in json.dumps(masked(values))
    told = f"{address}: {before}{SECRET}{after}" if "u:{}" in form else address
    assert SECRET not in Redactor(address)(f"failed at {told}")


def test_redactor_secret_is_found_in_every_way_to_write_it() -> None:
    redactor = Redactor("postgresql://user:pa@ss/word%21 é@host/db?sslpassword=two%2Ffold")

    for text in ("pa@ss/word%21 é", "pa@ss/word! é", "pa%40ss%2Fword%21%20%C3%A9", "two/fold"):
        assert redactor(f"failed: {text}.") == "failed: ***."
    assert redactor(json.dumps("pa@ss/word! é")) == '"***"'
    assert "word" not in repr(redactor)


def test_redactor_knows_the_secrets_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", SECRET)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"https://u:{SECRET}-2@host")

    assert Redactor()(f"{SECRET} and {SECRET}-2") == "*** and ***"


def test_masked_other_values_are_copied_as_they_are() -> None:
    values = {"a": [1, None, 0.5, True, ("x", "${oc.env:PW}")], "b": {"c": "see user@host"}}

    assert masked(values) == {
        "a": [1, None, 0.5, True, ["x", "${oc.env:PW}"]],
        "b": {"c": "see user@host"},
    }
