"""A description of the machine on which figures were measured."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import confluent_kafka
import psutil

from benchmarks import contestants, processes
from benchmarks.servers import Servers


def described(servers: Servers) -> dict[str, str]:
    """Return machine, versions, revision and time."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "revision": _revision(),
        "cpu": _cpu(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "postgresql": f"{servers.query('show server_version')[0][0]}{_place(servers.postgres_is_here)}",
        "kafka": f"{servers.kafka_version}{_place(servers.broker is not None)}",
        "librdkafka": confluent_kafka.libversion()[0],
        "confluent-kafka": version("confluent-kafka"),
        "accelerator": f"by default {contestants.default_accelerator()}",
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def _place(here: bool) -> str:
    return ", on the same machine" if here else ", elsewhere"


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model")))
    return next(names, platform.machine())


def _revision() -> str:
    """Return the commit, marked if the tree differs from it; unknown outside a clone."""
    try:
        commit, changes = (
            subprocess.run(["git", *arguments], cwd=processes.ROOT, capture_output=True, text=True, check=True).stdout
            for arguments in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "cdc", "native"))
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.strip() + (" with changes" if changes.strip() else "")
