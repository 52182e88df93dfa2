"""The status document of a publisher: from its endpoint, or from its slot."""
