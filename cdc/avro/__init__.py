"""Avro: contracts from files, JSON values to Avro data, framing. fastavro is used here and nowhere else."""
