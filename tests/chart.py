"""The Helm chart as Kubernetes gets it, with everything switched on: `python -m tests.chart` writes it anew, with helm.

The file names what it was made of, so that tests see without helm that it is up to date.
"""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parents[1]
CHART: Final = ROOT / "deploy" / "helm" / "cdc-publisher"
VALUES: Final = CHART / "ci" / "everything-values.yaml"
RENDERED: Final = ROOT / "tests" / "unit" / "packaging" / "helm-everything.yaml"
KUBERNETES: Final = "1.34"  # whose API the manifests are checked against

Manifest = dict[str, Any]


def sources() -> Iterator[Path]:
    """What the manifests are made of."""
    yield from sorted(path for path in CHART.rglob("*") if path.is_file() and path.suffix != ".md")


def fingerprint() -> str:
    """Of all sources: their names and what is in them."""
    digest = hashlib.sha256()
    for path in sources():
        digest.update(f"{path.relative_to(CHART).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def helm() -> str | None:
    """The program, where there is one."""
    return shutil.which("helm")


def template(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What `helm template` makes of the chart as release `shop`."""
    command = [helm() or "helm", "template", "shop", str(CHART), "--namespace", "shop", "--kube-version", KUBERNETES]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)


def manifests(text: str) -> list[Manifest]:
    """By kind and name: helm's own order is not always the same."""
    found = [manifest for manifest in yaml.safe_load_all(text) if manifest]
    return sorted(found, key=lambda manifest: (manifest["kind"], manifest["metadata"]["name"]))


def main() -> None:
    done = template("--values", str(VALUES))
    if done.returncode:
        sys.exit(done.stderr)
    RENDERED.write_text(f"# Made by python -m tests.chart of sources {fingerprint()}\n{done.stdout}")


if __name__ == "__main__":
    main()
