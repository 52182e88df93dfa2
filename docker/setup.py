"""Create table, publication, own topics and slot for a new publisher; existing ones are not changed.

Run this once per database, not at each start of a publisher: silently re-creating a lost slot would hide that events
are missing.
"""

import json
import subprocess
import sys
from typing import Any


def json_output(*arguments: str) -> Any:
    """Return the JSON output of `cdc-publisher`, or exit with its exit code if it fails."""
    done = subprocess.run(["cdc-publisher", *arguments, "--json"], stdout=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout)


slot = json_output("config", "show")["postgres"]["slot"]
if code := subprocess.run(["cdc-publisher", "outbox", "init"], check=False).returncode:
    sys.exit(code)
if slot in [each["name"] for each in json_output("slot", "list")]:
    print(f"slot {slot} exists already")
else:
    sys.exit(subprocess.run(["cdc-publisher", "slot", "create"], check=False).returncode)
