"""`make mutants`: every deliberate defect must be found, and in the core as it is nothing must be."""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests import ROOT
from tests.mutants.defects import DEFECTS, Defect
from tests.mutants.hunt import KINDS

_KILLED, _SURVIVED = 1, 0


class Verdict(NamedTuple):
    """How a mutant ended."""

    name: str
    row: str
    killed: bool
    worlds: int
    where: str
    violation: str
    seconds: float


def patched(defect: Defect) -> str:
    """The file with the defect in it. Raises SystemExit when the text is not there exactly once."""
    text = (ROOT / "cdc" / defect.file).read_text()
    if text.count(defect.old) != 1:
        raise SystemExit(
            f"mutant {defect.name}: its text is {text.count(defect.old)} times in cdc/{defect.file}: {defect.old!r}"
        )
    return text.replace(defect.old, defect.new)


def hunt(defect: Defect | None) -> Verdict:
    """Run the simulation against a copy of the core, with the defect or as it is."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        folder = Path(name).resolve()
        shutil.copytree(ROOT / "cdc", folder / "cdc", ignore=shutil.ignore_patterns("__pycache__"))
        for shared in ("tests", "pyproject.toml"):
            (folder / shared).symlink_to(ROOT / shared)
        if defect:
            (folder / "cdc" / defect.file).write_text(patched(defect))
        if defect and defect.unit:
            return _unit_tests(defect, folder, began)
        kinds = [defect.world] if defect else list(KINDS)
        ran = _run(folder, "tests.mutants.hunt", str(folder), *kinds)
    if ran.returncode not in (_KILLED, _SURVIVED) or "\t" not in ran.stdout:
        raise SystemExit(f"mutant {defect.name if defect else '-'} could not be tried: {ran.stdout}{ran.stderr}")
    worlds, where, violation = ran.stdout.strip("\n").split("\t", 2)
    named = (defect.name, defect.row) if defect else ("(none)", "")
    killed = ran.returncode == _KILLED
    return Verdict(*named, killed, int(worlds), where, violation, time.monotonic() - began)


def _unit_tests(defect: Defect, folder: Path, began: float) -> Verdict:
    """Run the unit tests that have to find a defect, until one fails."""
    ran = _run(folder, "pytest", "-x", "-q", "-rf", "-p", "no:cacheprovider", f"tests/unit/{defect.unit}")
    failed = re.search(r"^FAILED (\S+::.+?)(?: - (.*))?$", ran.stdout, re.MULTILINE)
    if ran.returncode not in (_KILLED, _SURVIVED) or (ran.returncode == _KILLED) != bool(failed):
        raise SystemExit(f"mutant {defect.name} could not be tried: {ran.stdout}{ran.stderr}")
    where, violation = failed.groups() if failed else ("", "")
    return Verdict(defect.name, defect.row, bool(failed), 0, where, violation or "", time.monotonic() - began)


def _run(folder: Path, module: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def main(names: Sequence[str]) -> int:
    """Print the table of kills; the exit code."""
    chosen = [defect for defect in DEFECTS if not names or defect.name in names]
    for defect in chosen:
        patched(defect)  # all of them fit before any is tried
    survivors = 0
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        print(f"{'mutant':<22}{'row':<9}{'worlds':>7}{'s':>6}  found by: what")
        wanted: list[Defect | None] = [*chosen, None]
        for tried, verdict in zip(wanted, pool.map(hunt, wanted), strict=True):
            right = verdict.killed == (tried is not None)
            survivors += not right
            how = f"{verdict.where}: {verdict.violation}" if verdict.killed else "survives" + ("" if right else " !")
            print(
                f"{verdict.name:<22}{verdict.row:<9}{verdict.worlds:>7,}{verdict.seconds:>6.1f}  {how[:150]}",
                flush=True,
            )
    print(f"{len(chosen)} mutants, {survivors} wrong")
    return 1 if survivors else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="only these")
    sys.exit(main(parser.parse_args().names))
