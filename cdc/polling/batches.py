"""What a batch is: the rows that became visible between two snapshots, as conditions in SQL.

Each row has the id of its transaction in `cdc_tx`. Visible in the later snapshot and not in the earlier one are the
rows of transactions that began after the earlier one, and those of transactions that were running then and are over
now. Only the latter are asked for by their ids: most of the ids that were running are of no interest, and one of them
may have a million rows that are not committed. Both conditions use the index on `cdc_tx`.

A snapshot stands in the statement as a constant: one that was joined would be unpacked for each row.
"""

from cdc.polling.snapshots import Snapshot


def between(earlier: Snapshot, later: Snapshot, row: str = "t") -> list[str]:
    """Return conditions for rows that `later` sees and `earlier` does not, of which each row meets one at the most."""
    conditions = []
    if later.xmax > earlier.xmax:
        began = f"{row}.cdc_tx >= '{earlier.xmax}' and {row}.cdc_tx < '{later.xmax}'"
        if later.running and later.running[-1] >= earlier.xmax:
            began += f" and pg_catalog.pg_visible_in_snapshot({row}.cdc_tx, '{later}')"
        conditions.append(began)
    ended = [xid for xid in earlier.running if later.sees(xid)]
    if ended:
        conditions.append(_one_of(ended, row))
    return conditions


def beyond(earlier: Snapshot, row: str = "t") -> list[str]:
    """Return conditions for rows that `earlier` does not see, of which each row meets one at the most.

    `row` is the alias of the table; the column stands alone if it is empty.
    """
    conditions = [f"{_column(row)} >= '{earlier.xmax}'"]
    if earlier.running:
        conditions.append(_one_of(earlier.running, row))
    return conditions


def _one_of(xids: list[int] | tuple[int, ...], row: str) -> str:
    listed = ", ".join(f"'{xid}'" for xid in xids)
    return f"{_column(row)} = any(array[{listed}]::xid8[])"


def _column(row: str) -> str:
    return f"{row}.cdc_tx" if row else "cdc_tx"
