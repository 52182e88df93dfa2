"""Opens the Schema Registry, whose client is an extra."""

from typing import TYPE_CHECKING

from cdc.errors import ConfigError

if TYPE_CHECKING:
    from cdc.config.settings import SchemaRegistry
    from cdc.registry.client import Registry


def opened(settings: "SchemaRegistry") -> "Registry":
    """Open the registry at `[schema_registry] url`. Raises ConfigError, also when the extra is not installed."""
    try:
        # Only here: its client takes 0.3 s to import, and is an extra.
        from cdc.registry.client import Registry
    except ImportError as error:
        raise ConfigError(
            f"[schema_registry] needs the extra packages: {error}", hint="run: pip install 'cdc-publisher[registry]'"
        ) from None
    return Registry(settings)
