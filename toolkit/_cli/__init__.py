"""The command line: one module per command, each of which parses, calls and prints. A command is
imported only when it runs.

Errors are translated here and nowhere else: a `ToolkitError` becomes its text on stderr and its
class's exit code.
"""

from __future__ import annotations

import atexit
import importlib
import io
import os
import sys
from contextlib import suppress
from typing import NoReturn

import click

from toolkit.version import VERSION

COMMANDS = {
    "check": "Check a spec without running anything.",
    "cluster": "Write the manifests that run a spec on a cluster, as a KubeRay RayJob.",
    "doctor": "Check this machine and the store; --clean removes leftovers.",
    "fetch": "Download the model and SAEs of a spec, and check that they are whole.",
    "hub": "Push a run to the Hugging Face hub, or pull one into the store.",
    "images": "Build, list, verify and export container images.",
    "init": "Create your own experiment from a shipped spec.",
    "lock": "Write down the exact revisions that a spec resolves to.",
    "new-plugin": "Create an installable plugin package that passes its contract test.",
    "plan": "Show what will run, what is done already, and why.",
    "play": "Parse the stored replies of games again with another parser.",
    "plugins": "List the installed plugins and their parts.",
    "query": "Look up features, samples, comparisons and effects of a run, or ask in SQL.",
    "report": "Write the report of a run again.",
    "run": "Run a spec, or repeat a run. The same command continues what was cut off.",
    "runs": "List the runs in the store.",
    "schema": "Write the JSON Schema of a spec with all installed parts.",
    "show": "Show one run: stages, rows, files.",
    "status": "Show the progress of runs.",
    "store": "Check and clean up the store; export and import runs.",
    "view": "Browse the store in a browser, read-only.",
}


class _Lazy(click.Group):
    """Knows the commands' names and one-line helps without importing them: `toolkit --help` stays
    quick.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"toolkit._cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from toolkit.errors import choices, nearest

            ctx.fail(
                f"There is no command '{args[0]}'.{nearest(args[0], COMMANDS)} Commands: "
                f"{choices(COMMANDS)}."
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="toolkit")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Declarative sparse-autoencoder experiments: spec, plan, run, store, report."""
    ctx.obj = {"debug": debug}


def main(args: list[str] | None = None) -> None:
    """Entry point of the `toolkit` command: exits with the codes of the documentation."""
    from toolkit.errors import Interrupted, ToolkitError
    from toolkit.terminal import echo

    try:
        code = cli.main(args=args, prog_name="toolkit", standalone_mode=False)
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(file=shown)
        echo(shown.getvalue(), err=True, nl=False)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        echo("Interrupted.", err=True)
        _exit_interrupted(130, in_process=args is not None)
    except Interrupted as error:
        echo(f"Interrupted: {error}", err=True)
        _exit_interrupted(error.exit_code, in_process=args is not None)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except ToolkitError as error:
        if "--debug" in (sys.argv if args is None else args):
            raise
        echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    sys.exit(code if isinstance(code, int) else 0)


def _exit_interrupted(code: int, *, in_process: bool) -> NoReturn:
    """Exit at once after the exit handlers. Python's normal shutdown waits for threads and collects
    objects, and an interrupted library may then print a traceback.
    """
    if in_process:  # a caller of `main([...])` continues
        sys.exit(code)
    with suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)
