"""JSON values to Avro data, strictly."""
