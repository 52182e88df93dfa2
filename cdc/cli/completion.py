"""`completion`: print a shell script that completes commands, options and settings."""

import click
from click.shell_completion import ShellComplete, get_completion_class

from cdc.cli.examples import examples
from cdc.cli.main import cli

_PROGRAM = "cdc-publisher"
_VARIABLE = "_CDC_PUBLISHER_COMPLETE"


@click.command(
    epilog=examples(
        "cdc-publisher completion bash > /etc/bash_completion.d/cdc-publisher",
        'cdc-publisher completion zsh > "${fpath[1]}/_cdc-publisher"',
        "cdc-publisher completion fish > ~/.config/fish/completions/cdc-publisher.fish",
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a shell script that completes commands, options and names of settings.

    Save it where the shell loads completions from, or load it into a running shell:
    source <(cdc-publisher completion bash)
    """
    kind = get_completion_class(shell)
    assert kind is not None
    # Not .source(), which runs bash to check its version: the script may be for another machine.
    made: ShellComplete = kind(cli, {}, _PROGRAM, _VARIABLE)
    click.echo(made.source_template % made.source_vars())
