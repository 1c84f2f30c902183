from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
import rich.console

from deploy.documents import settings_table
from service.domain.errors import SettingsError
from service.settings import RETRY_SPAN, SETTINGS, Settings
from tests.authority import Authority

KEY_1, KEY_2 = bytes(range(32)), bytes(range(32, 64))
TOKEN = "a-token-of-the-admin"


def encoded(*keys: bytes) -> str:
    return ",".join(base64.urlsafe_b64encode(key).decode() for key in keys)


def refusal(**variables: str) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({f"COURSEWIRE_{name}": text for name, text in variables.items()})
    return str(caught.value)


def accepted(**variables: str) -> Settings:
    return Settings.from_env({f"COURSEWIRE_{name}": text for name, text in variables.items()})


def test_an_empty_environment_gives_the_documented_defaults():
    settings = Settings.from_env({})
    assert settings == Settings()
    for setting in SETTINGS:
        expected = setting.parse(setting.default) if setting.default else None
        assert (getattr(settings, setting.field) or None) == (expected or None), setting.name


def test_every_field_has_a_documented_variable_and_the_other_way_round():
    assert {setting.field for setting in SETTINGS} == set(Settings.__struct_fields__)


def test_values_are_read_and_variables_of_others_ignored():
    settings = Settings.from_env(
        {
            "PATH": "/bin",
            "COURSEWIRE_REDIS_URL": "rediss://user:pass@redis.example:6380/2",
            "COURSEWIRE_DATA_DIR": "/srv/coursewire",
            "COURSEWIRE_HOST": "0.0.0.0",
            "COURSEWIRE_PORT": " 9000 ",
            "COURSEWIRE_ADMIN_TOKEN": TOKEN,
            "COURSEWIRE_ENCRYPTION_KEYS": f"{encoded(KEY_1)}, {encoded(KEY_2).rstrip('=')}",
            "COURSEWIRE_ALLOWED_TARGETS": "10.0.0.0/8, ::1,127.0.0.1,Hooks.Internal,",
            "COURSEWIRE_PUBLIC_DOCS": "no",
            "COURSEWIRE_LOG_FORMAT": "JSON",
            "COURSEWIRE_LOG_LEVEL": "debug",
        }
    )
    assert settings.redis_url == "rediss://user:pass@redis.example:6380/2"
    assert settings.data_dir == Path("/srv/coursewire")
    assert settings.host == "0.0.0.0"
    assert settings.port == 9000
    assert settings.admin_token == TOKEN
    assert settings.encryption_keys == (KEY_1, KEY_2)
    assert settings.allowed_targets == (
        "10.0.0.0/8",
        "::1/128",
        "127.0.0.1/32",
        "hooks.internal",
    )
    assert settings.public_docs is False
    assert settings.log_format == "json"
    assert settings.log_level == "debug"


@pytest.mark.parametrize("text", ["/hooks", "hooks", "hooks/", "/hooks/", "//hooks//"])
def test_every_spelling_of_a_prefix_is_the_same_path(text):
    assert accepted(ROOT_PATH=text).root_path == "/hooks"
    assert accepted(ROOT_PATH="/").root_path == ""
    assert accepted(ROOT_PATH="/a/b-c").root_path == "/a/b-c"


def test_proxies_are_networks_and_origins_are_as_browsers_send_them():
    settings = accepted(
        TRUSTED_PROXIES="10.0.0.0/8, 192.0.2.1,2001:DB8::/32,192.0.2.1,",
        CORS_ORIGINS="https://App.Example/, https://app.example:443,http://localhost:3000,"
        "http://[::1]:80,https://app.example:8443",
    )
    assert settings.trusted_proxies == ("10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32")
    assert settings.cors_origins == (
        "https://app.example",
        "http://localhost:3000",
        "http://[::1]",
        "https://app.example:8443",
    )


def test_the_proxy_and_what_is_reached_without_it_are_read():
    url = "http://user:the-secret@proxy.internal:3128"
    settings = accepted(EGRESS_PROXY=url, NO_PROXY=" Hooks.internal,.example.com, 10.0.0.0/8,*:81,")
    assert settings.egress_proxy == url
    assert settings.no_proxy == ("hooks.internal", ".example.com", "10.0.0.0/8", "*:81")
    assert Settings.from_env(settings.to_environ()) == settings
    assert "the-secret" not in repr(settings)
    for wrong in (f"socks5{url[4:]}", f"{url}/path", url.replace("the-", "the/")):
        assert "secret" not in refusal(EGRESS_PROXY=wrong)
        assert refusal(EGRESS_PROXY=wrong).startswith("COURSEWIRE_EGRESS_PROXY ")
    assert "'a b'" in refusal(NO_PROXY="ok, a b")


def test_the_environments_own_proxy_variables_are_no_settings():
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "no_proxy")
    assert Settings.from_env(dict.fromkeys(names, "http://proxy:1")) == Settings()


def test_a_bundle_of_authorities_is_read_where_it_is(tmp_path, monkeypatch):
    one, two = Authority(tmp_path, "one"), Authority(tmp_path, "two")
    bundle = tmp_path / "bundle of two.pem"
    bundle.write_text(f"# ours\r\n{one.pem}\n{two.pem}".replace("\n", "\r\n"))
    settings = accepted(CA_FILE=str(bundle))
    assert settings.ca_file == bundle
    assert Settings.from_env(settings.to_environ()) == settings
    monkeypatch.chdir(tmp_path)
    assert accepted(CA_FILE="bundle of two.pem").ca_file == bundle


def test_redis_over_tls_trusts_the_same_authorities(tmp_path):
    path = tmp_path / "a b.pem"
    path.write_text(Authority(tmp_path).pem)

    def redis_url(url: str) -> str | None:
        settings = accepted(CA_FILE=str(path), REDIS_URL=url)
        assert Settings.from_env(settings.to_environ()) == settings
        return settings.redis_url

    option = f"ssl_ca_certs={str(path).replace(' ', '%20')}"
    assert redis_url("rediss://u:p@r:6380/1") == f"rediss://u:p@r:6380/1?{option}"
    assert redis_url("rediss://r/?ssl_cert_reqs=required") == (
        f"rediss://r/?ssl_cert_reqs=required&{option}"
    )
    own = tmp_path / "own.pem"
    own.write_text(Authority(tmp_path).pem)
    for url in ("redis://r/0", f"rediss://r/0?ssl_ca_certs={own}", "unix:///r.sock"):
        assert redis_url(url) == url


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file or directory"),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"certificates", "contains no certificate"),
        (b"\x30\x82\x01\x00\xff", "contains no certificate"),
        (b"-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n", "no certificate"),
        (b"CERT-----END CERTIFICATE-----\n", "contains no certificate"),
        (b"CERT-----BEGIN CERTIFICATE-----\nMIIB", "an incomplete certificate"),
        (b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "number 1 of 1"),
        (b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n", "number 1 of 1"),
        (
            b"CERT-----BEGIN CERTIFICATE-----\nMIIBAAAA\n-----END CERTIFICATE-----\nCERT",
            "number 2 of 3",
        ),
    ],
)
def test_a_bundle_that_cannot_be_used_is_told_in_a_line(tmp_path, content, said):
    path = tmp_path / "bundle.pem"
    if content is not None:
        pem = Authority(tmp_path).pem.encode()
        if content.startswith(b"CERT-----END"):
            content = pem.replace(b"BEGIN", b"BEGUN")
        path.write_bytes(
            content.replace(b"CERT", pem, 1).replace(b"\nCERT", b"\n" + pem)
            if content.count(b"CERT-")
            else content
        )
    told = refusal(CA_FILE=str(path))
    assert told.startswith(f"COURSEWIRE_CA_FILE names {str(path)!r}, which ")
    assert said in told
    assert "\n" not in told
    assert told.count("; ") >= 1


def test_a_bundle_that_is_a_directory_or_no_name_is_told_too(tmp_path):
    for path in (str(tmp_path), f"{tmp_path}/a\0b"):
        told = refusal(CA_FILE=path)
        assert "cannot be read" in told


def test_a_blank_variable_counts_as_unset():
    assert accepted(REDIS_URL="", PORT=" ") == Settings()


def test_every_problem_is_reported_at_once():
    message = refusal(PORT="http", PUBLIC_DOCS="maybe", ENCRYPTION_KEYS="short", PROT="1")
    assert message.startswith("4 settings cannot be used:")
    for name in ("PORT 'http'", "PUBLIC_DOCS 'maybe'", "ENCRYPTION_KEYS key 1", "PROT is no"):
        assert f"COURSEWIRE_{name}" in message


def test_an_unknown_variable_is_refused_with_the_nearest_known_name():
    assert refusal(ADMIN_TOKN=TOKEN) == (
        "COURSEWIRE_ADMIN_TOKN is not a setting; did you mean COURSEWIRE_ADMIN_TOKEN?"
    )
    assert "known are COURSEWIRE_REDIS_URL" in refusal(X="1")


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://:password@127.0.0.1:6379/0",
        "rediss://redis.example:6380/1?ssl_cert_reqs=required",
        "unix:///run/redis.sock?db=1",
        "sentinel://one:26379,two:26379/0?service=main",
        "sentinel://user:pass@one:26379/0?service=main",
    ],
)
def test_every_form_of_a_redis_address_is_accepted_as_written(url):
    assert accepted(REDIS_URL=url).redis_url == url


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("http://localhost", "begins with redis://"),
        ("localhost:6379", "begins with redis://"),
        ("redis:///0", "has no host"),
        ("redis://localhost/first", "database number"),
        ("redis://user:pa/ss@localhost:6379/0", "percent-encoded"),
        ("redis://[localhost", "not a URL"),
        ("unix://redis.sock", "names no socket"),
        ("sentinel://one/0?service=main", "lacks host or port of sentinel 1"),
        ("sentinel://one:26379,:1/0?service=main", "lacks host or port of sentinel 2"),
        ("sentinel://one:26379/0", "does not name the service"),
    ],
)
def test_a_wrong_redis_address_is_refused_without_repeating_any_of_it(url, wrong):
    message = refusal(REDIS_URL=url)
    assert message.startswith("COURSEWIRE_REDIS_URL ")
    assert wrong in message
    assert "ss@" not in message
    assert "'pa'" not in message


NO_NUMBERS = ("1e3", "1_000", "+1", "1.0", "0x10", "inf", "nan", "٣", "²", "1 000", "1,000", "true")
NO_HOSTS = (
    "[::1]",
    "127.0.0.1:8000",
    "http://localhost",
    "1.2.3",
    "010.0.0.1",
    "a..b",
    "-a",
    "a" * 64,
)


@pytest.mark.parametrize(
    ("name", "text", "wrong"),
    [
        ("PORT", "65536", "at most 65535"),
        ("PORT", "-1", "not a whole number"),
        ("PORT", "٣", "not a whole number"),
        ("HOST", "not a host", "neither an address nor a host name"),
        ("HOST", "256.0.0.1", "neither an address nor a host name"),
        ("EVENT_RETENTION_SECONDS", "7d", "not a whole number of seconds"),
        ("EVENT_LOG_MAX_BYTES", "10", "at least 1048576 bytes"),
        ("ALLOWED_TARGETS", "10.1.2.3/8", "write 10.0.0.0/8"),
        ("ALLOWED_TARGETS", "http://hooks.internal", "neither an address, a CIDR nor a host"),
        ("ALLOWED_TARGETS", "hooks.internal:8080", "neither an address, a CIDR nor a host"),
        ("ROOT_PATH", "/v1", "begins like a path of the API itself"),
        ("ROOT_PATH", "metrics/x", "begins like a path of the API itself"),
        ("ROOT_PATH", "https://a.example/hooks", "is not a path"),
        ("ROOT_PATH", "/a/../b", "is not a path"),
        ("ROOT_PATH", "/a b", "is not a path"),
        ("ROOT_PATH", "/a?b", "is not a path"),
        ("TRUSTED_PROXIES", "nginx", "neither an address nor a CIDR"),
        ("TRUSTED_PROXIES", "*", "neither an address nor a CIDR"),
        ("TRUSTED_PROXIES", "10.1.2.3/8", "write 10.0.0.0/8"),
        ("CORS_ORIGINS", "*", "is a pattern; name each origin"),
        ("CORS_ORIGINS", "https://*.example", "is a pattern"),
        ("CORS_ORIGINS", "app.example", "write scheme and host"),
        ("CORS_ORIGINS", "null", "write scheme and host"),
        ("CORS_ORIGINS", "https://app.example/path", "write scheme and host"),
        ("CORS_ORIGINS", "https://user@app.example", "write scheme and host"),
        ("CORS_ORIGINS", "https://app.example:x", "is not an origin"),
        ("KEEP_ALIVE_SECONDS", "0", "at least 1 seconds"),
        ("SHUTDOWN_DELAY_SECONDS", "5s", "not a whole number of seconds"),
        ("SHUTDOWN_DELAY_SECONDS", "601", "at most 600 seconds"),
        ("ADMIN_TOKEN", "short", "at least 16 are needed; make one with python3"),
        ("ADMIN_TOKEN", "x", "has 1 character, at least"),
        ("ADMIN_TOKEN", "with blanks in its middle", "has blanks"),
        ("ENCRYPTION_KEYS", "!", "not URL-safe base64; make one with python3"),
        ("ENCRYPTION_KEYS", encoded(KEY_1[:31]), "has 31 bytes instead of 32"),
        ("ENCRYPTION_KEYS", encoded(KEY_1, KEY_2, KEY_1), "key 3 repeats key 1"),
        ("ENCRYPTION_KEYS", encoded(KEY_1) + ",", "key 2 has 0 bytes"),
        ("PUBLIC_DOCS", "2", "neither true nor false"),
        *(("PORT", text, "not a whole number") for text in NO_NUMBERS),
        *(("MAX_INTEGRATIONS", text, "not a whole number") for text in NO_NUMBERS),
        *(
            ("EVENT_RETENTION_SECONDS", text, "not a whole number of seconds")
            for text in NO_NUMBERS
        ),
        ("EVENT_LOG_MAX_BYTES", "1gb", "not a whole number of bytes"),
        ("EVENT_RETENTION_SECONDS", "9" * 5_000, "is too large; give at most 315360000 seconds"),
        ("ATTEMPT_RETENTION_SECONDS", "315360001", "at most 315360000 seconds"),
        ("DEAD_RETENTION_SECONDS", "0", "at least 1 seconds"),
        ("EVENT_LOG_MAX_BYTES", "9" * 20, "is too large"),
        ("MAX_SUBSCRIPTIONS", "0", "is too small; give at least 1"),
        ("MAX_SUBSCRIPTIONS", "10000001", "at most 10000000"),
        ("PORT", "99999", "at most 65535"),
        *(("PUBLIC_DOCS", text, "neither true nor false") for text in ("y", "t", "ja", "01", "-1")),
        *(("HOST", text, "neither an address nor a host name") for text in NO_HOSTS),
        ("HOST", "fe80::1%", "has a zone that is not readable"),
        ("HOST", "fe80::1%eth 0", "has a zone that is not readable"),
        ("HOST", "127.0.0.1%eth0", "has a zone that is not readable"),
        ("DATA_DIR", "~nobody-of-that-name/data", "names an unknown user"),
        ("CA_FILE", "~nobody-of-that-name/ca.pem", "names an unknown user"),
        ("DATA_DIR", "/srv/a\nb", "characters that do not print"),
        ("ALLOWED_TARGETS", "10.0.0.0/33", "neither an address, a CIDR nor a host"),
        ("ALLOWED_TARGETS", "*.internal", "neither an address, a CIDR nor a host"),
        ("ALLOWED_TARGETS", "a.internal\nb.internal", "neither an address, a CIDR nor a host"),
        ("ALLOWED_TARGETS", "[::1]", "neither an address, a CIDR nor a host"),
        ("ADMIN_TOKEN", "t" * 1_025, "at most 1024 can be sent"),
        ("ADMIN_TOKEN", "a-token-with-an\nend", "has blanks"),
        ("METRICS_TOKEN", "tökentökentökentöken", "characters outside ASCII"),
        ("ENCRYPTION_KEYS", encoded(KEY_1)[:-4], "has 30 bytes instead of 32"),
        ("ENCRYPTION_KEYS", encoded(KEY_1) + "\n" + encoded(KEY_2), "not URL-safe base64"),
        ("ENCRYPTION_KEYS", f"{encoded(KEY_1)};{encoded(KEY_2)}", "not URL-safe base64"),
        ("ENCRYPTION_KEYS", KEY_1.hex(), "has 48 bytes instead of 32"),
        ("LOG_LEVEL", "WARN", "not one of debug, info, warning, error"),
        ("LOG_FORMAT", "xml", "not one of auto, json, console"),
        ("LOG_LEVEL", "loud", "not one of debug, info, warning, error"),
    ],
)
def test_nonsense_is_refused_with_what_to_write_instead(name, text, wrong):
    message = refusal(**{name: text})
    assert message.startswith(f"COURSEWIRE_{name} ")
    assert wrong in message
    assert "\n" not in message
    assert len(message) < 300


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("::", "::"),
        ("::1", "::1"),
        ("FE80::1%Eth0", "fe80::1%Eth0"),  # an interface's name has its case
        ("LocalHost", "localhost"),
        ("api.internal.", "api.internal."),
    ],
)
def test_every_kind_of_host_is_taken(given, kept):
    assert accepted(HOST=given).host == kept


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("COURSEWIRE_REDIS_URI", "COURSEWIRE_REDIS_URL"),
        ("COURSEWIRE_LOGLEVEL", "COURSEWIRE_LOG_LEVEL"),
        ("COURSEWIRE_ENCRYPTION_KEY", "COURSEWIRE_ENCRYPTION_KEYS"),
        ("coursewire_port", "COURSEWIRE_PORT"),
        ("Coursewire_Port", "COURSEWIRE_PORT"),
        ("COURSEWIRE_REDIS_URL_FLE", "COURSEWIRE_REDIS_URL_FILE"),
    ],
)
def test_a_misspelt_name_is_noticed(variable, meant):
    with pytest.raises(
        SettingsError, match=f"{variable} is not a setting; did you mean {meant}\\?"
    ):
        Settings.from_env({variable: "1"})


def test_retries_that_would_outlive_the_events_body_are_refused():
    assert "would outlive" in refusal(EVENT_RETENTION_SECONDS=str(RETRY_SPAN - 1))
    assert accepted(EVENT_RETENTION_SECONDS=str(RETRY_SPAN))


def test_the_admin_token_is_refused_as_metrics_token():
    assert "METRICS_TOKEN is the admin token" in refusal(ADMIN_TOKEN=TOKEN, METRICS_TOKEN=TOKEN)
    assert "METRICS_TOKEN is the admin token" in refusal(
        ADMIN_TOKEN="another-token-of-an-admin", PREVIOUS_ADMIN_TOKEN=TOKEN, METRICS_TOKEN=TOKEN
    )


def test_missing_settings_are_named_together_with_how_to_make_them():
    with pytest.raises(SettingsError) as caught:
        Settings().require("REDIS_URL", "ENCRYPTION_KEYS", "ADMIN_TOKEN")
    message = str(caught.value)
    assert "COURSEWIRE_REDIS_URL is not set; write for example redis://" in message
    assert "COURSEWIRE_ENCRYPTION_KEYS is not set; give the keys of the other parts" in message
    assert "COURSEWIRE_ADMIN_TOKEN is not set; make one with python3 -c" in message


def test_required_settings_are_handed_out_when_present():
    settings = accepted(REDIS_URL="redis://localhost", ENCRYPTION_KEYS=encoded(KEY_1))
    settings.require("REDIS_URL", "ENCRYPTION_KEYS")
    assert settings.require_redis_url() == "redis://localhost"


def test_no_secret_appears_in_a_repr():
    settings = accepted(
        REDIS_URL="redis://:hidden-password@localhost",
        ADMIN_TOKEN=TOKEN,
        METRICS_TOKEN="another-token-for-metrics",
        ENCRYPTION_KEYS=encoded(KEY_1),
    )
    shown = io.StringIO()
    rich.console.Console(file=shown, width=1000).print(settings)
    for text in (repr(settings), f"{settings}", shown.getvalue()):
        assert "hidden" not in text
        assert TOKEN not in text
        assert "another-token" not in text
        assert repr(KEY_1) not in text
        assert "admin_token=***" in text.replace("'", "")
        assert "port=8000" in text


def test_settings_survive_the_way_through_an_environment():
    settings = accepted(
        REDIS_URL="redis://:hidden-password@localhost",
        ADMIN_TOKEN=TOKEN,
        ENCRYPTION_KEYS=encoded(KEY_1, KEY_2),
        ALLOWED_TARGETS="10.0.0.0/8,hooks.internal",
        PUBLIC_DOCS="false",
        PORT="0",
        DATA_DIR="/srv/coursewire",
        ROOT_PATH="/hooks",
        TRUSTED_PROXIES="10.0.0.0/8,192.0.2.1",
        CORS_ORIGINS="https://app.example,http://localhost:3000",
        SHUTDOWN_DELAY_SECONDS="5",
    )
    assert Settings.from_env(settings.to_environ()) == settings
    assert Settings().to_environ() == {}


def test_the_table_has_a_row_for_every_setting():
    lines = settings_table().splitlines()
    assert len(lines) == 2 + len(SETTINGS)
    assert "| `COURSEWIRE_PORT` | number | `8000` |" in settings_table()
    assert all(line.count("|") == 5 for line in lines)
