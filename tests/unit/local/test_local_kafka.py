"""Arguments and settings of brokers, without starting one."""

import base64
from pathlib import Path

from cdc.local.kafka import KafkaBroker


def test_no_cluster_id_looks_like_an_option() -> None:
    ids = {KafkaBroker(Path(f"/homes/{number}"), 1).cluster_id for number in range(2000)}
    assert not [cluster_id for cluster_id in ids if cluster_id.startswith("-")]
    assert {len(base64.urlsafe_b64decode(cluster_id + "==")) for cluster_id in ids} == {16}
    assert len(ids) == 2000
