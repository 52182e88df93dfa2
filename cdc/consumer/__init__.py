"""For those who read what the publisher writes: values to dicts."""

from cdc.consumer.decoding import Decoder, decode

__all__ = ["Decoder", "decode"]
