"""A secret is named in the configuration, read where it is used, and shown nowhere."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from pydantic import ValidationError

from streampiped.credentials import MASK, CredentialError, Credentials, MaskedError
from streampiped.stages.consumer import ConsumerOptions
from streampiped.stages.generator import GeneratorOptions
from support.config_files import loaded, problems
from support.secret_stage import CarelessOptions
from support.tree import REPOSITORY

SECRET = "s3cr3t-and-long-enough-to-be-seen-anywhere"
STAGES = """
[pipeline]
python_path = ["{tests}"]
[stages.numbers]
class = "streampiped.stages.base:SourceStage"
[stages.careless]
class = "support.secret_stage:Careless"
input = "numbers"
token = {token}
"""


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A directory as systemd gives it, with one credential in it, as an editor leaves a file."""
    directory = tmp_path / "given"
    directory.mkdir()
    (directory / "mqtt").write_text(SECRET + "\n")
    return directory


def named(name: str = "mqtt") -> dict[str, str]:
    return {"credential": name}


def made(given: Path, **written: Any) -> CarelessOptions:
    credentials = Credentials("none.toml", {"CREDENTIALS_DIRECTORY": str(given)})
    return credentials.options(CarelessOptions, written)


def test_text_is_read_where_text_is_wanted(given: Path) -> None:
    """At any depth, as text or as a SecretStr; the line's end is not part of it."""
    options = made(given, token=named(), hosts=[{"password": named()}, {}])
    assert options.token == SECRET
    assert options.hosts[0].password.get_secret_value() == SECRET
    assert SECRET not in repr(options.hosts)


def test_table_of_that_form_stays_a_table(given: Path) -> None:
    """Where the class wants a table, a key `credential` is a key like any other, also beside a secret."""
    options = made(given, token=named(), names=named())
    assert options.names == named()
    assert Credentials("none.toml", {}).options(ConsumerOptions, {"derived": {"credential": "x1"}}).derived == {
        "credential": "x1"
    }


def test_secret_inside_a_chosen_table(given: Path) -> None:
    """The options of a source are a table that its `type` chooses; a secret in it is found."""
    credentials = Credentials("none.toml", {"CREDENTIALS_DIRECTORY": str(given)})
    options = credentials.options(GeneratorOptions, {"source": {"type": "synthetic", "target": named()}})
    assert options.source.target == SECRET  # type: ignore[union-attr]  # it is a synthetic one


def test_directory_beside_the_file_without_systemd(given: Path) -> None:
    """Without $CREDENTIALS_DIRECTORY it is `credentials` beside the configuration, so that a check needs no service."""
    given.rename(given.with_name("credentials"))
    credentials = Credentials(given.with_name("streampipe.toml"), {})
    assert credentials.options(CarelessOptions, {"token": named()}).token == SECRET


@pytest.mark.parametrize(
    ("name", "content", "right"),
    [
        ("absent", None, "No such file or directory; a service is given it by LoadCredential=absent:FILE"),
        ("../given/mqtt", None, "should name a credential with letters"),
        ("..", None, "should name a credential with letters"),
        ("", None, "should name a credential with letters"),
        ("empty", b"\n", "is empty"),
        ("short", b"abc\n", "has fewer than 4 characters"),
        ("blank", b"a       \n", "has fewer than 4 characters"),
        ("binary", b"\xff\xfe", "should be UTF-8 text"),
    ],
)  # fmt: skip
def test_missing_one_is_told_with_place_and_remedy(
    tmp_path: Path, given: Path, name: str, content: bytes | None, right: str
) -> None:
    """The problem has the key, the line, the name as written, and what would be right."""
    if content is not None:
        (given / name).write_bytes(content)
    text = STAGES.format(tests=REPOSITORY / "tests", token=f'{{ credential = "{name}" }}')
    found = problems(tmp_path, text, environ=environ(tmp_path, given))
    assert [(problem.key, problem.value) for problem in found] == [
        ("stages.careless.token", f'{{"credential": "{name}"}}')
    ]
    assert found[0].line == text.splitlines().index(f'token = {{ credential = "{name}" }}') + 1
    assert right in found[0].right


def environ(tmp_path: Path, given: Path) -> dict[str, str]:
    names = ("STATE_DIRECTORY", "RUNTIME_DIRECTORY", "LOGS_DIRECTORY")
    return {name: str(tmp_path / name) for name in names} | {"CREDENTIALS_DIRECTORY": str(given)}


def test_several_missing_ones_are_told_together(given: Path) -> None:
    """Not one after the other, start by start."""
    with pytest.raises(CredentialError) as caught:
        made(given, token=named("a"), hosts=[{"password": named("b")}])
    assert [loc for loc, _ in caught.value.missing] == [("token",), ("hosts", 0, "password")]


def test_plan_has_the_name_alone(tmp_path: Path, given: Path) -> None:
    """What becomes of the configuration, and is handed on and shown, does not contain the secret."""
    text = STAGES.format(tests=REPOSITORY / "tests", token='{ credential = "mqtt" }')
    plan = loaded(tmp_path, text, environ=environ(tmp_path, given))
    assert plan.spec("careless").options["token"] == named()
    assert SECRET not in repr(plan.to_dict())


def test_problem_does_not_quote_it(tmp_path: Path, given: Path) -> None:
    """A class that refuses its options and quotes the secret in its reason is told with a mask in its place."""
    text = STAGES.format(tests=REPOSITORY / "tests", token='{ credential = "mqtt" }') + "refuse = true\n"
    found = problems(tmp_path, text, environ=environ(tmp_path, given))
    assert [problem.right for problem in found] == ["cannot reach tcp://me:********@host"]


def test_error_that_nobody_expects_does_not_quote_it(tmp_path: Path, given: Path) -> None:
    """A validator that raises what no validator should, with the secret in its text: neither the words nor the
    traceback show it, and both say what went wrong and where."""
    text = STAGES.format(tests=REPOSITORY / "tests", token='{ credential = "mqtt" }') + "explode = true\n"
    with pytest.raises(MaskedError) as caught:
        loaded(tmp_path, text, environ=environ(tmp_path, given))
    shown = "".join(traceback.format_exception(caught.value))
    assert SECRET not in shown
    assert str(caught.value) == "KeyError: 'tcp://me:********@host'"
    assert "secret_stage.py" in shown


def test_other_errors_stay_what_they_are(tmp_path: Path, given: Path) -> None:
    """An error that quotes no secret is the one that was raised."""
    credentials = Credentials("none.toml", {"CREDENTIALS_DIRECTORY": str(given)})
    credentials.options(CarelessOptions, {"token": named()})
    error = OSError("nothing secret")
    with pytest.raises(OSError, match="nothing") as caught, credentials.masking():
        raise error
    assert caught.value is error


def test_faults_beside_it_do_not_quote_it(given: Path) -> None:
    """pydantic's own text about options of which another one is wrong has no value in it."""
    with pytest.raises(ValidationError) as caught:
        made(given, token=named(), refuse="perhaps")
    assert SECRET[:6] not in str(caught.value)


def test_every_form_of_a_secret_is_masked(tmp_path: Path) -> None:
    """As Python, JSON and a URL would quote it, each line of a key, and deep in the fields of an event too. The line
    end of an editor is no part of it, of Windows' neither."""
    (tmp_path / "mqtt").write_bytes(b'it\'s a "p\\th" \xc3\xa4/?\nLONGKEYLINE\r\n')
    credentials = Credentials("none.toml", {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    secret = credentials.options(CarelessOptions, {"token": named()}).token
    assert secret.endswith("LONGKEYLINE")
    for form in (secret, repr(secret), json.dumps(secret), quote(secret), quote_plus(secret), *secret.splitlines()):
        masked = credentials.masked(f"<{form}>")
        assert not any(word in masked for word in ("it", "LONG", "th")), masked
    deep = credentials.masked_fields({"tried": [{"with": secret, secret: 1}]})
    assert deep == {"tried": [{"with": MASK, MASK: 1}]}


def test_masked_fields(given: Path) -> None:
    """Texts of an event are masked, other values left alone; nothing is masked before a secret was read."""
    credentials = Credentials("none.toml", {"CREDENTIALS_DIRECTORY": str(given)})
    fields = {"reason": f"at {SECRET}", "count": 3}
    assert credentials.masked_fields(fields) == fields
    credentials.options(CarelessOptions, {"token": named()})
    assert credentials.masked_fields(fields) == {"reason": "at ********", "count": 3}
