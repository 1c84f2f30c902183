"""Secrets in files, as Docker and Kubernetes hand them out."""

from __future__ import annotations

import base64
import os

import pytest

from service.domain.errors import SettingsError
from service.secret_files import MAX_BYTES
from service.settings import CLIENT_TOKEN, LISTEN_SECRET, SETTINGS, Settings, command_secret

KEYS = base64.urlsafe_b64encode(bytes(32)).decode()
VALUES = {
    "REDIS_URL": "redis://:hush@host/0",
    "ENCRYPTION_KEYS": KEYS,
    "EGRESS_PROXY": "http://me:hush@proxy.internal:3128",
}
TOKEN = "hush-hush-hush-hush"
SECRETS = [setting for setting in SETTINGS if setting.secret]


def refusal(environ: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(environ)
    assert "\n" not in str(caught.value)
    assert "hush" not in str(caught.value)
    return str(caught.value)


def test_what_must_not_be_seen_is_declared_a_secret():
    assert {setting.name for setting in SECRETS} >= {
        "REDIS_URL",
        "ADMIN_TOKEN",
        "METRICS_TOKEN",
        "ENCRYPTION_KEYS",
    }


@pytest.mark.parametrize("newline", ["", "\n", "\r\n"])
@pytest.mark.parametrize("setting", SECRETS, ids=lambda setting: setting.name)
def test_every_secret_may_stand_in_a_file(tmp_path, setting, newline):
    text, file = VALUES.get(setting.name, TOKEN), tmp_path / "secret"
    file.write_text(text + newline, newline="")
    link = tmp_path / "link"  # as Kubernetes mounts them
    link.symlink_to(file)
    variable = f"COURSEWIRE_{setting.name}"
    from_file = Settings.from_env({f"{variable}_FILE": str(link)})
    assert from_file == Settings.from_env({variable: text})
    assert Settings.from_env(from_file.to_environ()) == from_file


@pytest.mark.parametrize("setting", SECRETS, ids=lambda setting: setting.name)
def test_both_at_once_are_refused_and_both_are_named(tmp_path, setting):
    variable = f"COURSEWIRE_{setting.name}"
    file = tmp_path / "secret"
    file.write_text(VALUES.get(setting.name, TOKEN))
    assert refusal({variable: "hush", f"{variable}_FILE": str(file)}) == (
        f"{variable} and {variable}_FILE are both set; unset one of them"
    )
    # A variable set to blanks counts as unset, on either side.
    assert Settings.from_env({variable: VALUES.get(setting.name, TOKEN), f"{variable}_FILE": " "})


FAULTS = {
    "missing": (lambda path: None, "does not exist"),
    "directory": (lambda path: path.mkdir(), "is a directory"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "newline": (lambda path: path.write_bytes(b"\n"), "is empty"),
    "blanks": (lambda path: path.write_bytes(b" \t\n\n"), "is empty"),
    "large": (lambda path: path.write_bytes(b"x" * (MAX_BYTES + 1)), "more than 65536 bytes"),
    "binary": (lambda path: path.write_bytes(b"hush\xff\xfe"), "is not UTF-8 text"),
    "pipe": (os.mkfifo, "is not a regular file"),
    "dangling": (lambda path: path.symlink_to(path.parent / "gone"), "does not exist"),
    "loop": (lambda path: path.symlink_to(path), "cannot be read"),
}


@pytest.mark.parametrize(("make", "named"), FAULTS.values(), ids=FAULTS)
def test_a_file_that_gives_no_secret_is_one_line(tmp_path, make, named):
    path = tmp_path / "secret"
    make(path)
    message = refusal({"COURSEWIRE_ADMIN_TOKEN_FILE": str(path)})
    assert message.startswith(f"COURSEWIRE_ADMIN_TOKEN_FILE names {path}, which ")
    assert named in message


def test_a_file_that_may_not_be_read_is_one_line(tmp_path, monkeypatch):
    def refuse(*_args: object, **_kwargs: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("service.secret_files.os.open", refuse)
    assert "may not be read by user" in refusal({"COURSEWIRE_REDIS_URL_FILE": "/run/secrets/x"})


def test_a_secret_in_the_variable_of_the_file_is_not_shown():
    message = refusal({"COURSEWIRE_ADMIN_TOKEN_FILE": TOKEN})
    assert message.startswith("COURSEWIRE_ADMIN_TOKEN_FILE names a file that does not exist")
    assert "names a file" in refusal({"COURSEWIRE_REDIS_URL_FILE": VALUES["REDIS_URL"]})


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (f"{TOKEN}\n\n", "has blanks"),
        (f" {TOKEN}", "has blanks"),
        (f"{TOKEN}\n{TOKEN}\n", "has blanks"),
        ("hush", "has 4 characters"),
        ("hüsh" * 5, "characters outside ASCII"),
    ],
)
def test_what_a_file_holds_is_checked_like_the_variable(tmp_path, content, named):
    file = tmp_path / "secret"
    file.write_text(content)
    message = refusal({"COURSEWIRE_ADMIN_TOKEN_FILE": str(file)})
    assert message.startswith("the content of COURSEWIRE_ADMIN_TOKEN_FILE has ")
    assert named in message


def test_only_secrets_are_read_from_files():
    assert refusal({"COURSEWIRE_PORT_FILE": "/run/secrets/port"}) == (
        "COURSEWIRE_PORT_FILE is not a setting; only secrets are read from files: set "
        "COURSEWIRE_PORT"
    )
    assert "did you mean COURSEWIRE_ADMIN_TOKEN_FILE?" in refusal(
        {"COURSEWIRE_ADMIN_TOKEN_FIEL": "/run/secrets/token"}
    )


@pytest.mark.parametrize("variable", [LISTEN_SECRET, CLIENT_TOKEN])
def test_the_secret_of_a_command_may_stand_in_a_file_too(tmp_path, variable):
    file = tmp_path / "secret"
    file.write_text("whsec_hush\n")
    assert command_secret({}, variable) is None
    assert command_secret({variable: "whsec_x"}, variable) == "whsec_x"
    given = {f"{variable}_FILE": str(file)}
    assert command_secret(given, variable) == "whsec_hush"
    assert Settings.from_env(given) == Settings()
    with pytest.raises(SettingsError, match="are both set; unset one of them"):
        command_secret({**given, variable: "whsec_x"}, variable)
