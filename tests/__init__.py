"""Tests; a package so that the helper modules beside this file can be imported."""
