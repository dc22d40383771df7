"""Lists of videos anywhere, over real HTTP and S3 servers; a signature never gets out of the list."""

import io
import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from corpora import put, put_csv
from drawn_videos import counting_frames, write_video
from video_server import SIGNATURE, Server, serving

from pipeline.config.schema import CorpusConfig
from pipeline.errors import MarlinError, UsageError
from pipeline.storage import open_store
from preprocess.corpora import Listing, Source, list_corpus, open_media, web
from preprocess.quarantine import BadSource


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "v.mp4", counting_frames(60))


@pytest.fixture
def server(video: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(web, "PAUSES", (0.0, 0.0, 0.0))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving(video.read_bytes()) as server:
        yield server


def listed(path: Path | str, **keys: Any) -> Listing:
    return list_corpus(CorpusConfig(kind="list", path=str(path), **keys))


def put_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pa.parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


ROWS: list[dict[str, Any]] = [
    {
        "path": "a.mp4",
        "id": "one",
        "identity": "Ann",
        "split": "train",
        "text": "hi",
        "age": 31,
        "mood": "glad",
        "f": 1,
    },
    {"path": "b/c.mp4", "id": "two", "identity": "Bo", "split": "dev", "text": "", "age": 4.5, "mood": "sad", "f": 0},
    {"path": "/x/d.mp4", "id": "three", "identity": "", "split": "", "text": "", "age": None, "mood": "glad", "f": 1},
]


@pytest.mark.parametrize(("put_table", "suffix"), [(put_csv, ".csv"), (put_parquet, ".parquet")])
def test_columns_become_labels(put_table: Any, suffix: str, tmp_path: Path) -> None:
    listing = listed(put_table(tmp_path / f"list{suffix}", ROWS))
    one, two = listing.sources
    assert (one.name, one.identity, one.split, one.text, one.path) == ("one", "Ann", "train", "hi", "a.mp4")
    assert (two.name, two.split, two.labels) == ("two", "val", {"age": 4.5, "mood": "sad", "f": "0"})
    assert listing.labels == {
        "age": {"type": "real", "range": [4.5, 31.0]},
        "mood": {"type": "class", "names": ["glad", "sad"]},
        "f": {"type": "class", "names": ["0", "1"]},
    }
    assert listing.findings == ("list: 1 of 3 videos is in no split list and left out, as three",)
    json.dumps([source.labels for source in listing.sources])


def test_names_identities_and_times(tmp_path: Path) -> None:
    rows = [{"video": "a.mp4", "start": 1, "end": 2.5}, {"video": "a.mp4", "start": 2.5, "end": 4}]
    first, second = listed(put_csv(tmp_path / "l.csv", rows)).sources
    assert (first.name, first.span, first.identity) == ("a.mp4#1-2.5", (1.0, 2.5), "a.mp4#1-2.5")
    assert (second.name, second.span, second.split) == ("a.mp4#2.5-4", (2.5, 4.0), None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,age\nx,1\n", r"should have one column url or path or video, it has id, age"),
        ("url,path\nx,y\n", "should have one column url or path or video"),
        ("path\n", r"list\.csv in .* has no rows"),
        ("", r"corpus\.path: list\.csv in .* is empty: write it again"),
        ("path\na\0.mp4\n", "is not UTF-8 text but binary"),
        ("path,a\nx.mp4,1,2\n", "line 2 has more cells"),
        ("path,a,a\nx.mp4,1,2\n", "two columns of the same name"),
        ("path\nx.mp4\nx.mp4\n", r"row 3: x\.mp4 is there twice"),
        ("path,id\nx.mp4,1\n,2\n", "row 3 has no path"),
        ("path,start,end\nx.mp4,3,2\n", r"x\.mp4#3-2 needs a start and a later end"),
        ("path,start,end\nx.mp4,3,\n", "needs a start and a later end"),
        ("path,split\nx.mp4,training\n", r"x\.mp4 is of split training"),
    ],
)
def test_lists_that_do_not_fit_are_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        listed(put(tmp_path / "list.csv", text))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", r"corpus\.path: set it"),
        ("/nowhere/list.csv", "is not a folder"),
        ("here/gone.csv", "there is no gone.csv"),
        ("here/list.txt", "is no table"),
        ("here/list.parquet", r"is no Parquet file \(Parquet magic bytes not found"),
        ("here", r"corpus\.path: .* is a folder, a file is needed: name another"),
        ("here/list.txt/list.csv", r"corpus\.path: .*list\.txt is a file: name the folder"),
        (f"https://host/list.csv?{SIGNATURE}", "download it first"),
    ],
)
def test_a_list_that_is_none_is_named(path: str, message: str, tmp_path: Path) -> None:
    put(tmp_path / "list.txt", "x")
    put(tmp_path / "list.parquet", "no table " * 9)
    with pytest.raises(UsageError, match=message):
        listed(path.replace("here", str(tmp_path)))


def test_videos_are_opened_wherever_they_lie(tmp_path: Path, video: Path, server: Server, s3_url: str) -> None:
    put(tmp_path / "lists/near.mp4", video)
    open_store(s3_url).write_file("far/v.mp4", video)
    for number in (1, 2):
        put(tmp_path / f"lists/frames/{number}.jpg", b"x")
    rows = [
        {"path": "near.mp4"},
        {"path": str(video)},
        {"path": f"file://{video}"},
        {"path": f"{s3_url}/far/v.mp4"},
        {"path": f"{server.url}/v.mp4"},
        {"path": "frames/"},
    ]
    path = put_csv(tmp_path / "lists/list.csv", rows)
    media = open_media("list", str(path))
    for source in listed(path).sources:
        with media.open(source) as file:
            if source.name == "frames/":
                assert len(list(file.iterdir())) == 2
            else:
                assert file.read_bytes() == video.read_bytes()
                assert media.probe(source).seconds == pytest.approx(2.0)
    store = open_store(s3_url)
    store.write_file("list.csv", path)
    store.write_file("near.mp4", video)
    media = open_media("list", open_media("list", f"{s3_url}/list.csv").url)
    with media.open(Source("near.mp4", "", "near.mp4")) as file:
        assert file.read_bytes() == video.read_bytes()


def test_a_signature_stays_in_the_list(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture, video: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    rows = [
        {"url": f"{server.url.replace('//', '//user:pass@')}/signed/{name}?{SIGNATURE}&n={name}", "mood": "glad"}
        for name in ("good.mp4", "missing.mp4", "expired.mp4")
    ]
    rows[0]["thumb"] = f"{server.url}/t.jpg?{SIGNATURE}"
    path = put_csv(tmp_path / "list.csv", rows)
    listing = listed(path)
    assert "thumb" not in listing.labels
    expired, good, missing = listing.sources
    assert good.name == f"{server.url}/signed/good.mp4"
    media = open_media("list", str(path))
    with media.open(good) as file:
        assert file.read_bytes() == video.read_bytes()
    with pytest.raises(BadSource, match="HTTP 404") as gone, media.open(missing):
        pass
    with pytest.raises(MarlinError, match="has expired: renew") as late, media.open(expired):
        pass
    told = f"{listing} {gone.value} {late.value} {media.url}"
    for secret in ("s3cr3t", "user:pass"):
        assert secret not in told
        ours = [record for record in caplog.records if not record.name.startswith("urllib3")]
        assert secret not in "\n".join(record.getMessage() for record in ours)


def test_rows_whose_addresses_differ_in_the_query_only_need_names(tmp_path: Path) -> None:
    rows = [{"url": f"https://host/get?file={number}"} for number in (1, 2)]
    with pytest.raises(UsageError, match=r"https://host/get is there twice: give each row its own in a column id"):
        listed(put_csv(tmp_path / "list.csv", rows))
    named = listed(put_csv(tmp_path / "list.csv", [{**row, "id": str(n)} for n, row in enumerate(rows)]))
    assert [source.name for source in named.sources] == ["0", "1"]


@pytest.mark.parametrize("name", ["busy.mp4", "short.mp4"])
def test_failures_that_pass_are_tried_again(name: str, tmp_path: Path, server: Server, video: Path) -> None:
    path = put_csv(tmp_path / "list.csv", [{"url": f"{server.url}/{name}"}])
    media = open_media("list", str(path))
    (source,) = listed(path).sources
    with media.open(source) as file:
        assert file.read_bytes() == video.read_bytes()


def test_a_server_without_ranges_is_not_read_whole_for_a_length(tmp_path: Path, server: Server) -> None:
    path = put_csv(tmp_path / "list.csv", [{"url": f"{server.url}/whole.mp4"}, {"url": f"{server.url}/v.mp4"}])
    media = open_media("list", str(path))
    ranged, whole = listed(path).sources
    assert media.probe(whole).seconds == 0
    assert media.probe(ranged).seconds == pytest.approx(2.0)


def test_a_dead_host_is_a_bad_source_but_no_network_is_not(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{free.getsockname()[1]}"
    rows = [
        {"url": f"{dead}/v.mp4?{SIGNATURE}", "id": "dead"},
        {"url": f"http://far.test/v.mp4?{SIGNATURE}", "id": "far"},
    ]
    media = open_media("list", str(put_csv(tmp_path / "list.csv", rows)))
    with (
        pytest.raises(BadSource, match="can't be fetched: ConnectionError") as found,
        media.open(Source("dead", "", "")),
    ):
        pass
    assert "s3cr3t" not in str(found.value)

    def no_names(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", no_names)
    failure = r"no network on the way to http://far\.test/v\.mp4: "
    with pytest.raises(MarlinError, match=failure) as found_far, media.open(Source("far", "", "")):
        pass
    assert "s3cr3t" not in str(found_far.value)


def test_a_server_without_end_does_not_fill_the_disk(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "LARGEST", 100)
    media = open_media("list", str(put_csv(tmp_path / "list.csv", [{"url": f"{server.url}/v.mp4"}])))
    with pytest.raises(BadSource, match="sends more than"), media.open(Source(f"{server.url}/v.mp4", "", "")):
        pass


def test_a_row_that_is_gone_is_a_bad_source(tmp_path: Path) -> None:
    media = open_media("list", str(put_csv(tmp_path / "list.csv", [{"path": "a.mp4"}, {"path": "ftp://b/c.mp4"}])))
    with pytest.raises(BadSource, match="no row of"):
        media.open(Source("b.mp4", "", ""))
    with pytest.raises(BadSource, match="begins with ftp"):
        media.open(Source("ftp://b/c.mp4", "", ""))
    with pytest.raises(BadSource, match="gone"), media.open(Source("a.mp4", "", "")):
        pass


def test_what_pandas_writes_is_read(tmp_path: Path) -> None:
    rows = [{"": 0, "path": "a.mp4", "age": 3}, {"": 1, "path": "b.mp4", "age": 5}]
    listing = listed(put_csv(tmp_path / "l.csv", rows))
    assert listing.labels == {"age": {"type": "real", "range": [3.0, 5.0]}}
    assert listing.findings == (
        "list: 1 column is no label: it has no name, too many texts, or URLs, as the one without a name",
    )
    table = [{"path": "a.mp4", "id": 7.0, "identity": 3.0}, {"path": "b.mp4", "id": None, "identity": None}]
    listing = listed(put_parquet(tmp_path / "l.parquet", table))
    assert [(source.name, source.identity) for source in listing.sources] == [("7", "3"), ("b.mp4", "b.mp4")]


def test_rows_are_counted_as_the_table_has_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"l\.json, row 2 has no path"):
        listed(put(tmp_path / "l.json", '[{"path": "a.mp4"}, {"path": ""}]'))


def test_integers_of_a_parquet_table_stay_whole(tmp_path: Path) -> None:
    rows = [
        {"path": "a.mp4", "id": 7, "who": np.int64(3).item(), "flag": True},
        {"path": "b.mp4", "id": 8, "who": 5, "flag": False},
    ]
    buffer = io.BytesIO()
    pa.parquet.write_table(pa.Table.from_pylist(rows), buffer)
    listing = listed(put(tmp_path / "l.parquet", buffer.getvalue()))
    assert [source.name for source in listing.sources] == ["7", "8"]
    assert listing.labels["flag"] == {"type": "class", "names": ["0", "1"]}
    assert listing.sources[0].labels == {"who": 3.0, "flag": "1"}


@pytest.mark.parametrize("url", ["http://[abc/v.mp4", "http://user:s3cr3t@\u2100.com/v.mp4?token=s3cr3t"])
def test_an_address_that_is_no_url_is_a_bad_source(tmp_path: Path, url: str) -> None:
    path = put_csv(tmp_path / "list.csv", [{"url": url}])
    [source] = listed(path).sources
    media = open_media("list", str(path))
    with pytest.raises(BadSource) as late, media.open(source):
        pass
    with pytest.raises(BadSource):
        media.probe(source)
    assert "s3cr3t" not in f"{source} {late.value}"
