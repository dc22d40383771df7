"""Leases: one holder at a time, on a folder and on a real S3 server."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.errors import StoppedEarly
from pipeline.leases import is_held, take
from pipeline.storage import Store, Unavailable, open_store
from pipeline.storage.local import LocalStore
from pipeline.storage.manifest import parse_json

KEY = "evals/a.lease"


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return open_store(str(tmp_path) if request.param == "folder" else request.getfixturevalue("s3_url"))


def test_only_one_of_many_gets_it(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = [lease for lease in pool.map(lambda _: take(store, KEY, 60), range(8)) if lease]
    assert len(found) == 1
    assert is_held(store, KEY)
    with found[0]:
        assert take(store, KEY, 60) is None
    assert not store.exists(KEY)
    assert not is_held(store, KEY)


def test_a_lease_is_renewed_while_its_holder_lives(store: Store) -> None:
    lease = take(store, KEY, 12)
    assert lease is not None
    with lease:
        end = time.monotonic() + 60
        while parse_json(store.read(KEY), KEY)["renewed"] < 5:
            assert take(store, KEY, 12) is None
            assert time.monotonic() < end
            time.sleep(0.5)


def test_a_renewal_whose_answer_was_lost_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, lost = open_store(str(tmp_path)), []
    replace = LocalStore.replace

    def forgetful(self: LocalStore, key: str, data: bytes, version: str) -> str:
        found = replace(self, key, data, version)
        if not lost:
            lost.append(key)
            raise Unavailable("no answer")
        return found

    monkeypatch.setattr(LocalStore, "replace", forgetful)
    lease = take(store, KEY, 2)
    assert lease is not None
    with lease:
        end = time.monotonic() + 60
        while parse_json(store.read(KEY), KEY)["renewed"] < 6:
            assert time.monotonic() < end
            time.sleep(0.2)


def test_a_lease_that_lapsed_passes_to_one_of_many(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.leases._RENEWALS", 1e-6)  # a holder that died renews nothing
    assert take(store, KEY, 2) is not None
    assert take(store, KEY, 2) is None
    end = time.monotonic() + 30
    while is_held(store, KEY):
        assert time.monotonic() < end
        time.sleep(0.2)
    with ThreadPoolExecutor(8) as pool:
        found = [lease for lease in pool.map(lambda _: take(store, KEY, 60), range(8)) if lease]
    assert len(found) == 1


def test_the_old_holder_leaves_the_new_one_s_lease(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.leases._RENEWALS", 1e-6)
    old = take(store, KEY, 1)
    assert old is not None
    with old:
        time.sleep(2.5)
        new = take(store, KEY, 60)
        assert new is not None
    assert is_held(store, KEY)


def test_what_is_no_lease_is_held_by_nobody(store: Store) -> None:
    for data in (b"", b"[]", b'{"term": "x"}', b'{"term": null}'):
        store.write(KEY, data)
        time.sleep(1.1)  # S3 tells whole seconds
        assert not is_held(store, KEY)
        lease = take(store, KEY, 60)
        assert lease is not None
        with lease:
            assert is_held(store, KEY)


def test_a_stop_while_it_is_being_taken_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(tmp_path))

    def stopped(self: LocalStore, key: str) -> None:
        assert store.exists(KEY)
        raise StoppedEarly("a signal came")

    monkeypatch.setattr(LocalStore, "read_versioned", stopped)
    with pytest.raises(StoppedEarly):
        take(store, KEY, 60)
    assert not store.exists(KEY)
