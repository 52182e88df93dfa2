"""Adds the addresses of the project to the metadata of the package, from the repository that a workflow builds.

Nothing in the tree names an owner, so a fork that releases its own package links to itself.
"""

import os
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class ProjectUrls(MetadataHookInterface):
    """Sets `urls`. A build outside GitHub Actions has none."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the addresses to `metadata`."""
        repository = os.environ.get("GITHUB_REPOSITORY")
        if not repository:
            return
        address = f"{os.environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{repository}"
        metadata["urls"] = {
            "Repository": address,
            "Documentation": f"{address}/tree/main/docs",
            "Issues": f"{address}/issues",
            "Changelog": f"{address}/blob/main/CHANGELOG.md",
            "Releases": f"{address}/releases",
        }
