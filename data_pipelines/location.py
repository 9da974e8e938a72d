"""A location: a local folder, or an address such as ``s3://bucket/voc``, used alike."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, cast

import pyarrow as pa
import pyarrow.parquet as pq

THREADS = 16
"""Files that are read at once where waiting, not computing, takes the time."""
WINDOW = 4096
"""Items that a pool of threads is given at once."""
CREDENTIALS = re.compile(r"://[^@]*:[^@]*@|[?&][^=/]*(key|secret|sig|token|password)[^=/]*=", re.I)
"""A name with a password before the host, or a signed query."""

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def location(text: str) -> Path:
    """The place that a flag names.

    Returns:
        An absolute Path for a local folder. For an address a universal-pathlib UPath, of which only
        what both have is used (``/ name relative_to exists is_dir iterdir glob stat open
        read_bytes read_text``), hence the annotation.

    Raises:
        ValueError: the address holds credentials, or nothing here speaks its protocol.
    """
    if "://" not in text:
        return Path(text).absolute()
    refuse_credentials(text)
    import fsspec  # here and below: a local folder needs neither
    from upath import UPath

    protocol, _, rest = text.partition("://")
    if protocol in ("file", "local"):
        return Path(rest).absolute()
    try:
        fsspec.get_filesystem_class(protocol)
    except (ValueError, ImportError) as error:
        raise ValueError(
            f"{text}: {error}; s3:// needs the extra [s3], other protocols their fsspec package"
        ) from None
    return cast(Path, UPath(text.rstrip("/")))


def refuse_credentials(text: str) -> None:
    """Refuse credentials in an address: it ends up in logs and shell histories.

    Raises:
        ValueError: shows the address without them.
    """
    if "://" in text and CREDENTIALS.search(text):
        shown = re.sub(r"://.*@", "://***@", text.partition("?")[0])
        raise ValueError(
            f"{shown}: an address must not hold credentials; give them in the environment, as "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_ENDPOINT_URL)"
        )


def reachable(flag: str, place: str) -> Path:
    """The place that a flag names, asked for a sign of life.

    Raises:
        ValueError: it cannot be asked; says why.
    """
    path = location(place)
    try:
        path.exists()
    except Exception as error:  # each protocol has errors of its own
        first = (str(error).splitlines() or [""])[0]
        raise ValueError(f"{flag} {place}: {type(error).__name__}: {first}") from error
    return path


def is_local(path: Path) -> bool:
    """Whether it lies on a file system of this machine."""
    return isinstance(path, Path)


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A Parquet file."""
    if is_local(path):
        return pq.read_table(path, columns=columns)
    return pq.read_table(io.BytesIO(path.read_bytes()), columns=columns)


def parquet_file(path: Path) -> pq.ParquetFile:
    """A Parquet file opened for reading in parts; from a store only these parts are fetched."""
    if is_local(path):
        return pq.ParquetFile(path)
    remote = cast(Any, path)
    return pq.ParquetFile(remote.fs.open(remote.path, "rb", cache_type="none"), pre_buffer=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that nobody ever sees in part; its folder is made.

    On disk it gets a temporary name and is renamed; an object store shows an object when its
    upload is complete.
    """
    if is_local(path):
        with renamed(path) as unfinished:
            unfinished.write_bytes(content)
    else:
        remote = cast(Any, path)
        remote.fs.pipe_file(remote.path, content)


def write_table(path: Path, table: pa.Table, **options: Any) -> None:
    """Write a Parquet file, whole; options as ``pyarrow.parquet.write_table``."""
    if is_local(path):
        with renamed(path) as unfinished:
            pq.write_table(table, unfinished, **options)
    else:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, **options)
        write_whole(path, sink.getvalue().to_pybytes())


@contextmanager
def renamed(path: Path) -> Iterator[Path]:
    """A temporary name beside the path, which is given to the file in the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    yield unfinished
    os.replace(unfinished, path)


def read_each(paths: Sequence[Path | None]) -> list[bytes | OSError | None]:
    """Each file's bytes, or why it cannot be read; None for None. From a store many at once."""
    if all(path is None or is_local(path) for path in paths):
        return [read_or_reason(path) for path in paths]
    return list(in_threads(read_or_reason, paths))


def read_or_reason(path: Path | None) -> bytes | OSError | None:
    """The file's bytes, or the error that its reading raises."""
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        return error


def reason(error: object, path: Path | None) -> str:
    """Why a file could not be read, for people."""
    return f"{getattr(error, 'strerror', None) or error}: {path}"


def in_threads(work: Callable[[ItemT], ResultT], items: Iterable[ItemT]) -> Iterator[ResultT]:
    """What the function makes of each item, in their order, THREADS at a time."""
    waiting = iter(items)
    with ThreadPoolExecutor(THREADS) as pool:
        while window := list(islice(waiting, WINDOW)):
            yield from pool.map(work, window)


def names_in(folder: Path) -> frozenset[str]:
    """Names of what a folder holds; empty where there is none."""
    try:
        return frozenset(path.name for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()


def listing(folder: Path) -> dict[str, str]:
    """Size and version of every file below a folder, by its relative name, sorted.

    The version is the modification time, or what an object store has for it. No file is opened.
    """
    files: dict[str, str] = {}
    if is_local(folder):
        folders = [str(folder)]
        while folders:
            deeper: list[str] = []
            for below, found in in_threads(scanned, folders):
                deeper += below
                files.update((os.path.relpath(path, folder), told) for path, told in found)
            folders = deeper
    else:
        remote = cast(Any, folder)
        remote.fs.invalidate_cache()
        for name, status in remote.fs.find(remote.path, detail=True).items():
            version = next((status[k] for k in ("ETag", "mtime", "created") if k in status), "")
            files[name.removeprefix(remote.path).lstrip("/")] = f"{status['size']} {version}"
    return dict(sorted(files.items()))


def scanned(folder: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Folders in a folder, and its files with size in bytes and modification time in ns."""
    folders, files = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                folders += [] if entry.is_symlink() else [entry.path]
            else:
                status = entry.stat()
                files.append((entry.path, f"{status.st_size} {status.st_mtime_ns}"))
    return folders, files
