"""The scoreboard at the end of a campaign."""

from rich.console import Console
from rich.table import Table

from tests.torture.campaign import Outcomes
from tests.torture.faults import FAULTS
from tests.torture.judge import Kind


def show(outcomes: Outcomes, console: Console) -> None:
    """Print faults, recovery times and the verdict."""
    console.print(_faults(outcomes))
    console.print(_verdict(outcomes))
    for line in outcomes.violations[:20]:
        console.print(line, style="red", highlight=False)
    for line in outcomes.broken:
        console.print(f"harness: {line}", style="yellow", highlight=False)
    if outcomes.not_run:
        console.print(f"not run, for want of the right to mount: {', '.join(outcomes.not_run)}", highlight=False)


def _faults(outcomes: Outcomes) -> Table:
    table = Table(title="faults, and seconds until Kafka had all that was committed when they were healed")
    for column in ("fault", "injected", "planned", "p50", "p99", "max"):
        table.add_column(column, justify="left" if column == "fault" else "right")
    recoveries = outcomes.summary()["recovery_seconds"]
    for fault in FAULTS:
        if outcomes.planned[fault.name]:
            times = recoveries.get(fault.name, {})
            spans = [f"{times[name]:.2f}" if times else "-" for name in ("p50", "p99", "max")]
            table.add_row(fault.name, str(outcomes.injected[fault.name]), str(outcomes.planned[fault.name]), *spans)
    table.add_section()
    table.add_row("all", str(outcomes.injected.total()), str(outcomes.planned.total()), "", "", "")
    return table


def _verdict(outcomes: Outcomes) -> Table:
    verdict, summary = outcomes.verdict, outcomes.summary()
    table = Table(title=f"PostgreSQL {outcomes.plan.postgres}, seed {outcomes.plan.seed}", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    rows = {
        "transactions committed": verdict.transactions,
        "events committed": verdict.events,
        "transactions and savepoints rolled back": outcomes.rolled_back,
        "publisher starts": outcomes.starts,
        "replication sessions": outcomes.sessions,
        "status updates checked (I6)": outcomes.statuses,
        "lost (I1)": verdict.count(Kind.LOST),
        "reordered (I2)": verdict.count(Kind.REORDERED),
        "forward gaps (I3)": verdict.count(Kind.GAP),
        "phantoms (I5)": verdict.count(Kind.PHANTOM),
        "unsafe confirmations (I6)": len(outcomes.unsafe),
        "stuck (I7)": len(outcomes.stuck),
        "publishers that gave up (I9)": len(outcomes.refusals),
        "duplicates (I4)": verdict.duplicates,
        "most of one session": summary["most_duplicates_of_a_session"],
        "most of one after a crash of PostgreSQL": summary["most_duplicates_of_a_session_after_a_crash_of_postgres"],
        "seconds to lag 0 at the end": summary["lag_zero_seconds"],
        "peak memory, MB": summary["peak_memory_mb"],
    }
    for name, value in rows.items():
        table.add_row(name, f"{value:,}")
    return table
