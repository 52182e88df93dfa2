"""The live screen of `status --watch`, and the figures it is made of."""
