from __future__ import annotations

import ssl

import pytest

from service.domain.errors import SettingsError
from service.redis_url import OPTIONS, read_redis_url
from service.settings import Settings
from service.storage.redis.client import open_async, open_sync

SECRET = "hush-hush"


def fields(url: str) -> tuple:
    one = read_redis_url(url)
    return one.scheme, one.host, one.port, one.db, one.username, one.password


def refusal(url: str) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({"COURSEWIRE_REDIS_URL": url})
    message = str(caught.value)
    assert message.startswith("COURSEWIRE_REDIS_URL ")
    assert "\n" not in message
    assert SECRET not in message
    return message


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://localhost", ("redis", "localhost", 6379, 0, None, None)),
        ("redis://localhost/", ("redis", "localhost", 6379, 0, None, None)),
        ("REDIS://Localhost:1/7", ("redis", "localhost", 1, 7, None, None)),
        ("redis://localhost?db=3", ("redis", "localhost", 6379, 3, None, None)),
        ("redis://:p%40ss@h:1/0", ("redis", "h", 1, 0, None, "p@ss")),
        ("redis://me:p@s:s@h:1/0", ("redis", "h", 1, 0, "me", "p@s:s")),
        ("redis://me@h", ("redis", "h", 6379, 0, "me", None)),
        ("redis://me:h%C3%BCt@h", ("redis", "h", 6379, 0, "me", "hüt")),
        ("rediss://[::1]:6380/1", ("rediss", "::1", 6380, 1, None, None)),
        ("redis://[fe80::1%25eth0]/1", ("redis", "fe80::1%eth0", 6379, 1, None, None)),
        ("redis://redis_1.internal.:1", ("redis", "redis_1.internal.", 1, 0, None, None)),
    ],
)
def test_an_address_is_read(url, expected):
    assert fields(url) == expected


def test_a_socket_and_sentinels_are_read():
    socket = read_redis_url("unix://me:pass@/run/my%20redis.sock?db=2&socket_timeout=2.5")
    assert (socket.path, socket.db, socket.username) == ("/run/my redis.sock", 2, "me")
    assert socket.options == {"socket_timeout": 2.5}
    watched = read_redis_url("sentinel://me:pass@one:1,[::2]:2/3?service=main")
    assert (watched.sentinels, watched.service, watched.db) == ((("one", 1), ("::2", 2)), "main", 3)
    assert watched.shown == "one:1,[::2]:2"
    assert "pass" not in f"{socket!r}{watched!r}{socket.shown}{watched.shown}"


REFUSED = {  # what is behind redis://host/0 or so, and what the refusal names
    "?family=0": "option family",
    "?tls=true": "begin the URL with rediss://",
    "?ssl=true": "begin the URL with rediss://",
    "?foo=bar": "option foo, which is not supported; remove it. Supported are db, ",
    "?socket_timeout=abc": "wrong value for socket_timeout, which takes 1 to 60 seconds",
    "?socket_timeout=0": "1 to 60 seconds",
    "?socket_timeout=1e1": "1 to 60 seconds",
    "?socket_timeout=1_0": "1 to 60 seconds",
    "?socket_timeout=nan": "1 to 60 seconds",
    "?socket_timeout=inf": "1 to 60 seconds",
    "?socket_timeout=%D9%A3": "1 to 60 seconds",
    "?socket_timeout=": "1 to 60 seconds",
    "?socket_connect_timeout=-1": "0.1 to 60 seconds",
    "?socket_connect_timeout=0": "0.1 to 60 seconds",
    "?socket_keepalive=maybe": "true or false",
    "?Socket_Timeout=5": "write socket_timeout if you meant that",
    "?socket-timeout=5": "write socket_timeout if you meant that",
    "?ssl_cert_reqs=CERT_NONE": "rediss://",
    "?decode_responses=true": "option decode_responses",
    "?timeout=0": "remove it, or set socket_timeout",
    "?protocol=3": "option protocol",
    "?max_connections=1": "option max_connections",
    "?health_check_interval=1": "option health_check_interval",
    "?retry_on_timeout=true": "option retry_on_timeout",
    "?client_name=x": "option client_name",
    "?username=me": "write USER:PASSWORD@ before the host",
    f"?password={SECRET}": "write USER:PASSWORD@ before the host",
    "?host=other": "option host",
    "?service=main": "option service, which redis:// does not take",
    "?db=1&db=1": "gives the database twice",
    "?socket_timeout=5&socket_timeout=6": "option socket_timeout more than once",
    "?db=3": "gives the database twice",
    "?db": "not NAME=VALUE",
    "?&": "not NAME=VALUE",
    f"?{SECRET}!=1": "has an option that is not supported",
    "#fragment": "has a part after #",
    "#": "has a part after #",
}


@pytest.mark.parametrize(("more", "named"), REFUSED.items())
def test_an_option_that_is_not_supported_is_refused_by_name(more, named):
    if "db=1&" in more:
        more, named = more.replace("db=1&", "db=1&", 1), "option db more than once"
        assert named in refusal(f"redis://:{SECRET}@host{more}")
    else:
        assert named in refusal(f"redis://:{SECRET}@host/2{more}")


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("rediss://h?ssl_cert_reqs=none", "because the certificate is always verified"),
        ("rediss://h?ssl_cert_reqs=CERT_NONE", "because the certificate is always verified"),
        ("rediss://h?ssl_cert_reqs=optional", "because the certificate is always verified"),
        ("rediss://h?ssl_check_hostname=false", "the name in the certificate is always verified"),
        ("rediss://h?ssl_ca_certs=ca.pem", "the absolute path of a file"),
        ("rediss://h?ssl_ca_certs=/nowhere/ca.pem", "which does not exist"),
        ("rediss://h?ssl_keyfile=/nowhere/key.pem", "ssl_keyfile without ssl_certfile"),
        ("rediss://h?ssl_certfile=/nowhere/c.pem", "cannot be read (No such file or directory)"),
        ("rediss://h?ssl_min_version=1", "option ssl_min_version"),
        ("sentinel://h:1/0?service=m&ssl=true", "are not encrypted, so remove it"),
        ("sentinel://h:1/0?service=m&ssl_ca_certs=/x", "are not encrypted, so remove it"),
        ("sentinel://h:1/0?service=", "the name that the sentinels watch"),
        ("sentinel://h:1/0?service=a&service=b", "option service more than once"),
        ("sentinel://h:1?service=a&db=1", "option db, which sentinel:// does not take"),
        ("sentinel://h/0?service=a", "lacks host or port of sentinel 1"),
        ("sentinel://h:0/0?service=a", "lacks host or port of sentinel 1"),
        ("unix:///run/s?db=-1", "wrong value for db"),
        ("unix:///run/s?ssl=true", "are not encrypted, so remove it"),
        ("unix://host/run/s", "names no socket"),
        ("unix:///", "names no socket"),
        ("unix:///run/%zz", "% that two hexadecimal digits do not follow"),
    ],
)
def test_options_of_tls_sentinels_and_sockets_are_checked(url, named):
    assert named in refusal(url)


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("redis://host/abc", "database number"),
        ("redis://host/-1", "database number"),
        ("redis://host/1_0", "database number"),
        ("redis://host/٣", "database number"),
        ("redis://host/99999999999", "database number"),
        ("redis://host/0/", "database number"),
        ("redis://host//0", "database number"),
        ("redis://host:0/0", "port that is not a number from 1 to 65535"),
        ("redis://host:99999/0", "port that is not a number from 1 to 65535"),
        ("redis://host:/0", "port that is not a number from 1 to 65535"),
        ("redis://host:6_379/0", "port that is not a number from 1 to 65535"),
        ("redis://host:٣/0", "port that is not a number from 1 to 65535"),
        ("redis://:1/0", "has no host"),
        ("redis://@/0", "has no host"),
        ("redis://ho!st/0", "neither an address nor a host name"),
        ("redis://300.1.1.1/0", "neither an address nor a host name"),
        ("redis://[::g]/0", "not a URL"),
        ("redis://::1/0", "IPv6 address in brackets"),
        ("redis://one,two/0", "names several hosts"),
        ("redis:host", "begins with redis://"),
        ("tcp://host", "begins with redis://"),
        ("redis+tls://host", "begins with redis://"),
        ("redis://ho st/0", "contains a blank"),
        ("redis://host\n/0", "contains a blank"),
        ("redis://\u00a0host/0", "contains a blank"),
    ],
)
def test_a_place_that_cannot_be_is_refused(url, named):
    assert named in refusal(url)


@pytest.mark.parametrize("character", ["/", "#", "?", "[", "%", "\t", " "])
@pytest.mark.parametrize("scheme", ["redis", "rediss", "sentinel"])
def test_a_password_that_is_not_encoded_is_refused_and_not_shown(scheme, character):
    more = "?service=main" if scheme == "sentinel" else ""
    message = refusal(f"{scheme}://:{SECRET}{character}{SECRET}@host:6379/0{more}")
    assert "percent-encoded" in message


@pytest.mark.parametrize("password", ["%zz", "%", "%f", "%ff%fe"])
def test_a_password_that_is_encoded_wrongly_is_refused(password):
    assert "percent-encoded" in refusal(f"redis://:{SECRET}{password}@host:6379/0")


def test_a_password_that_looks_like_the_rest_of_the_url_is_not_shown():
    assert "has an @ after its host" in refusal(f"redis://me:6379/0?{SECRET}=x@host:6379/0")
    assert "has an @ after its host" in refusal(f"redis://me:6379/{SECRET}@host:6379/0")


def test_blanks_around_it_do_no_harm():
    url = "redis://host:6379/0"
    assert Settings.from_env({"COURSEWIRE_REDIS_URL": f" {url} \n"}).redis_url == url


OPTIONED = "socket_timeout=7&socket_connect_timeout=1.5"


@pytest.mark.parametrize(
    "url",
    [
        f"redis://me:pass@host:1/2?{OPTIONED}&socket_keepalive=true",
        f"rediss://me:pass@host:1/2?{OPTIONED}&ssl_cert_reqs=required&ssl_check_hostname=true",
        f"unix://me:pass@/run/redis.sock?db=2&{OPTIONED}",
        f"sentinel://me:pass@host:1/2?service=main&{OPTIONED}",
    ],
)
async def test_what_the_service_relies_on_is_pinned_whatever_the_url_says(url):
    for client, waits in ((open_async(url), 7.0), (open_sync(url, blocks_for=5), 12.0)):
        given = client.connection_pool.connection_kwargs
        assert given["socket_timeout"] == waits
        assert given["socket_connect_timeout"] == 1.5
        assert (given["protocol"], given["decode_responses"]) == (2, False)
        assert (given["db"], given["username"], given["password"]) == (2, "me", "pass")
        connection = client.connection_pool.make_connection()
        assert connection.db == 2
        if url.startswith("rediss"):
            verified = getattr(connection, "ssl_context", connection)  # the asynchronous one's
            assert (verified.cert_reqs, verified.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_every_option_says_what_it_takes():
    for option in OPTIONS.values():
        assert option.takes
        assert option.schemes
