"""Every `--flag` that a message, a help text or a doc names belongs to the command it speaks of."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import click

from rlaif.cli.main import all_commands

ROOT = Path(__file__).parents[2]
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z_-]*[a-z]")
# `rlaif label INPUT --judge J`, over continued lines, up to the end of the command.
CALL = re.compile(r"\brlaif ((?:\\\n|[^\n`|;&\"])*)")
# Calls of other tools, whose flags are their own.
OTHER = re.compile(
    r"(?:^|[`\n'\"(])\s*(?:accelerate|alpaca_eval|curl|inspect|lm-eval|promptfoo|python|ray|vllm) "
    r"(?:\\\n|[^\n`;&])*"
)
# What the harnesses are called with; and the old names that are refused with the new one.
WRITES_FOR_OTHERS = {"rlaif.harness.configs", "rlaif.cli.common.renamed"}
EVERY = {"--help", "--version"}
# Flags of the harnesses, spoken of where our texts are about one.
HARNESS = {"--include_path", "--metadata", "--tasks", "--apply_chat_template", "--scorer"}
HARNESS |= {"--model-role", "--model_args"}


def flags_by_command() -> dict[str, set[str]]:
    return {
        name: {o for p in c.params for o in (*p.opts, *p.secondary_opts)} | EVERY
        for name, c in all_commands().items()
    }


def command_in(words: str, names: set[str]) -> str | None:
    """The longest command name that a call begins with: `eval consistency`, `label`."""
    parts = [w for w in words.split() if w != "\\"]
    for length in (3, 2, 1):
        if (name := " ".join(parts[:length])) in names:
            return name
    return None


def wrong_calls(text: str, flags: dict[str, set[str]]) -> list[str]:
    """Flags in calls of `rlaif COMMAND` that COMMAND lacks."""
    found = []
    for call in CALL.finditer(text):
        # A comment or a sentence after the command line is no part of it.
        words = re.split(r"\s#|\.\s|\)\s|, ", call.group(1))[0]
        command = command_in(words, set(flags))
        if command:
            found += [
                f"rlaif {command} {f}" for f in FLAG.findall(words) if f not in flags[command]
            ]
    return found


def flags_outside_calls(text: str) -> list[str]:
    """Flags that a text speaks of as its own command's."""
    return FLAG.findall(CALL.sub(" ", OTHER.sub(" ", text)))


def texts_of(module: Path) -> list[tuple[int, str]]:
    """The string literals of a module with their lines; an f-string is one text."""
    tree = ast.parse(module.read_text())
    inside = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [p.value if isinstance(p, ast.Constant) else "{}" for p in node.values]
            found.append((node.lineno, "".join(str(p) for p in parts)))
        elif isinstance(node, ast.Constant) and id(node) not in inside:
            found.append((node.lineno, str(node.value)))
    return found


def test_help_speaks_of_flags_that_the_command_has() -> None:
    flags = flags_by_command()
    wrong = []
    for name, command in all_commands().items():
        texts = [command.help or "", command.epilog or ""]
        texts += [p.help or "" for p in command.params if isinstance(p, click.Option)]
        for text in texts:
            wrong += wrong_calls(text, flags)
            valid = flags[name] | (HARNESS if name.startswith("harness") else set())
            wrong += [f"{name}: {f}" for f in flags_outside_calls(text) if f not in valid]
    assert not wrong


def test_messages_of_a_command_speak_of_flags_that_it_has() -> None:
    """A module of the command line speaks of its own command; others, of one that exists."""
    flags = flags_by_command()
    everywhere = set().union(*flags.values())
    own: dict[str, set[str]] = {}
    for name, command in all_commands().items():
        module = command.callback.__module__ if command.callback else ""
        own.setdefault(module, set()).update(flags[name])
    wrong = []
    for path in sorted((ROOT / "rlaif").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        valid = own.get(module, everywhere)
        if "harness" in module:
            valid = valid | HARNESS
        if module in WRITES_FOR_OTHERS:
            continue
        for line, text in texts_of(path):
            if text.startswith("--") and " " not in text.split("/")[0] and module in own:
                continue  # the declaration of an option, or a flag handed on to a subprocess
            wrong += [f"{path.name}:{line}: {w}" for w in wrong_calls(text, flags)]
            outside = [] if "/--no-" in text else flags_outside_calls(text)
            spoken = [command_in(call, set(flags)) for call in CALL.findall(text)]
            here = valid.union(*(flags[name] for name in spoken if name))
            wrong += [f"{path.name}:{line}: {f}" for f in outside if f not in here]
    assert not wrong, "\n".join(wrong)


def test_docs_and_scripts_call_commands_with_flags_that_they_have() -> None:
    flags = flags_by_command()
    listed = subprocess.run(
        ["git", "ls-files", "*.md", "*.yaml", "*.sh", "*.html", "*.j2", "*.txt"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    files = [f for f in listed if f != "CHANGELOG.md" and not f.startswith("tests/")]
    assert len(files) > 30
    wrong = [
        f"{file}: {found}"
        for file in files
        for found in wrong_calls((ROOT / file).read_text(), flags)
    ]
    assert not wrong, "\n".join(wrong)


def argument_lists(module: Path) -> list[tuple[int, list[str]]]:
    """Lists of a module that hold `"rlaif"`: command lines for a subprocess."""
    found = []
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.List):
            words = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
            found.append((node.lineno, [w for w in words if isinstance(w, str)]))
    return [(line, words[words.index("rlaif") + 1 :]) for line, words in found if "rlaif" in words]


def test_scripts_start_commands_with_flags_that_they_have() -> None:
    flags, seen, wrong = flags_by_command(), 0, []
    for path in [*(ROOT / "scripts").rglob("*.py"), *(ROOT / "rlaif").rglob("*.py")]:
        for line, words in argument_lists(path):
            command = command_in(" ".join(words), set(flags))
            if command is None:
                continue
            seen += 1
            given = {word for word in words if FLAG.fullmatch(word)}
            wrong += [f"{path.name}:{line}: {f}" for f in sorted(given - flags[command])]
    assert seen >= 5
    assert not wrong, "\n".join(wrong)


def test_the_check_sees_a_flag_that_is_not_there() -> None:
    flags = flags_by_command()
    assert wrong_calls("Run `rlaif label x.jsonl --jduge y`.", flags) == ["rlaif label --jduge"]
    assert wrong_calls("rlaif label x.jsonl \\\n  --lora-dropout 0", flags) == [
        "rlaif label --lora-dropout"
    ]
    assert not wrong_calls("rlaif label x.jsonl --judge y  # like --jduge", flags)
