"""Coverage-guided fuzzing with atheris: `python -m tests.fuzz.run [--seconds N] [TARGET...]`.

Each target runs in a process of its own, one after the other, and starts from its corpus. What breaks one is saved and shown;
then the exit code is 1. Without atheris the exit code is 3.
"""

import argparse
import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
INSTRUMENTED: Final = ("overlay", "attest", "audit", "discovery")
INPUT_MAX: Final = 4096  # bytes: the largest valid messages that are fuzzed have a third of that
HANG: Final = 10  # seconds for one input; the slowest target takes some milliseconds
MEMORY: Final = 2048  # MiB
GRACE: Final = 60  # seconds for start and end of a process


@dataclass(frozen=True, slots=True)
class Run:
    """What one target did."""

    target: str
    code: int
    executions: int
    per_second: int
    output: str

    @property
    def line(self) -> str:
        """For people."""
        said = "clean" if self.code == 0 else "BROKEN"
        return f"fuzz: {said:6}  {self.target:12}  {self.executions:>9} inputs  {self.per_second:>6} a second"


def targets() -> list[str]:
    """Their names: one corpus each, which a test compares with the table."""
    return sorted(path.name for path in (HERE / "corpus").iterdir())


def fuzz(target: str, seconds: int, findings: Path) -> Run:
    """One target in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="overlay-fuzz-") as grown:
        command = [
            sys.executable, "-m", "tests.fuzz.run", "--one", target, grown, str(HERE / "corpus" / target),
            f"-max_total_time={seconds}", f"-max_len={INPUT_MAX}", f"-timeout={HANG}", f"-rss_limit_mb={MEMORY}",
            f"-artifact_prefix={findings}/{target}-", "-print_final_stats=1", "-verbosity=1",
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, text=True, errors="replace",
                timeout=seconds + GRACE,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return Run(target, 1, 0, 0, f"fuzz: {target} did not end in time")
    figures = dict(re.findall(r"stat::(\w+):\s+(\d+)", done.stdout))
    executions, per_second = (int(figures.get(name, 0)) for name in ("number_of_executed_units", "average_exec_per_sec"))
    return Run(target, done.returncode if executions else 1, executions, per_second, done.stdout)


def show_finding(run: Run, findings: Path) -> None:
    """The end of what was said, and how to see it again."""
    print(run.output[-4000:], file=sys.stderr)
    for path in sorted(findings.glob(f"{run.target}-*")):
        print(f"fuzz: {path}: {path.read_bytes().hex()}", file=sys.stderr)
        print(f"fuzz: again: python -m tests.fuzz.run --one {run.target} {path}", file=sys.stderr)


def one(target: str, arguments: Sequence[str]) -> None:
    """In the child: instrument, then let libFuzzer go on until it ends the process."""
    import atheris  # type: ignore[import-untyped]

    with atheris.instrument_imports(include=list(INSTRUMENTED)):
        from tests.fuzz.targets import TARGETS
    atheris.Setup([f"fuzz-{target}", *arguments], TARGETS[target])
    atheris.Fuzz()


def main() -> int:
    """0: clean. 1: something broke. 3: this host lacks atheris."""
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], sys.argv[3:])
        return 0
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description="Coverage-guided fuzzing with atheris.")
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together (60)")
    parser.add_argument("--findings", type=Path, help="where to save what breaks a target (a new folder)")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=" ".join(targets()))
    options = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print("fuzz: atheris is not installed: pip install --require-hashes -r requirements/fuzz.txt", file=sys.stderr)
        return 3
    if unknown := set(options.targets) - set(targets()):
        parser.error(f"no such target: {min(unknown)}")
    findings = options.findings or Path(tempfile.mkdtemp(prefix="overlay-fuzz-findings-"))
    findings.mkdir(parents=True, exist_ok=True)
    chosen = options.targets or targets()
    broken = 0
    for target in chosen:
        run = fuzz(target, max(1, options.seconds // len(chosen)), findings)
        print(run.line, flush=True)
        if run.code:
            broken += 1
            show_finding(run, findings)
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
