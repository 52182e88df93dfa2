"""Avro: contracts, encoding of JSON payloads, framing and decoding. Only this package imports fastavro."""
