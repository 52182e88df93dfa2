"""`make vulnerabilities`: looks up what the image holds among the known vulnerabilities, by pip-audit.

Red for a vulnerability that is known. What cannot be looked up (no network, or an index that keeps no such list) is
told and is not red: a change shall not wait for somebody else's server.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

COMMAND = [
    *(sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off"),
    *("--require-hashes", "--disable-pip", "--requirement"),
]
SECONDS = 300


def judged(report: Mapping[str, Any]) -> tuple[int, list[str]]:
    """The exit code for a report of pip-audit, and what to say."""
    packages = report["dependencies"]
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    found = [
        f"{package['name']} {package['version']}: {vulnerability['id']}, mended in"
        f" {', '.join(vulnerability['fix_versions']) or 'no version yet'}"
        for package in packages
        for vulnerability in package.get("vulns", ())
    ]
    told = [f"{len(packages) - len(unknown)} packages looked up, {len(found)} vulnerabilities"]
    if unknown:
        told.append(f"WARNING: {len(unknown)} packages could not be looked up: {', '.join(unknown)}")
    return (1 if found else 0), found + told


def looked_up(command: list[str]) -> tuple[int, list[str]]:
    """The same of a run of pip-audit, which may come to nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        return judged(json.loads(done.stdout))
    except subprocess.TimeoutExpired:
        reason = f"no answer within {SECONDS} s"
    except ValueError:  # no report
        reason = (done.stderr.strip() or "pip-audit says nothing").splitlines()[-1]
    return 0, [f"WARNING: nothing could be looked up: {reason}"]


if __name__ == "__main__":
    code, lines = looked_up([*COMMAND, *sys.argv[1:]])
    print(*lines, sep="\n")
    sys.exit(code)
