# SPDX-License-Identifier: Apache-2.0
"""The WAV endpoints: what is sent, and how every field of a record is read."""

from __future__ import annotations

import json

import pytest

from airflow_provider_kie import connection
from airflow_provider_kie import exceptions as e
from airflow_provider_kie.api.call import Call, Repeat
from airflow_provider_kie.api.envelope import Response
from airflow_provider_kie.api.families import WAV, WAV_ROUTES
from airflow_provider_kie.api.job import KieJob, read_job
from airflow_provider_kie.api.wav import (
    Submitted,
    WavConversion,
    as_conversion,
    as_job,
    check_route,
    convert_to_wav,
    id_in,
    row_of,
)
from tests.tables import each

URL = "https://tempfile.example/s/1.wav"
CALLBACK = "https://api.example.com/callback"


def submitting() -> Call[Submitted]:
    return convert_to_wav("music-1", "track-1", CALLBACK)


def reading() -> Call[KieJob | None]:
    return read_job(WAV, "wav-1")


def answer(data: object, code: int = 200, **fields: object) -> Response:
    return Response(200, json.dumps({"code": code, "msg": "text", "data": data, **fields}).encode())


def read(**fields: object) -> WavConversion:
    found = reading().read(answer({"taskId": "wav-1", **fields}))
    assert found is not None
    return as_conversion(found)


def refusal(call, received: Response) -> e.KieError:
    with pytest.raises(e.KieError) as caught:
        call.read(received)
    return caught.value


class TestSubmit:
    def test_what_is_sent(self):
        call = submitting()
        assert (call.method, call.path, call.params) == ("POST", "/api/v1/wav/generate", None)
        assert call.json == {"taskId": "music-1", "audioId": "track-1", "callBackUrl": CALLBACK}
        assert call.repeat is Repeat.GUARDED
        assert call.kie_task_id is None
        assert call.purpose == "Submitting the WAV conversion of track 'track-1' of music task 'music-1'"

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            (("", "track-1", CALLBACK), "^music_task_id is empty"),
            (("music-1", None, CALLBACK), "^audio_id is empty"),
            (("music-1", "track-1", "/callback"), r"^callback_url is not an http\(s\) URL"),
            (("music-1", "track-1", None), r"^callback_url is not an http\(s\) URL"),
        ],
    )
    def test_a_wrong_argument_is_named(self, arguments, problem):
        with pytest.raises(e.KieValidationError, match=problem):
            convert_to_wav(*arguments)

    @pytest.mark.parametrize("given", ["aGkgdGhlcmU=", "a+b_c==", "v1.local~abc"])
    def test_an_id_of_another_kind_is_not_lost(self, given):
        assert submitting().read(answer({"taskId": given})) == Submitted(given, reused=False)
        assert read_job(WAV, given).params == {"taskId": given}

    def test_ids_of_digits_may_have_become_numbers(self):
        sent = convert_to_wav(5, 0, CALLBACK)
        assert (sent.json["taskId"], sent.json["audioId"]) == ("5", "0")

    @pytest.mark.parametrize(
        ("given", "sent"),
        [
            (f" {CALLBACK}\n", CALLBACK),
            ("https://bücher.example/größe?an=my song", "https://xn--bcher-kva.example/gr%C3%B6%C3%9Fe?an=my%20song"),
        ],
    )
    def test_the_callback_url_is_sent_as_http_wants_it(self, given, sent):
        assert convert_to_wav("music-1", "track-1", given).json["callBackUrl"] == sent


class TestRead:
    def test_what_is_sent(self):
        call = reading()
        assert (call.method, call.path, call.params) == ("GET", "/api/v1/wav/record-info", {"taskId": "wav-1"})
        assert (call.json, call.repeat, call.kie_task_id) == (None, Repeat.ALWAYS, "wav-1")
        assert call.purpose == "Reading the WAV conversion"

    def test_a_full_record(self):
        assert read(
            musicId="e231",
            musicIndex=1,
            successFlag="SUCCESS",
            response={"audioWavUrl": URL},
            createTime="2025-01-01 00:00:00",
            completeTime=1753782937000,
            errorCode=413,
            errorMessage="odd",
            callbackUrl=CALLBACK,
        ) == {
            "kie_task_id": "wav-1",
            "music_id": "e231",
            "music_index": 1,
            "status": "SUCCESS",
            "wav_url": URL,
            "create_time": "2025-01-01 00:00:00",
            "complete_time": "2025-07-29T09:55:37+00:00",
            "error_code": 413,
            "error_message": "odd",
        }


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"successFlag": " Success\n"}, "SUCCESS"),
        ({"successFlag": "queued"}, "QUEUED"),
        ({"successFlag": None, "status": "pending"}, "PENDING"),
        ({"successFlag": "SUCCESS", "status": "PENDING"}, "SUCCESS"),
        ({"successFlag": "", "status": "PENDING"}, "PENDING"),
        ({"successFlag": 0}, "PENDING"),
        ({"status": 1}, "SUCCESS"),
        *(({"successFlag": odd}, str(odd).upper()) for odd in (2, -1, 1.0, True, False, ["x"])),
        ({"successFlag": "x" * 81}, "X" * 80),
        ({"successFlag": None, "status": None}, ""),
    ],
)
def test_status(fields, status):
    found = read(**fields)["status"]
    assert found == status
    assert type(found) is str


@pytest.mark.parametrize("word", ["https://a.example/x?sig=1", "A\nB", "A\ud800"])
def test_a_status_is_fit_for_a_log(word):
    status = read(successFlag=word)["status"]
    assert "SIG=1" not in status
    assert status.isprintable()


FTP_LINK = "ftp://user:word@files.example/own/1.wav?sig=1"


@pytest.mark.parametrize("status", ["PENDING", "GENERATE_WAV_FAILED", "QUEUED", None])
def test_a_link_does_not_matter_before_there_is_a_file(status):
    assert read(successFlag=status, response={"audioWavUrl": FTP_LINK})["wav_url"] is None


BIG = 2**63 - 1


TIMES = each(
    ("2025-07-29T09:55:37+00:00", [1753782937, 1753782937000, "1753782937000", 1753782937.0]),
    ("2025-07-29T09:55:37.250000+00:00", [1753782937250]),
    ("1970-01-01T00:00:00+00:00", [0]),
    *(("5138-11-16T09:46:39+00:00", [10**11 - 1]), ("1973-03-03T09:46:40+00:00", [10**11])),
    *(("1966-10-31T14:13:20+00:00", [-(10**11)]), ("1969-12-31T23:59:59+00:00", [-1])),
    ("2025-01-01 00:00:00", [" 2025-01-01 00:00:00\n"]),
    (None, [253402300800000, 2**62, "", None, True, False, 1.5, []]),
)
#: KIE's name of a field and ours, what stands there, and what is read of it.
FIELDS = {
    ("musicIndex", "music_index"): each(
        *((0, [0, "0", "0" * 19]), (1, [1, " 1 ", 1.0]), (-1, [-1, "-1"]), (BIG, [BIG, str(BIG)]), (-BIG, [-BIG])),
        (None, [1.5, True, False, None, "", "one", "1.0", "+1", "1_0", "٣", []]),
        (None, [BIG + 1, -BIG - 1, "9" * 19, "0" * 20, 1e300]),
    ),
    ("musicId", "music_id"): each(
        *(("e231", ["e231", " e231\n"]), ("e", ["e\ud800"]), ("e 2", ["e\x002"]), (None, ["", " ", None, 5])),
    ),
    ("errorCode", "error_code"): each(
        (None, [None, 0, 200, 0.0, 200.0, "", "0", "200", " 0 ", False, True]),
        *((500, [500, "500", " 500 "]), (413, [413.0]), (1, [1, 1.0, "1"]), (-1, [-1]), (199, [199]), (201, [201])),
        *(("E1", ["E1"]), ("1.5", [1.5]), ("[]", [[]]), ("['a']", [["a"]])),
        ("at https://a.example/x?…", ["at https://a.example/x?sig=1"]),
    ),
    ("errorMessage", "error_message"): each(
        *(("odd", ["odd", " odd\n"]), (None, ["", " ", None, 5]), ("x" * 500 + "…", ["x" * 501])),
        ("at https://a.example/x?…", ["at https://a.example/x?sig=1"]),
    ),
    ("createTime", "create_time"): TIMES,
    ("completeTime", "complete_time"): TIMES,
}


@pytest.mark.parametrize(("names", "value", "expected"), [(n, *pair) for n, pairs in FIELDS.items() for pair in pairs])
def test_a_field_of_the_record(names, value, expected):
    sent, name = names
    found = read(**{sent: value})[name]
    assert found == expected
    assert type(found) is type(expected)


def test_a_number_beyond_all_bounds_is_no_index():
    job = reading().read(Response(200, b'{"code":200,"data":{"musicIndex":1e400}}'))
    assert as_conversion(job)["music_index"] is None


class TestRoutes:
    MARKET = row_of("jobs")

    def test_what_is_sent_to_the_market(self):
        call = convert_to_wav("music-1", "track-1", None, self.MARKET)
        assert (call.path, call.repeat) == ("/api/v1/jobs/createTask", Repeat.NEVER_TWICE)
        given = {"task_id": "music-1", "audio_id": "track-1"}
        assert call.json == {"model": "ai-music-api/convert-to-wav-format", "input": given}

    @pytest.mark.parametrize(
        ("state", "status", "url"),
        [("generating", "PENDING", None), ("fail", "GENERATE_WAV_FAILED", None), ("success", "SUCCESS", URL)],
    )
    def test_the_market_speaks_in_the_words_of_the_conversion(self, state, status, url):
        param = json.dumps({"input": json.dumps({"task_id": "music-1", "audio_id": "track-1"})})
        record = {"taskId": "wav-1", "state": state, "param": param, "resultJson": json.dumps({"resultUrls": [url]})}
        conversion = as_conversion(read_job(self.MARKET, "wav-1").read(answer(record)))
        assert (conversion["status"], conversion["wav_url"]) == (status, url)
        assert conversion["music_id"] == "track-1"

    def test_a_job_of_another_model_is_no_conversion(self):
        record = answer({"taskId": "wav-1", "state": "success", "model": "google/nano-banana"})
        error = refusal(read_job(self.MARKET, "wav-1"), record)
        assert isinstance(error, e.KieWrongTaskError)
        assert "'wav-1' is a job of another model: 'google/nano-banana'" in error.problem

    @pytest.mark.parametrize("route", ["market", "", None, 1])
    def test_a_route_that_does_not_exist(self, route):
        with pytest.raises(e.KieValidationError, match=f"route is {route!r}, but must be 'wav' or 'jobs'"):
            row_of(route)
        assert row_of("jobs") is self.MARKET
        assert row_of("wav") is WAV

    def test_a_task_may_leave_the_route_to_the_connection(self):
        assert [check_route(route) for route in (None, "wav", "jobs")] == [None, "wav", "jobs"]
        with pytest.raises(e.KieValidationError, match="route is 'market'"):
            check_route("market")

    def test_the_connection_knows_the_same_routes(self):
        assert tuple(WAV_ROUTES) == connection.WAV_ROUTES

    @pytest.mark.parametrize("given", ["wav-1", {"kie_task_id": "wav-1"}, {"kie_task_id": "wav-1", "family": "jobs"}])
    def test_an_id_is_taken_out_of_a_whole_job(self, given):
        assert id_in(given) == "wav-1"
        assert id_in({"family": "wav"}) == ""

    def test_a_job_of_another_family_has_no_such_id(self):
        with pytest.raises(e.KieValidationError, match="a job of family 'music'"):
            id_in({"kie_task_id": "m-1", "family": "music"})


def test_a_conversion_is_read_back_as_the_job_that_it_was():
    conversion = WavConversion(
        kie_task_id="wav-1",
        music_id="track-1",
        music_index=1,
        status="SUCCESS",
        wav_url=URL,
        create_time="2026-01-01",
        complete_time="2026-01-02",
        error_code=5,
        error_message="odd",
    )
    job = as_job(conversion)
    assert as_conversion(job) == conversion
    assert (job["family"], job["model"], job["progress"], job["credits"], job["tracks"]) == (
        "wav",
        None,
        None,
        None,
        [],
    )
    assert job["files"] == [{"url": URL, "name": "result", "index": 0}]
    assert as_job(conversion | {"wav_url": None})["files"] == []
