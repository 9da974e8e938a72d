"""From flags to an exit code: bad input ends at once, in one line, before anything starts."""

from __future__ import annotations

import importlib
import importlib.util
import socket
import sys
from collections.abc import Callable
from typing import NoReturn

import pytest
import ray
import tyro

from sweeps.guidance_annotations import GuidanceAnnotations
from sweeps.guidance_lambda import GuidanceLambda
from sweeps.launch import Sweep, computation, launch
from tests.sweeps.launches import ROOT, Ended, Home
from trainables.lease import HeldError

QUESTIONS = [
    path.stem for path in sorted((ROOT / "sweeps").glob("*.py")) if "__main__" in path.read_text()
]


@pytest.fixture
def command(monkeypatch, capsys, tmp_path, sample_root) -> Callable[..., Ended]:
    """Run flags in this process, where neither Ray nor a launch may start."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("bad input must be found before anything starts")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(computation, "run_launch", refuse)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "ray"))
    places = {
        "--storage-path": str(tmp_path / "storage"),
        "--tracking-uri": f"sqlite:///{tmp_path / 'mlflow.db'}",
        "--data-root": str(sample_root),
    }

    def run(*flags: str, of: type[Sweep] = GuidanceLambda) -> Ended:
        defaults = [word for flag, value in places.items() if flag not in flags
                    for word in (flag, value)]  # fmt: skip
        monkeypatch.setattr(sys, "argv", [f"{of.question}.py", "--smoke", *defaults, *flags])
        with pytest.raises(SystemExit) as ended:
            launch(of)
        return Ended(int(str(ended.value.code)), *capsys.readouterr())

    return run


@pytest.fixture
def closed_port() -> int:
    """A port of loopback at which nothing listens."""
    with socket.socket() as socket_:
        socket_.bind(("127.0.0.1", 0))
        return int(socket_.getsockname()[1])


def assert_refused(ended: Ended, *words: str) -> None:
    """Exit code 2 and one clear line."""
    assert ended.code == 2, ended
    (line,) = ended.err.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--losses", "energi"], ["'energi'", "energy, l1, ppce, rrr_star"]),
        (["--layers", "finall"], ["'finall'", "input, mid1, mid2, mid3, final"]),
        (["--models", "resnet51"], ["'resnet51'", "resnet50", "small_resnet"]),
        (["--attribution", "gradcam"], ["'gradcam'", "grad_cam", "input_x_gradient"]),
        (["--dataset", "voc2012"], ["'voc2012'", "digit_scenes, voc, voc2007"]),
        (["--models", "vanila"], ["--models", "'vanila'", "vanilla, xdnn, bcos", "resnet50"]),
        (["--grid", "all"], ["--grid", "'all'", "demo, kinds, paper"]),
    ],
    ids=lambda value: value[0] if value[0].startswith("--") else "",
)
def test_an_unknown_name_is_answered_with_the_known_ones(command, flags, words):
    assert_refused(command(*flags), *words)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--lambda-loc", "0.1", "-0.5"], ["--lambda-loc", "-0.5", "not be negative"]),
        (["--lambda-loc", "nan"], ["lambda_loc", "nan", "finite"]),
        (["--lambda-loc"], ["--lambda-loc", "at least one"]),
        (["--losses"], ["--losses", "at least one"]),
        (["--layers"], ["--layers", "at least one"]),
        (["--seeds", "-1"], ["seed", "-1", "not be negative"]),
        (["--epochs", "-1"], ["epochs", "-1", "positive"]),
        (["--baseline-epochs", "-1"], ["epochs", "-1", "positive"]),
        (["--baseline-learning-rate", "-1e-4"], ["learning_rate", "-0.0001", "positive"]),
        (["--weights", "weights.pth"], ["--weights", "weights.pth", "MODEL=FILE"]),
        (["--weights", "vanila=x.pth"], ["--weights", "'vanila'", "vanilla, xdnn, bcos"]),
        (
            ["--weights", f"bcos={ROOT / 'README.md'}"],
            ["--weights", "small_bcos_resnet", "(small_resnet)"],
        ),
        (["--weights", "vanilla=no.pth"], ["--weights vanilla", "no.pth", "no such file"]),
        (["--weights", f"vanilla={ROOT / 'README.md'}"], ["README.md", "safetensors"]),
        (
            ["--split-file", "val.txt"],
            ["--split-file val.txt", "digit_scenes has splits of its own", "coco, coco2014"],
        ),
        (["--plugins", "nowhere.py"], ["--plugins", "nowhere.py", "no such file"]),
        (["--storage-path", "~/x"], ["~/x", "shell"]),
        (["--storage-path", "/dev/null/x"], ["--storage-path", "/dev/null/x", "cannot be made"]),
        (["--tracking-uri", "mlruns"], ["mlruns", "sqlite:///FILE", "http"]),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("--") else "",
)
def test_a_value_that_cannot_be_is_answered_with_what_is_allowed(command, flags, words):
    assert_refused(command(*flags), *words)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--grid", "kinds"], ["--grid", "'kinds'", "demo, paper"]),
        (["--models", "resnet51"], ["--models", "'resnet51'", "vanilla, xdnn, bcos"]),
        (["--fractions", "0"], ["--fractions 0", "above 0"]),
        (["--fractions", "0.1", "1.5"], ["--fractions 1.5", "not above 1"]),
        (["--fractions", "0.01"], ["--fractions 0.01", "96 training images none"]),
        (["--fractions", "nan"], ["--fractions nan", "above 0"]),
        (["--dilations", "-0.1"], ["--dilations -0.1", "0 or more"]),
        (["--dilations", "inf"], ["--dilations inf", "0 or more"]),
        (["--fractions", "--dilations"], ["--fractions", "--dilations", "at least one"]),
        (["--losses", "energi"], ["'energi'", "energy, l1"]),
        (["--layers"], ["--layers", "at least one"]),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("--") else "",
)
def test_the_sweep_over_annotations_refuses_what_cannot_be(command, flags, words):
    assert_refused(command(*flags, of=GuidanceAnnotations), *words)


def test_published_data_need_a_root(command):
    ended = command("--dataset", "voc2007", "--data-root", "")
    assert_refused(ended, "--data-root", "VOCdevkit/VOC2007")


def test_a_root_without_the_layout_is_answered_with_the_layout(command, tmp_path):
    ended = command("--dataset", "voc2007", "--data-root", str(tmp_path))
    layout = "VOCdevkit/VOC2007/{Annotations,ImageSets/Main,JPEGImages}"
    assert_refused(ended, str(tmp_path), "missing", layout)


def test_a_list_that_was_cut_off_is_named(command, sample_copy):
    path = next(sample_copy.rglob("ImageSets/Main/train.txt"))
    path.write_text("\n".join(path.read_text().splitlines()[:5]) + "\n")
    assert_refused(command("--data-root", str(sample_copy)), str(path), "5 images")


def test_too_many_broken_images_stop_the_sweep_and_the_first_is_named(command, sample_copy):
    broken = sorted(sample_copy.rglob("Annotations/*.xml"))[:10]
    for path in broken:
        path.write_text("<annotation>")
    assert_refused(command("--data-root", str(sample_copy)), broken[0].stem, "10 of")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--max-concurrent", "99"], ["99 trial(s) x 1 CPU = 99 CPU", "there are "]),
        (["--gpus-per-trial", "8"], ["1 trial(s) x 8 workers x 1", "there are "]),
        (["--gpus-per-trial", "0.3"], ["0.3", "1/k"]),
        (["--gpus-per-trial", "-1"], ["-1", "1/k"]),
        (["--max-concurrent", "-1"], ["-1", "0 (as many as fit)"]),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("--") else "",
)
def test_a_grid_that_cannot_be_scheduled_is_answered_with_the_arithmetic(command, flags, words):
    assert_refused(command(*flags), *words)


@pytest.mark.timeout(30)
def test_a_dead_ray_address_is_noticed_at_once(command, closed_port):
    address = f"127.0.0.1:{closed_port}"
    assert_refused(command("--address", address), f"no Ray cluster answers at {address}")


@pytest.mark.timeout(30)
def test_an_address_without_a_port_is_refused(command):
    assert_refused(command("--address", "localhost"), "localhost", "HOST:PORT")


def test_auto_without_a_cluster_says_how_to_start_one(command):
    assert_refused(command("--address", "auto"), "--address auto", "ray start --head")


@pytest.mark.timeout(30)
def test_auto_beside_the_address_file_of_a_dead_cluster_is_noticed_at_once(
    command, closed_port, tmp_path
):
    (tmp_path / "ray" / "ray").mkdir(parents=True)
    (tmp_path / "ray" / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{closed_port}")
    assert_refused(
        command("--address", "auto"), f"no Ray cluster answers at 127.0.0.1:{closed_port}"
    )


@pytest.mark.timeout(30)
def test_a_dead_mlflow_server_is_noticed_at_once(command, closed_port):
    address = f"http://127.0.0.1:{closed_port}"
    assert_refused(command("--tracking-uri", address), f"no MLflow at {address}")


def test_a_password_is_not_shown(command, closed_port):
    ended = command("--tracking-uri", f"http://me:secret@127.0.0.1:{closed_port}")
    assert "secret" not in ended.out + ended.err


def test_a_file_that_is_no_store_is_refused(command, tmp_path):
    (tmp_path / "notes.txt").write_text("no database, though long enough to look like one" * 10)
    ended = command("--tracking-uri", f"sqlite:///{tmp_path / 'notes.txt'}")
    assert_refused(ended, "notes.txt", "--tracking-uri")


def test_a_second_live_launch_is_bad_input(command, monkeypatch):
    def held(*_: object) -> NoReturn:
        raise HeldError("another launch of this sweep is alive")

    monkeypatch.setattr(computation, "run_launch", held)
    assert_refused(command(), "another launch of this sweep is alive")


def test_an_error_of_ours_ends_in_its_own_code_with_the_trace(command, monkeypatch):
    def broken(*_: object) -> NoReturn:
        raise KeyError("a bug")

    monkeypatch.setattr(computation, "run_launch", broken)
    ended = command()
    assert ended.code == 3
    assert "Traceback" in ended.err
    assert "a bug" in ended.err


def test_ctrl_c_before_anything_ran_ends_in_its_own_code(command, monkeypatch):
    def interrupted(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(computation, "run_launch", interrupted)
    assert command().code == 130


def test_a_dry_run_lists_results_and_costs_and_starts_nothing(command, tmp_path):
    ended = command("--dry-run", "--losses", "energy", "--layers", "final")
    assert (ended.code, ended.err) == (0, "")
    assert "5 results" in ended.out
    for label in ("baseline small_resnet", "control small_resnet", "energy 0.005", "maps of"):
        assert label in ended.out
    assert "forwards of one image" in ended.out
    assert not (tmp_path / "mlflow.db").exists()
    assert [path.name for path in (tmp_path / "storage").iterdir()] == ["index"]


def test_lambda_zero_means_the_control_that_is_always_there(command):
    flags = ("--dry-run", "--losses", "energy", "--layers", "final", "--lambda-loc")
    without, with_zero = command(*flags, "0.1"), command(*flags, "0", "0.1")
    assert without.out == with_zero.out
    assert "4 results" in command(*flags, "0").out


def test_the_factor_of_every_lambda_is_told(command):
    ended = command("--dry-run", "--losses", "l1", "rrr_star")
    assert "lambda of l1: the paper's x 4 (64/16 images)" in ended.out
    assert "lambda of rrr_star: the paper's x 49 (64/16 images x (224/64)^2 pixels)" in ended.out


def test_a_smoke_run_keeps_what_flags_ask_for(command):
    asked = GuidanceLambda(smoke=True, lambda_loc=(0.1, 0.2), epochs=3, baseline_epochs=2).small()
    assert (asked.lambda_loc, asked.epochs, asked.baseline_epochs) == ((0.1, 0.2), 3, 2)


@pytest.mark.parametrize("name", QUESTIONS)
def test_every_question_explains_its_flags(name, capsys):
    module = importlib.import_module(f"sweeps.{name}")
    (sweep,) = (
        c
        for c in vars(module).values()
        if isinstance(c, type) and issubclass(c, Sweep) and c.__module__ == module.__name__
    )
    assert sweep.question == name
    with pytest.raises(SystemExit) as ended:
        tyro.cli(sweep, args=["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for flag in ("--address", "--tracking-uri", "--data-root", "--seeds", "--dry-run", "--smoke"):
        assert flag in text


@pytest.mark.parametrize("name", QUESTIONS)
def test_no_question_bears_the_name_of_an_installed_module(name):
    """Ray puts the script's folder on the path of the workers, where it would hide the module."""
    assert importlib.util.find_spec(name) is None


def test_the_script_runs_from_any_folder_and_refuses_in_one_line(tmp_path, sample_root):
    """A process of its own, so that what is imported before the flags are checked counts too."""
    ended = Home(tmp_path, sample_root).run("--losses", "energi")
    assert_refused(ended, "'energi'")
    assert list(tmp_path.iterdir()) == []
