# SPDX-License-Identifier: Apache-2.0
"""Everything that a file host does wrong, over a real socket: the file comes whole, or an error says why not."""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import re
import socket

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_kie import exceptions as e
from airflow_provider_kie.connection import KieSettings
from airflow_provider_kie.files import download as subject
from airflow_provider_kie.files import host as file_host
from airflow_provider_kie.files import tally
from airflow_provider_kie.files.host import FileHost, Link
from airflow_provider_kie.files.reader import WavOnlyReader
from airflow_provider_kie.times import switched
from tests.certificates import certificate
from tests.file_server import MODIFIED, Act, FileServer
from tests.wav_files import UNKNOWN, wav

pytestmark = pytest.mark.usefixtures("short_times")

FILE = wav(300_000)  # 1.2 MB: several pieces
OTHER = wav(300_000, seed=9)
KEY = "canary-key-0123456789"
PAGE = b"<!DOCTYPE html><html><body>This file has expired, see https://kie.example/x?sig=canary</body></html>"


class Memory:
    """A sink that keeps everything, and notes how often it had to begin and how long to wait."""

    def __init__(self):
        self.content = bytearray()
        self.begun = []
        self.pauses = []

    def begin(self, size, media):
        self.content.clear()
        self.begun.append(size)

    def write(self, piece):
        self.content += piece

    def pause(self, seconds):
        self.pauses.append(seconds)


@pytest.fixture
def server():
    with FileServer(FILE) as running:
        yield running


@pytest.fixture
def sink():
    return Memory()


def settings(**changed):
    return KieSettings(**({"conn_id": "kie_default", "api_key": KEY, "timeout": 5.0} | changed))


def fetch(server, sink, *fresh, max_bytes=10**9, path="/s/one.wav?sig=canary", **how):
    host = FileHost(settings(**how))
    links = [Link(url if "://" in url else server.url + url, True) for url in (path, *fresh)]
    try:
        return subject.download(host, iter(links), sink, max_bytes=max_bytes, new_reader=WavOnlyReader)
    finally:
        host.close()


def came_whole(got, sink, content=FILE):
    assert bytes(sink.content) == content
    assert got.size == len(content)
    assert got.sha256 == hashlib.sha256(content).hexdigest()
    assert (got.header.channels, got.header.sample_rate, got.header.bits) == (2, 48_000, 16)


def refused(server, sink, error, *fresh, **how):
    with pytest.raises(error) as caught:
        fetch(server, sink, *fresh, **how)
    assert type(caught.value) is error
    assert "canary" not in str(caught.value)
    return str(caught.value)


# --- It comes whole


def test_a_file_comes_in_one_request(server, sink, caplog):
    caplog.set_level(logging.INFO)
    came_whole(fetch(server, sink), sink)
    assert len(server.requests) == 1
    assert sink.begun == [len(FILE)]
    assert [record.levelname for record in caplog.records if record.name == subject.__name__] == ["INFO"]


@pytest.mark.parametrize(("share", "end"), [(0.0, "reset"), (0.5, "reset"), (0.5, "close"), (0.99, "reset")])
def test_after_a_break_it_resumes_where_it_stopped(server, sink, share, end):
    server.play(Act(cut=share, end=end), Act())
    came_whole(fetch(server, sink), sink)
    begin, resumed = server.starts
    assert begin is None
    assert sink.begun == [len(FILE)]  # of a try that brought nothing the sink hears nothing
    if share:
        assert resumed is not None
        assert share * len(FILE) - 300_000 < resumed <= share * len(FILE)
        assert server.requests[1].headers["if-range"] == '"one"'
    else:
        assert resumed is None


def test_bytes_before_a_break_count_however_few(server, sink):
    server.play(*[Act(cut=0.16, end="reset")] * 12, Act())  # each less than a piece
    came_whole(fetch(server, sink), sink)
    starts = server.starts
    assert starts[1:] == sorted(set(starts[1:]))
    assert sink.begun == [len(FILE)]


def test_last_modified_serves_where_there_is_no_etag(server, sink):
    dated = {"etag": None, "modified": MODIFIED}
    server.play(Act(cut=0.5, end="reset", **dated), Act(**dated))
    came_whole(fetch(server, sink), sink)
    assert server.requests[1].headers["if-range"] == MODIFIED


@pytest.mark.parametrize(
    "how",
    [
        {"etag": None},
        {"etag": 'W/"one"', "modified": MODIFIED},
        {"etag": None, "modified": "Sun, 22 Nov 2026 10:00:00 GMT"},
        {"etag": None, "modified": "yesterday"},
        {"zipped": True},
        {"status": 203},  # a proxy may have changed it
    ],
)
def test_without_a_strong_validator_it_starts_over(server, sink, how):
    server.play(Act(cut=0.5, end="reset", **how), Act(**how))
    came_whole(fetch(server, sink), sink)
    assert server.starts == [None, None]
    assert len(sink.begun) == 2


def part(body, content_range):
    return Act(body=body, status=206, headers={"Content-Range": content_range})


HALF = len(FILE) // 2
ETAG, DATED = {"etag": '"two"'}, {"etag": None, "modified": "Thu, 02 Jan 2025 00:10:00 GMT"}
#: The validator before a break, what the host answers when it is asked for the rest, and what came at last.
NOT_THE_REST = {
    "ranges ignored": ({}, [Act(ranges=False)], FILE),
    "changed": ({}, [Act(body=OTHER, **ETAG)], OTHER),
    "changed, from a proxy": ({}, [Act(status=203, body=OTHER)], OTHER),
    "If-Range ignored": ({}, [Act(body=OTHER, blind=True, **ETAG), Act(body=OTHER, **ETAG)], OTHER),
    "If-Range with a date ignored": (
        {"etag": None, "modified": MODIFIED},
        [Act(body=OTHER, blind=True, **DATED), Act(body=OTHER, **DATED)],
        OTHER,
    ),
    "beyond the end": ({}, [Act(status=416, body=b""), Act()], FILE),
    "another part": ({}, [part(FILE[:HALF], f"bytes 0-{HALF - 1}/{len(FILE)}"), Act()], FILE),
    "of a longer file": ({}, [part(FILE[HALF:] + b"x", f"bytes {HALF}-{len(FILE)}/{len(FILE) + 1}"), Act()], FILE),
    "no part": ({}, [part(FILE[HALF:], "nonsense"), Act()], FILE),
}


@pytest.mark.parametrize("case", NOT_THE_REST)
def test_what_is_not_the_rest_is_not_joined(server, sink, case):
    before, answers, content = NOT_THE_REST[case]
    server.play(Act(cut=0.5, end="reset", **before), *answers)
    came_whole(fetch(server, sink), sink, content)
    assert server.starts[1]
    assert len(server.requests) == 1 + len(answers)
    assert len(sink.begun) == 2


@pytest.mark.parametrize(
    "how", [{"length": "none"}, {"length": "chunked"}, {"zipped": True}, {"zipped": True, "length": "chunked"}]
)
def test_without_a_length_the_header_says_what_is_whole(server, sink, how):
    server.play(Act(**how))
    came_whole(fetch(server, sink), sink)
    assert sink.begun == [None]
    server.play(Act(**how, cut=0.5), Act(**how))
    came_whole(fetch(server, sink), sink)
    assert len(server.requests) >= 3


@pytest.mark.parametrize(
    ("content", "says"),
    [(wav(1000, riff_size=UNKNOWN, data_size=UNKNOWN), "unknown whether"), (wav(1000, riff_size=4044), "cut off")],
    ids=["stream", "odd"],
)
def test_where_the_header_is_silent_the_host_may_vouch(server, sink, content, says):
    server.play(Act(body=content, length="none", etag=None))
    assert says in refused(server, sink, e.KieDownloadError)
    assert len(server.requests) == (1 if says == "unknown whether" else tally.MOST_BREAKS_IN_A_ROW + 1)
    server.requests.clear()
    server.play(Act(body=content, length="none"))  # asked for more, it says that this was all
    came_whole(fetch(server, sink), sink, content)
    assert server.starts == [None, len(content)]
    server.play(Act(body=content))
    came_whole(fetch(server, sink), sink, content)


@pytest.mark.parametrize(
    "content",
    [
        wav(5000, riff_size=20_044),
        wav(5000) + bytes(600_000),
        wav(5000, riff_size=0x7FFFF024, data_size=0x7FFFF000),
        wav(5000, frame=2),
    ],
    ids=["wrong size", "blanks behind", "size left open", "odd frames"],
)
def test_whole_audio_in_an_odd_file_comes_with_a_warning(server, sink, caplog, content):
    server.play(Act(body=content, cut=0.5, end="reset"), Act(body=content))
    got = fetch(server, sink)
    came_whole(got, sink, content)
    assert got.header.total_bytes == len(content)
    assert got.header.seconds == round(5000 / 48_000, 6)
    assert len([record for record in caplog.records if "came whole, but" in record.getMessage()]) == 1


@pytest.mark.parametrize("status", [500, 520, 429, 408])
def test_trouble_of_the_host_is_asked_again(server, sink, status):
    server.play(Act(status=status, body=b"error code: 520"), Act())
    came_whole(fetch(server, sink), sink)


def test_retry_after_is_heard(server, sink):
    server.play(Act(status=503, body=b"", headers={"Retry-After": "7"}), Act())
    fetch(server, sink)
    (pause,) = sink.pauses
    assert 7 <= pause <= 9.1


def test_a_host_that_falls_silent_is_asked_again(server, sink):
    server.play(Act(cut=0.5, end="hold"), Act())
    came_whole(fetch(server, sink, timeout=0.3), sink)
    assert server.starts[1]


# --- Links


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_an_expired_link_is_renewed_or_final(server, sink, status):
    server.play(Act(status=status, body=b"error code: 1010"), Act())
    came_whole(fetch(server, sink, "/d/fresh.wav"), sink)
    assert [request.target for request in server.requests] == ["/s/one.wav?sig=canary", "/d/fresh.wav"]
    server.play(Act(status=status, body=b"Gone"))
    message = refused(server, sink, e.KieLinkExpiredError, "/d/fresh.wav")
    assert f"HTTP {status}" in message
    assert "'Gone'" in message
    assert len(server.requests) == 4


@pytest.mark.parametrize(("fresh", "resumes"), [("/s/one.wav?sig=new", True), ("/d/other.wav", False)])
def test_validators_hold_whatever_the_signature(server, sink, fresh, resumes):
    server.play(Act(cut=0.5, end="reset"), Act(status=403, body=b""), Act())
    came_whole(fetch(server, sink, fresh), sink)
    assert server.starts[2] == (server.starts[1] if resumes else None)


def test_each_link_that_brings_bytes_may_be_followed(server, sink):
    acts = [(Act(cut=0.2, end="reset"), Act(status=403, body=b"")) for _ in range(6)]
    server.play(*(act for pair in acts for act in pair), Act())
    came_whole(fetch(server, sink, *(f"/s/one.wav?sig={number}" for number in range(6))), sink)


def test_links_that_bring_nothing_come_to_an_end(server, sink):
    server.play(Act(status=403, body=b""))
    refused(server, sink, e.KieLinkExpiredError, *(f"/s/one.wav?sig={number}" for number in range(50)))
    assert len(server.requests) == tally.MOST_LINKS_IN_VAIN


def test_a_web_page_asks_for_a_fresh_link(server, sink, caplog):
    server.play(Act(body=PAGE), Act())
    came_whole(fetch(server, sink, "/s/one.wav?sig=new"), sink)
    assert sink.begun == [len(FILE)]
    assert "sig=canary" not in caplog.text


# --- It is refused


@pytest.mark.parametrize(
    ("body", "first"),
    [
        (PAGE, "<!DOCTYPE html>"),
        (b'{"code":404,"msg":"file does not exist","data":null}', "file does not exist"),
        (b"", "it is empty"),
        (b"ID3" + bytes(400_000), "ID3"),
    ],
)
def test_what_is_no_wav_is_refused_with_its_first_bytes(server, sink, body, first):
    server.play(Act(body=body))
    assert first in refused(server, sink, e.KieNotAWavError)
    assert len(server.requests) == 1
    assert bytes(sink.content) == b""


def test_an_empty_answer_without_a_length_is_asked_again(server, sink):
    server.play(Act(body=b"", length="none"), Act())
    came_whole(fetch(server, sink), sink)


def test_another_length_than_announced_is_refused(server, sink):
    server.play(Act(length=1000))
    message = refused(server, sink, e.KieDownloadError)
    assert f"{len(FILE):,} of {len(FILE) + 1000:,} bytes" in message
    server.play(Act(length=-1000))
    refused(server, sink, e.KieFileCutOffError)


@pytest.mark.parametrize(
    ("body", "error", "says", "asked"),
    [
        (FILE[:-1000], e.KieFileCutOffError, "cut off", subject.MOST_DAMAGED_FILES),
        (wav(1000, data_size=2000, riff_size=2036), e.KieNotAWavError, "declares 2,044", subject.MOST_DAMAGED_FILES),
        (wav(0), e.KieNotAWavError, "holds no audio", subject.MOST_DAMAGED_FILES),
        (FILE[:30], e.KieFileCutOffError, "before its audio begins", 1 + tally.MOST_LINKS_IN_VAIN),
    ],
    ids=["cut off", "declares less", "no audio", "hardly begun"],
)
def test_a_damaged_file_is_final_after_a_fresh_link(server, sink, body, error, says, asked):
    server.play(Act(body=body), Act())
    came_whole(fetch(server, sink, "/s/one.wav?sig=new"), sink)
    server.play(Act(body=body))
    server.requests.clear()
    assert says in refused(server, sink, error, *(f"/s/one.wav?sig={number}" for number in range(50)))
    assert len(server.requests) == asked
    assert issubclass(error, AirflowFailException)  # what the host vouches for does not change with a retry


@pytest.mark.parametrize("act", [Act(length="none", cut=0.9), Act(length="chunked", body=FILE[:-1000])])
def test_what_nobody_vouches_for_may_be_whole_next_time(server, sink, act):
    act.etag = None
    server.play(act)
    refused(server, sink, e.KieDownloadError)
    assert not issubclass(e.KieDownloadError, AirflowFailException)


@pytest.mark.parametrize(
    "act", [Act(cut=0.5, end="reset", etag=None), Act(cut=0.5, length="none", ranges=False), Act(status=503)]
)
def test_breaks_without_progress_are_given_up_soon(server, sink, act):
    server.play(act)
    assert "given up" in refused(server, sink, e.KieDownloadError)
    assert len(server.requests) <= tally.MOST_BREAKS_IN_A_ROW + 2


def test_breaks_with_little_progress_come_to_an_end(server, sink, monkeypatch):
    monkeypatch.setattr(file_host, "PIECE", 1000)
    monkeypatch.setattr(tally, "MOST_BREAKS", 8)
    server.play(Act(cut=0.01, end="reset"))
    assert "given up after 9 breaks" in refused(server, sink, e.KieDownloadError)
    assert len(server.requests) == 9


@pytest.mark.parametrize("status", [400, 402, 451, 204])
def test_other_answers_are_not_asked_again(server, sink, status):
    server.play(Act(status=status, body=b"" if status == 204 else b"no"))
    assert f"HTTP {status}" in refused(server, sink, e.KieDownloadError)
    assert len(server.requests) == 1


def test_a_file_that_is_too_large_is_refused_at_once(server, sink):
    assert f"has {len(FILE):,} bytes" in refused(server, sink, e.KieFileTooLargeError, max_bytes=len(FILE) - 1)
    assert sink.begun == []
    came_whole(fetch(server, sink, max_bytes=len(FILE)), sink)


@pytest.mark.parametrize("act", [Act(length="none"), Act(length="chunked"), Act(zipped=True)])
def test_a_file_that_turns_out_too_large_is_refused(server, sink, act):
    server.play(act)
    assert "more than 400,000" in refused(server, sink, e.KieFileTooLargeError, max_bytes=400_000)
    assert len(sink.content) <= 400_000


# --- Where it may go, and what it takes along


def test_the_key_never_goes_to_a_file_host(server, sink, monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password canary-netrc\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with FileServer(FILE) as target:
        server.play(Act(status=302, body=b"", headers={"Location": target.url + "/x", "Set-Cookie": "a=b"}))
        target.play(Act(cut=0.5, end="reset"), Act())
        fetch(server, sink)
        asked = server.requests + target.requests
    assert len(asked) == 4
    for request in asked:
        assert not {"authorization", "cookie", "referer"} & set(request.headers)
        assert KEY not in str(request)
        assert request.headers["user-agent"].startswith("airflow-provider-kie/")
        assert request.headers["accept-encoding"] == "identity"


def redirect(location):
    """A redirect whose header stands in Latin-1, in which the file server writes it."""
    return Act(status=302, body=b"", headers={"Location": location.decode("latin-1")})


@pytest.mark.parametrize(
    ("location", "asked"),
    [
        (b"/my song.wav?n=a b", "/my%20song.wav?n=a%20b"),
        ("/größe/日本.wav?title=Å".encode(), "/gr%C3%B6%C3%9Fe/%E6%97%A5%E6%9C%AC.wav?title=%C3%85"),
        ("/größe.wav".encode("latin-1"), "/gr%F6%DFe.wav"),
        (b'/"<{|}>^`', "/%22%3C%7B%7C%7D%3E%5E%60"),
        (b"/a%20b%2", "/a%20b%252"),
    ],
)
def test_a_redirect_is_followed_as_browsers_do(server, sink, location, asked):
    server.play(redirect(location), Act())
    came_whole(fetch(server, sink), sink)
    assert server.requests[1].target == asked


@pytest.mark.parametrize(
    ("location", "sent"),
    [
        ("https://files.example.com/1.wav", "https://files.example.com/1.wav"),
        ("https://bücher.example/größe.wav", "https://xn--bcher-kva.example/gr%C3%B6%C3%9Fe.wav"),
    ],
)
def test_redirects_to_https_are_followed_five_times(server, sink, monkeypatch, location, sent):
    monkeypatch.setattr(file_host, "_addresses", lambda host, **_: [ipaddress.ip_address("93.184.215.14")])
    server.play(redirect(location.encode()))
    asked, get = [], FileHost._get
    monkeypatch.setattr(
        FileHost, "_get", lambda self, url, headers: asked.append(url) or get(self, server.url, headers)
    )
    refused(server, sink, e.KieUnsafeUrlError)
    assert set(asked[1:]) == {sent}
    assert len(asked) == file_host.MOST_REDIRECTS + 1


def test_a_link_is_asked_for_as_http_wants_it(server, sink):
    came_whole(fetch(server, sink, path=f" {server.url}/my song.wav?n=größe\n"), sink)
    assert server.requests[0].target == "/my%20song.wav?n=gr%C3%B6%C3%9Fe"


@pytest.mark.parametrize(
    "target",
    [
        *("http://files.example.com/1.wav", "http://kie.invalid/1.wav?sig=canary", "http://localhost/1.wav"),
        *("http://127.0.0.2/1.wav", "http://10.0.0.1/1.wav", "https://10.0.0.1/1.wav", "https://[::1]/1.wav"),
        *("https://169.254.169.254/latest/meta-data", "https://someone:secret@files.example.com/1.wav"),
        *("ftp://files.example.com/1.wav?sig=canary", "file:///etc/passwd", "https://[/1.wav"),
        *("https://files.example.com:x/1.wav?sig=canary", "\\\\files.example.com\\1.wav"),
        "https://files.example.com/my song.wav#sig=canary\\",
        # Other spellings of this machine and of the private network.
        *("https://１０.0.0.1/1.wav", "https://10。0．0｡1/1.wav", "https://ⓛocalhost/1.wav"),
        *("https://loc%61lhost/1.wav", "https://0x7f.1/1.wav", "https://files.example.com＠10.0.0.1/1.wav"),
    ],
)
def test_a_redirect_to_where_it_must_not_go(server, sink, target):
    server.play(redirect(target.encode()))
    refused(server, sink, e.KieUnsafeUrlError)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "host",
    [
        *("１２７.0.0.1", "127。0．0｡1", "ⓛocalhost", "loc\u00adalhost", "%6cocalhost", "0x7f.1"),
        *("169.254.169.254.", "127.0.0.1.", "2130706433.", "0x7f.1."),  # an address, and no name for the proxy
    ],
)
@pytest.mark.parametrize("proxy", [None, "http://127.0.0.1:9"])
def test_the_host_that_is_checked_is_asked(monkeypatch, host, proxy):
    monkeypatch.setattr(FileHost, "_get", lambda *_: pytest.fail("was asked"))
    with pytest.raises(e.KieUnsafeUrlError, match="not an address of the public internet"):
        FileHost(settings(proxy=proxy)).ask(Link(f"https://{host}/1.wav", False), {})


def addresses(*found):
    return lambda host, port, **_: [(2, 1, 6, "", (address, 0)) for address in found]


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("224.0.0.1", "::1", "fe80::1", "fc00::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::1", "::"),
        *("64:ff9b:1::a00:1", "::10.0.0.1", "::ffff:0:a00:1", "fec0::1", "168.63.129.16", "192.0.0.192"),
    ],
)
@pytest.mark.parametrize("beside", [(), ("93.184.215.14",)])
def test_a_url_must_not_lead_into_the_private_network(monkeypatch, address, beside):
    monkeypatch.setattr(file_host.socket, "getaddrinfo", addresses(*beside, address))
    with pytest.raises(e.KieUnsafeUrlError, match="not an address of the public internet"):
        FileHost(settings()).ask(Link("https://files.example.com/1.wav", False), {})


@pytest.fixture
def name_that_moves(monkeypatch):
    """``files.example.com`` leads to this machine, which counts as public here, and to another place from then on."""
    found = iter(["127.0.0.1"])
    resolve = socket.getaddrinfo

    def getaddrinfo(host, *arguments, **options):
        return resolve(next(found, "192.0.2.1") if host == "files.example.com" else host, *arguments, **options)

    monkeypatch.setattr(file_host.socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(file_host, "_is_public", lambda address: True)
    return "files.example.com"


def test_the_address_that_was_checked_is_asked(server, name_that_moves):
    netloc = f"{name_that_moves}:{server.port}"
    with FileHost(settings()).ask(Link(f"http://{netloc}/1.wav", False), {}) as response:
        assert response.status_code == 200
    assert server.requests[0].headers["host"] == netloc


@pytest.mark.parametrize("name", ["files.example.com", "other.example.com"])
def test_the_certificate_has_to_be_that_of_the_name(tmp_path, name_that_moves, name):
    pem = certificate(tmp_path / "host.pem", name)
    with FileServer(FILE, certificate=pem) as server:
        host = FileHost(settings(verify=str(pem), base_url=f"https://{name_that_moves}"))
        link = Link(f"https://{name_that_moves}:{server.port}/1.wav", False)
        if name == name_that_moves:
            with host.ask(link, {}) as response:
                assert response.status_code == 200
        else:
            with pytest.raises(e.KieDownloadError, match="TLS"):
                host.ask(link, {})


def test_the_private_network_may_be_allowed(server, sink):
    with pytest.raises(e.KieUnsafeUrlError):
        FileHost(settings()).ask(Link(server.url, False), {})
    assert server.requests == []
    with FileHost(settings(), allow_private_hosts=True).ask(Link(server.url, False), {}) as response:
        assert response.status_code == 200


def test_a_host_that_nobody_checked_is_not_asked(server):
    with pytest.raises(KeyError):
        FileHost(settings())._get(server.url, {})


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://a.example/x?sig=canary", "file:///etc/passwd", "", "nonsense", "https://", "http://a.example:x/"),
        *("s3://bucket/my song.wav?sig=canary", 7, None, "https://.a.example/", "https://a.example\n/"),
    ],
)
def test_only_http_urls_are_asked_for(url):
    with pytest.raises(e.KieValidationError, match=r"^The file's link is ") as caught:
        FileHost(settings()).ask(Link(url, True), {})
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        *("https://user:canary@a.example/", "https://canary@a.example/my song.wav"),
        *("https://a.example\\@10.0.0.1/", "https://a.example/a\\b?sig=canary"),
    ],
)
def test_a_url_that_is_read_differently_is_refused(url):
    with pytest.raises(e.KieUnsafeUrlError) as caught:
        FileHost(settings()).ask(Link(url, True), {})
    assert "canary" not in str(caught.value)


def test_a_name_without_an_address_is_given_up_at_last(server, sink, monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(file_host.socket, "getaddrinfo", unknown)
    host = FileHost(settings())
    with pytest.raises(e.KieDownloadError, match="its name has no address"):
        subject.download(host, iter([Link("https://kie.invalid/1.wav", False)]), sink, max_bytes=1)


@pytest.mark.parametrize("whose", ["connection", "environment"])
def test_a_proxy_is_used_and_resolves_the_name(server, sink, monkeypatch, whose):
    # A proxy for plain http is asked like a server, with the whole URL.
    if whose == "environment":
        monkeypatch.setenv("http_proxy", server.url)
    host = FileHost(settings(proxy=server.url if whose == "connection" else None))
    got = subject.download(host, iter([Link("http://kie.invalid/1.wav", False)]), sink, max_bytes=10**9)
    came_whole(got, sink)
    assert server.requests[0].target == "http://kie.invalid/1.wav"
    assert not {"authorization", "proxy-authorization"} & set(server.requests[0].headers)


# --- What the log says


@switched(download_lines=0.0)
def test_the_log_tells_size_share_and_speed(server, sink, caplog):
    caplog.set_level(logging.INFO)
    server.play(Act(cut=0.5, end="reset"), Act())
    fetch(server, sink)
    said = [record.getMessage() for record in caplog.records if record.name == subject.__name__]
    progress = [text for text in said if re.search(r"\d\.\d MB \(\d+% of 1\.2 MB\), .* MB/s", text)]
    assert len(progress) >= 4
    assert re.search(r"1\.2 MB \(100%\) in \d+\.\d seconds, .* MB/s", said[-1])
    assert any("broke off" in text and "600," in text for text in said)
