"""Local folders and addresses, used alike."""

from __future__ import annotations

import pickle
from pathlib import Path

import fsspec
import pytest

from data_pipelines.location import (
    in_threads,
    is_local,
    listing,
    location,
    names_in,
    read_each,
    write_whole,
)
from data_pipelines.voc import Voc


@pytest.fixture
def memory():
    store = fsspec.filesystem("memory")
    store.store.clear()
    yield location("memory://bucket/home")
    store.store.clear()


@pytest.fixture(params=["disk", "memory"])
def home(request, tmp_path):
    return tmp_path / "home" if request.param == "disk" else request.getfixturevalue("memory")


def test_a_folder_is_a_plain_absolute_path():
    assert location("some/folder") == Path("some/folder").absolute()
    assert type(location("/a")) is type(Path())
    assert location("file:///a/b") == Path("/a/b")


def test_an_address_keeps_its_text_and_travels(memory):
    assert not is_local(memory)
    assert str(memory / "x" / "y.jpg") == "memory://bucket/home/x/y.jpg"
    assert pickle.loads(pickle.dumps(memory)) == memory


@pytest.mark.parametrize(
    "address",
    [
        "s3://AKIA:hidden@bucket/voc",
        "https://user:hidden@host/voc",
        "https://host/voc?X-Amz-Signature=hidden",
        "abfs://box@account/voc?sv=1&sig=hidden",
    ],
)
def test_credentials_in_an_address_are_refused_and_not_repeated(address):
    for refuse in (location, lambda text: Voc(root=text)):
        with pytest.raises(ValueError, match="must not hold credentials") as caught:
            refuse(address)
        assert "hidden" not in str(caught.value)


def test_an_unknown_protocol_is_told():
    with pytest.raises(ValueError, match="nowhere://x: Protocol not known"):
        location("nowhere://x")


def test_a_file_is_written_whole_and_listed_with_its_size(home):
    write_whole(home / "b" / "2.txt", b"two!")
    write_whole(home / "1.txt", b"one")
    first = listing(home)
    assert list(first) == ["1.txt", "b/2.txt"]
    assert [told.split()[0] for told in first.values()] == ["3", "4"]
    assert names_in(home / "b") == {"2.txt"}
    assert names_in(home / "absent") == frozenset()
    write_whole(home / "1.txt", b"six")
    second = listing(home)
    assert second["1.txt"] != first["1.txt"]
    assert second["b/2.txt"] == first["b/2.txt"]


def test_what_cannot_be_read_comes_as_its_error(home):
    write_whole(home / "1.txt", b"one")
    one, nothing, error = read_each([home / "1.txt", None, home / "2.txt"])
    assert (one, nothing) == (b"one", None)
    assert isinstance(error, FileNotFoundError)


def test_threads_keep_the_order_and_raise():
    assert list(in_threads(str, range(10_000))) == [str(n) for n in range(10_000)]
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda n: 1 // n, [1, 0]))
