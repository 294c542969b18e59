"""What reaches a terminal: no escapes of strangers, any character set, and pipes that close."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from rlaif.cli.common.output import echo, printable
from rlaif.cli.main import cli
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
