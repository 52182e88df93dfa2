"""Once for each database: table, publication and our topics, and the slot. What is there stays as it is.

Give this command when you set up a publisher, not each time one starts: a slot that was lost and is silently made
anew is a gap in what is published.
"""

import json
import subprocess
import sys
from typing import Any


def told(*arguments: str) -> Any:
    """What `cdc-publisher` says as JSON; ends with its exit code when it fails."""
    done = subprocess.run(["cdc-publisher", *arguments, "--json"], stdout=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout)


slot = told("config", "show")["postgres"]["slot"]
if code := subprocess.run(["cdc-publisher", "outbox", "init"], check=False).returncode:
    sys.exit(code)
if slot in [each["name"] for each in told("slot", "list")]:
    print(f"slot {slot} is there")
else:
    sys.exit(subprocess.run(["cdc-publisher", "slot", "create"], check=False).returncode)
