"""The probe answers at once, creates nothing, and says what to do."""

from __future__ import annotations

import socket
import sqlite3
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from analysis.address import Unavailable, default_tracking_uri, probe, redacted


class Answer(BaseHTTPRequestHandler):
    """Answers /health with 200 and anything else with 503."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200 if self.path == "/health" else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    """The address of an HTTP server."""
    with HTTPServer(("127.0.0.1", 0), Answer) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()
        thread.join()


@pytest.fixture
def listener() -> Iterator[int]:
    """A port that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield found.getsockname()[1]


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def test_missing_sqlite_file_is_named_and_not_created(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with pytest.raises(Unavailable, match=f"{path}.*--tracking-uri"):
        probe(f"sqlite:///{path}")
    assert not path.exists()


def test_sqlite_file_without_mlflow_tables_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE something (x)")
    with pytest.raises(Unavailable, match="without MLflow's tables"):
        probe(f"sqlite:///{path}")


def test_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no database at all, but long enough to have a header\n" * 40)
    with pytest.raises(Unavailable, match="cannot be read"):
        probe(f"sqlite:///{path}")


def test_server_that_answers_passes(server: str) -> None:
    probe(server)


def test_server_is_asked_without_the_password(server: str) -> None:
    probe(server.replace("://", "://me:secret@"))


def test_server_that_answers_with_an_error_is_refused(server: str) -> None:
    with pytest.raises(Unavailable, match="503"):
        probe(f"{server}/elsewhere")


def test_closed_port_is_refused() -> None:
    with pytest.raises(Unavailable, match="start the server"):
        probe(f"http://127.0.0.1:{closed_port()}")


def test_server_that_never_answers_is_given_up(listener: int) -> None:
    with pytest.raises(Unavailable, match="timed out"):
        probe(f"http://127.0.0.1:{listener}", timeout_s=0.1)


def test_database_is_probed_at_its_port(listener: int) -> None:
    probe(f"postgresql+psycopg2://user:secret@127.0.0.1:{listener}/mlflow")
    with pytest.raises(Unavailable) as error:
        probe(f"postgresql://user:secret@127.0.0.1:{closed_port()}/mlflow")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "uri", ["ftp://host", "mlruns", "", "http://host:port", "http://[", "postgresql://host:port/x"]
)
def test_addresses_that_cannot_be_are_refused(uri: str) -> None:
    with pytest.raises(Unavailable, match="--tracking-uri"):
        probe(uri, timeout_s=0.1)


def test_password_is_taken_out_and_the_rest_kept() -> None:
    assert redacted("postgresql://me:secret@host:5432/db") == "postgresql://me:***@host:5432/db"
    assert redacted("http://:secret@host") == "http://:***@host"
    assert redacted("sqlite:////data/mlflow.db") == "sqlite:////data/mlflow.db"


def test_default_store_is_absolute_unless_the_environment_names_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert default_tracking_uri().startswith("sqlite:////")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host")
    assert default_tracking_uri() == "http://host"
