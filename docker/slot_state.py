"""`slot_state.py exists|active`: exit code 0 when the publisher's slot is so, else 1.

`exists` makes creating it repeatable; `active` (somebody reads it) is the publisher's health check.
"""

import json
import os
import subprocess
import sys

slot = os.environ.get("CDC_POSTGRES__SLOT") or "cdc_publisher"
listed = subprocess.run(["cdc-publisher", "slot", "list", "--json"], stdout=subprocess.PIPE, check=False)
if listed.returncode:
    sys.exit(listed.returncode)
found = [each for each in json.loads(listed.stdout) if each["name"] == slot]
sys.exit(0 if found and (sys.argv[1] == "exists" or found[0]["active_pid"]) else 1)
