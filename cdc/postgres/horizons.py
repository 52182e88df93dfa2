"""Takes horizons; see `cdc.replication.horizon` for their meaning."""

from cdc.lsn import LSN
from cdc.postgres.connection import Conn, query
from cdc.replication.horizon import Horizon


def take(connection: Conn) -> Horizon:
    """Take a horizon of a primary: the snapshot is taken before the functions read the end of the WAL.

    Within a transaction that has an older snapshot, the horizon is that snapshot's.
    """
    ((xid, lsn, taken, timeline),) = query(
        connection,
        "taking a horizon",
        """
        select pg_snapshot_xmin(pg_current_snapshot())::text::int8, pg_current_wal_insert_lsn()::text,
               extract(epoch from clock_timestamp())::float8, pg_walfile_name(pg_current_wal_insert_lsn())
        """,
    )
    return Horizon(xid, LSN.parse(lsn), taken, int(timeline[:8], 16))
