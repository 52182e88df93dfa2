"""Where a publisher stands: asked at its endpoint, or seen from its slot."""
