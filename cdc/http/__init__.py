"""Health, metrics and status over HTTP, for whoever watches over the publisher."""
