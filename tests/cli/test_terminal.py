"""What reaches a terminal: no escapes of strangers, any character set, and pipes that close."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from rlaif.cli.common.output import echo, printable, wrap_lines
from rlaif.cli.main import cli, main
from rlaif.errors import RlaifError


@pytest.mark.parametrize(
    "text",
    [
        "\x1b[2J",
        "\x1b]0;title\x07",
        "\x1b]8;;http://x\x1b\\",
        "\x9b31m",
        "\x00",
        "\x08",
        "\u202e",
        "\x1b",
    ],
)
def test_escapes_do_not_reach_the_terminal(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    echo(f"a{text}b")
    shown = capsys.readouterr().out
    assert not any(ord(c) < 32 and c != "\n" for c in shown)
    assert "\u202e" not in shown
    assert shown.startswith("a")
    assert shown.rstrip("\n").endswith("b")
    assert printable("plain\ttext\nä漢🙂") == "plain\ttext\nä漢🙂"


def test_only_one_place_prints() -> None:
    root = Path(__file__).parents[2] / "rlaif"
    for path in root.rglob("*.py"):
        text = path.read_text(encoding="utf-8").replace("click.echo(error.ctx.get_help()", "")
        if path.name != "output.py":
            assert "click.echo(" not in text, path
            assert "\n    print(" not in text, path


def test_data_that_steers_a_terminal_is_harmless(tmp_path: Path) -> None:
    data = tmp_path / "d.jsonl"
    data.write_text('{"prompt": "Q\\u001b[2J", "response_a": "A", "response_b": "B\\u009b1m"}\n')
    done = CliRunner().invoke(cli, ["inspect", str(data)])
    assert "\x1b" not in done.output
    assert "\x9b" not in done.output


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_any_character_set_will_do(encoding: str) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from rlaif.cli.common.output import echo\n"
            "import sys; sys.argv = ['rlaif', 'constitution', 'show', 'demo']\n"
            "import rlaif.cli.main as m\n"
            "import rlaif.cli.constitution as c\n"
            "m.cli.main = lambda **_: echo('\\u251c\\u2500 \\u6f22')\n"
            "m.main()",
        ],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 0, done.stderr
    assert b"\\u6f22" in done.stdout


def test_a_pipe_that_closes_is_no_error() -> None:
    rlaif = f"{sys.executable} -m rlaif"
    for command in (
        f"{rlaif} constitution show helpful-honest-harmless",
        f"{rlaif} constitution show helpful-honest-harmless",
        f"{rlaif} label --help",
    ):
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {command} | head -1"], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""


def test_numbers_of_yaml_1_1_are_refused(tmp_path: Path) -> None:
    data = tmp_path / "d.jsonl"
    data.write_text('{"prompt": "Q", "response_a": "A", "response_b": "B"}\n')
    for value in ("1:30", "010", "1_000"):
        config = tmp_path / "c.yaml"
        config.write_text(f"seed: {value}\n")
        done = CliRunner().invoke(
            cli,
            ["label", str(data), "-c", "demo", "-o", str(tmp_path / "o"), "--config", str(config)],
        )
        assert isinstance(done.exception, RlaifError)
        assert f"c.yaml:1:7: '{value}' is another number in YAML 1.1" in str(done.exception)


@pytest.mark.slow
def test_a_model_s_own_code_is_not_run(tmp_path: Path) -> None:
    """Its `auto_map` names a module in its folder, which says that it was run."""
    import json
    import shutil

    from rlaif.util.resources import demo_model

    folder = tmp_path / "judge"
    shutil.copytree(demo_model("judge"), folder)
    (folder / "own.py").write_text("open('was_run', 'w').write('')\nclass Own: pass\n")
    for name in ("config.json", "tokenizer_config.json"):
        held = json.loads((folder / name).read_text())
        kinds = ("AutoConfig", "AutoTokenizer", "AutoModelForCausalLM")
        held["auto_map"] = dict.fromkeys(kinds, "own.Own")
        (folder / name).write_text(json.dumps(held))
    data = tmp_path / "d.jsonl"
    data.write_text('{"prompt": "Q", "response_a": "A one", "response_b": "B two"}\n' * 2)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "rlaif",
            "label",
            str(data),
            "-c",
            "demo",
            "--judge",
            str(folder),
            "--template",
            "demo",
            "--engine",
            "packed",
            "-o",
            str(tmp_path / "o"),
        ],
        input="y\ny\ny\n",
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert not list(tmp_path.rglob("was_run"))
    assert "Do you wish to run the custom code" not in done.stdout + done.stderr


def on_a_terminal(arguments: list[str], columns: int, cwd: Path) -> str:
    """What a command prints where its output is a terminal of so many columns."""
    import fcntl
    import pty
    import struct
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-m", "rlaif", *arguments]
    with subprocess.Popen(
        command, stdout=slave, stderr=subprocess.PIPE, stdin=slave, cwd=cwd, env=env
    ) as process:
        os.close(slave)
        found = b""
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:  # the other side closed
                break
            if not part:
                break
            found += part
        code = process.wait()
        assert process.stderr is not None
        assert code <= 1, process.stderr.read()  # 1: a difference was found
    os.close(master)
    return found.decode().replace("\r\n", "\n")


@pytest.mark.slow
def test_results_fit_the_width_of_the_terminal(tmp_path: Path) -> None:
    long = "many words that go on and on and on without an end " * 4
    rows = [
        {"prompt": f"{i} {long}", "response_a": f"a {long}", "response_b": f"b {long} {i}"}
        for i in range(12)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    label = ["label", "pairs.jsonl", "-c", "demo", "--engine", "scripted", "-o", "run"]
    for arguments in (
        ["inspect", "pairs.jsonl"],
        label,
        ["lineage", "run"],
        ["constitution", "diff", "demo", "helpful-honest-harmless"],
        ["constitution", "lint", "demo"],
        ["engines"],
    ):
        shown = on_a_terminal(arguments, 60, tmp_path)
        assert shown.strip()
        wide = [line for line in shown.splitlines() if len(line) > 60]
        assert not [line for line in wide if max(map(len, line.split())) < 40], arguments
    # What programs read is not touched.
    shown = on_a_terminal(["lineage", "run", "--format", "mermaid"], 60, tmp_path)
    assert any(len(line) > 60 for line in shown.splitlines())


def test_wrapped_lines_keep_every_word_and_stand_below_their_start() -> None:
    text = "  ├─ " + " ".join(f"word{i}" for i in range(40)) + "\nshort"
    lines = wrap_lines(text, 50).split("\n")
    assert max(map(len, lines)) <= 50
    assert lines[-1] == "short"
    assert all(line.startswith("  │    word") for line in lines[1:-1])
    assert " ".join(lines).replace("│", " ").split() == text.split()
    assert wrap_lines("x" * 90 + " y", 50) == "x" * 90 + "\n  y"


@pytest.mark.parametrize(
    ("command", "old", "new"),
    [
        ("calibrate run", "--human", "--human-labels"),
        ("train-dpo run", "--human", "--human-data"),
        ("bench", "--pairs", "--num-pairs"),
        ("generate p.jsonl", "--template", "--judge-template"),
        ("mix a=1", "--overlap", "--overlap-words"),
        ("constitution induce x", "--most", "--max-principles"),
        ("train-sft run", "--epochs", "--num-train-epochs"),
    ],
)
def test_a_flag_with_an_old_name_is_refused_with_the_new_one(
    command: str,
    old: str,
    new: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["rlaif", *command.split(), old, "1"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert f"{old} has another name now. Use {new}." in capsys.readouterr().err
