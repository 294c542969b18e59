"""Attacks every command: mutated files, faults of the machine, kills at any moment.

    python scripts/attack.py --inputs 10000 --kills 1000 --faults 1000 --servers 50 [--seed N] [--work DIR]

Prints counts by kind, and each failure with what makes it again.  No traceback, no end after ten
seconds of work, no more than 1.5 GB, no escape from data on the terminal; and after a fault or a
kill, the same command leaves the same rows.  Exits with 1 where something fell short.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from attacks.children import Ended, run_command
from attacks.commands import READING, WRITING, Job, copy_world, rows_of, write_world
from attacks.faults import FAULTS
from attacks.mutations import mutate_file
from attacks.servers import HONEST, MODES, serving

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Attack:
    """What was tried, and what fell short.

    Args:
        world: the folder with everything that commands read.
        scratch: where each try has its folder.
    """

    def __init__(self, world: Path, scratch: Path, seed: int) -> None:
        self.world, self.scratch, self.seed = world, scratch, seed
        self.tried: Counter[str] = Counter()
        self.failed: list[str] = []
        self.slowest = self.largest = 0.0
        self._references: dict[str, tuple[dict[str, bytes], float]] = {}

    def _note(self, kind: str, how: str, ended: Ended, more: list[str]) -> None:
        self.tried[kind] += 1
        self.slowest = max(self.slowest, ended.seconds)
        self.largest = max(self.largest, ended.memory)
        mute = kind.startswith("fault ") and any(
            w in kind for w in ("stderr", "closed", "files of")
        )
        for fault in [*ended.faults(mute=mute), *more]:
            said = (ended.err or ended.out).strip().splitlines()
            self.failed.append(f"{kind}: {how}: {fault}: {said[-1][:300] if said else ''}")
            print("FAILED", self.failed[-1], flush=True)

    def try_input(self, number: int) -> None:
        """One command on one file that somebody changed."""
        rng = random.Random(f"{self.seed}/input/{number}")
        job = READING[number % len(READING)]
        folder = self.scratch / "work"
        copy_world(self.world, job, folder)
        pattern = job.target or job.reads[0]
        files = sorted(p for p in folder.glob(pattern) if p.is_file())
        if not files:
            return
        file = rng.choice(files)
        file.write_bytes(mutate_file(file.name, file.read_bytes(), rng))
        ended = run_command(job.words.split(), folder)
        more = self._missing(job, folder, ended) if job.name == "label-c" else []
        self._note(f"input {job.name}", f"--only-input {number} ({file.name})", ended, more)

    def _missing(self, job: Job, folder: Path, ended: Ended) -> list[str]:
        """Rows that a finished run does not account for."""
        if ended.code != 0 or not (folder / "out").is_dir():
            return []
        rows = set()
        rejected = 0
        import json

        for name in ("preferences", "undecided"):
            path = folder / "out" / f"{name}.jsonl"
            for line in path.read_text().splitlines() if path.exists() else ():
                rows.add(json.loads(line)["provenance"]["row"] if "provenance" in line else line)
        path = folder / "out" / "rejected.jsonl"
        rejected = len(path.read_text().splitlines()) if path.exists() else 0
        return [] if len(rows) + rejected >= 10 else [f"{len(rows)} + {rejected} of 10 rows"]

    def _reference(self, job: Job) -> tuple[dict[str, bytes], float]:
        """What a job leaves that nobody disturbs, and how long it takes."""
        if job.name not in self._references:
            folder = self.scratch / "work"
            copy_world(self.world, job, folder)
            ended = run_command(job.words.split(), folder)
            self._note(
                f"undisturbed {job.name}", job.words, ended, [] if ended.code == 0 else ["failed"]
            )
            self._references[job.name] = rows_of(folder, job.out), ended.seconds
        return self._references[job.name]

    def try_kill(self, number: int) -> None:
        """One command that is ended at some moment, once or more, and started again."""
        rng = random.Random(f"{self.seed}/kill/{number}")
        job = WRITING[number % len(WRITING)]
        rows, seconds = self._reference(job)
        folder = self.scratch / "work"
        copy_world(self.world, job, folder)
        for _ in range(rng.choice([1, 1, 2, 3])):
            sign = rng.choice(SIGNALS)
            ended = run_command(
                job.words.split(), folder, kill_after=rng.uniform(0, seconds * 1.1), sign=sign
            )
            self._note(f"kill {job.name}", f"--only-kill {number}", ended, [])
        self._finish(f"again {job.name}", f"--only-kill {number}", job, folder, rows)

    def _finish(self, kind: str, how: str, job: Job, folder: Path, rows: dict[str, bytes]) -> None:
        ended = run_command(job.words.split(), folder)
        if ended.code == 2 and job.name in ("init", "harness", "export", "labels-export"):
            # These write a few files at once: they say that something is there already.
            out = folder / job.out
            shutil.rmtree(out) if out.is_dir() else out.unlink(missing_ok=True)
            ended = run_command(job.words.split(), folder)
        more = [] if ended.code == 0 else [f"does not go on (exit {ended.code})"]
        left = rows_of(folder, job.out)
        if not more and left != rows:
            names = [n for n in sorted({*left, *rows}) if left.get(n) != rows.get(n)]
            more = [f"other rows in {', '.join(names)}"]
        self._note(kind, how, ended, more)

    def try_fault(self, number: int) -> None:
        """One command on a machine that fails in one way, then on one that does not."""
        rng = random.Random(f"{self.seed}/fault/{number}")
        name, fault = FAULTS[number % len(FAULTS)]
        job = WRITING[(number // len(FAULTS) + number) % len(WRITING)]
        rows, _ = self._reference(job)
        folder = self.scratch / "work"
        copy_world(self.world, job, folder)
        ended = run_command(job.words.split(), folder, prepare=lambda: fault(folder, rng))
        how = f"--only-fault {number} ({job.name})"
        victim = folder.parent / "victim"
        written = victim.exists() and victim.read_text() != "mine"
        victim.unlink(missing_ok=True)
        self._note(f"fault {name}", how, ended, ["wrote through a link"] if written else [])
        for path in folder.rglob("*"):
            if path.is_symlink():
                path.unlink()
        self._finish(f"after {name}", how, job, folder, rows)

    def try_server(self, number: int, address: str, mode_file: Path) -> None:
        """A run whose model is behind a server that misbehaves, then behaves."""
        mode = MODES[number % len(MODES)]
        words = (
            "generate prompts.jsonl --engine openai --model m -n 1 -o out --limit 6 --json "
            f"--option base_url={address} --option retries=2 --option timeout=5"
        )
        job = Job("server", words, ("prompts.jsonl",), "out")
        _write_mode(mode_file, HONEST)
        rows, _ = self._reference(job)
        folder = self.scratch / "work"
        copy_world(self.world, job, folder)
        _write_mode(mode_file, mode)
        ended = run_command(words.split(), folder)
        _write_mode(mode_file, HONEST)
        how = f"--only-server {number}"
        if ended.code == 0:  # what is wrong with answers is data: every prompt has its row
            self._note(f"server {mode}", how, ended, self._unaccounted(folder / "out", 6))
            return
        self._note(f"server {mode}", how, ended, [])
        self._finish(f"after server {mode}", how, job, folder, rows)

    def _unaccounted(self, out: Path, count: int) -> list[str]:
        files = [out / "candidates.jsonl", out / "rejected.jsonl"]
        told = sum(len(f.read_text().splitlines()) for f in files if f.exists())
        return [] if told == count else [f"{told} of {count} rows"]


def _write_mode(file: Path, mode: str) -> None:
    """Never half of it: a server may read it now."""
    half = file.with_suffix(".half")
    half.write_text(mode)
    half.replace(file)


def main() -> int:
    """Attack, and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="keep the files here")
    parser.add_argument("--servers", type=int, default=20)
    for what in ("input", "kill", "fault", "server"):
        parser.add_argument(f"--only-{what}", type=int, help="make one of them again")
    given = parser.parse_args()
    import rlaif.cli.main  # noqa: F401 - so that children have it

    warm_up()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rlaif-attack-") as temporary:
        work = given.work or Path(temporary)
        world = work / "world"
        if not world.exists():
            write_world(world)
        attack = Attack(world, work / "scratch", given.seed)
        only = [given.only_input, given.only_kill, given.only_fault]
        tries = (
            (attack.try_input, given.inputs, only[0]),
            (attack.try_kill, given.kills, only[1]),
            (attack.try_fault, given.faults, only[2]),
        )
        if only[:3] == [None, None, None]:
            with serving(work / "mode") as address:
                one = given.only_server
                for number in [one] if one is not None else range(given.servers):
                    attack.try_server(number, address, work / "mode")
        only.append(given.only_server)
        for attempt, count, one in tries:
            chosen = (
                [one]
                if one is not None
                else []
                if any(o is not None for o in only)
                else range(count)
            )
            try:
                for number in chosen:
                    attempt(number)
            except KeyboardInterrupt:
                print("stopped early")
    for kind, count in sorted(attack.tried.items()):
        print(f"{count:6}  {kind}")
    total = sum(attack.tried.values())
    print(
        f"{total} runs, {len(attack.failed)} failures; slowest {attack.slowest:.1f} s, largest "
        f"{attack.largest / 2**20:.0f} MiB; {time.monotonic() - began:.0f} s"
    )
    return 1 if attack.failed else 0


def warm_up() -> None:
    """Import what commands import, so that a child starts at once."""
    import rlaif.cli.main as start

    start.all_commands()
    import rlaif.data.dataset
    import rlaif.engines.scripted
    import rlaif.evaluation.run
    import rlaif.generation.critique
    import rlaif.labeling.job
    import rlaif.mixing.mix
    import rlaif.review.start  # noqa: F401


if __name__ == "__main__":
    sys.exit(main())
