"""The scoreboard at the end of a campaign."""

from rich.console import Console
from rich.table import Table

from tests.torture.campaign import Outcomes
from tests.torture.faults import FAULTS
from tests.torture.judge import Kind


def show(outcomes: Outcomes, console: Console) -> None:
    """Print faults, recovery times and the verdict."""
    console.print(_faults(outcomes))
    if outcomes.nemesis.restarts:
        console.print(_restarts(outcomes))
    console.print(_verdict(outcomes))
    for line in outcomes.violations[:20]:
        console.print(line, style="red", highlight=False)
    for line in outcomes.broken:
        console.print(f"harness: {line}", style="yellow", highlight=False)
    if outcomes.passed_over:
        console.print(f"without a meaning for this source: {', '.join(outcomes.passed_over)}", highlight=False)
    if outcomes.not_run:
        console.print(f"not run, for want of the right to mount: {', '.join(outcomes.not_run)}", highlight=False)


def _faults(outcomes: Outcomes) -> Table:
    title = "faults, and seconds until Kafka had all that was committed when they were healed"
    table = _table(title, "fault", "injected", "planned", "p50", "p99", "max")
    recoveries = outcomes.summary()["recovery_seconds"]
    for fault in FAULTS:
        if planned := outcomes.planned[fault.name]:
            spans = _spans(recoveries.get(fault.name))
            table.add_row(fault.name, str(outcomes.injected[fault.name]), str(planned), *spans)
    table.add_section()
    table.add_row("all", str(outcomes.injected.total()), str(outcomes.planned.total()))
    return table


def _restarts(outcomes: Outcomes) -> Table:
    title = "crashes that hit a publisher at work, and seconds until it streamed again"
    table = _table(title, "crash", "at work", "of", "p50", "p99", "max")
    for name, times in outcomes.summary()["streams_again_seconds"].items():
        table.add_row(name, str(outcomes.nemesis.busy[name]), str(outcomes.injected[name]), *_spans(times))
    return table


def _table(title: str, first: str, *more: str) -> Table:
    table = Table(title=title)
    table.add_column(first)
    for column in more:
        table.add_column(column, justify="right")
    return table


def _spans(times: dict[str, float] | None) -> list[str]:
    return [f"{times[name]:.2f}" if times else "-" for name in ("p50", "p99", "max")]


def _verdict(outcomes: Outcomes) -> Table:
    verdict, summary = outcomes.verdict, outcomes.summary()
    table = Table(title=outcomes.plan.title, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    rows = {
        "transactions committed": verdict.transactions,
        "events committed": verdict.events,
        "transactions and savepoints rolled back": outcomes.rolled_back,
        "publisher starts": outcomes.starts,
        "sessions": outcomes.sessions,
        "confirmations checked (I6)": outcomes.statuses,
        "lost (I1)": verdict.count(Kind.LOST),
        "reordered (I2)": verdict.count(Kind.REORDERED),
        "forward gaps (I3)": verdict.count(Kind.GAP),
        "positions that two events have": verdict.count(Kind.POSITION),
        "stale ends of keys in the compacted topic": verdict.count(Kind.STALE),
        "records that compaction removed": verdict.removed,
        "compactions while no publisher ran": outcomes.compactions,
        "phantoms (I5)": verdict.count(Kind.PHANTOM),
        "unsafe confirmations (I6)": len(outcomes.unsafe),
        "stuck (I7)": len(outcomes.stuck),
        "publishers that gave up (I9)": len(outcomes.refusals),
        "duplicates (I4)": verdict.duplicates,
        "of them too many": verdict.count(Kind.DUPLICATE),
        **_duplicates(outcomes),
        **_numbers(outcomes),
        **{
            f"Kafka transactions: {name}".replace("_", " "): n for name, n in summary["kafka_transactions"].items() if n
        },
        "seconds to lag 0 at the end": summary["lag_zero_seconds"],
        "peak memory, MB": summary["peak_memory_mb"],
    }
    for name, value in rows.items():
        table.add_row(name, f"{value:,}")
    return table


def _duplicates(outcomes: Outcomes) -> dict[str, float]:
    """By what they followed."""
    words = {"kill": "kill of the publisher", "crash": "crash of PostgreSQL", "other": "other end of a session"}
    rows: dict[str, float] = {}
    for cause, found in outcomes.duplicates().items():
        if found.times:
            rows[f"per {words[cause]}, of {found.times}"] = found.each
        if found.duplicates:
            rows[f"most after one {words[cause]}"] = found.most
    return rows


def _numbers(outcomes: Outcomes) -> dict[str, float]:
    verdict = outcomes.verdict
    if not outcomes.plan.sequence:
        return {}
    return {
        "wrong numbers": verdict.count(Kind.NUMBER),
        "numbers that are missing": verdict.numbers_missing,
        "numbers that are there again": verdict.numbers_repeated,
    }
