"""`toolkit run`: run a spec, or repeat a run."""

from __future__ import annotations

import click

from toolkit._cli._options import spec_options
from toolkit._run.options import RunOptions
from toolkit.terminal import echo
from toolkit.work import Finding


@click.command("run")
@click.argument("target", metavar="SPEC|RUN_ID")
@click.option("-q", "--quiet", is_flag=True, help="Show only problems and the results.")
@click.option("-v", "--verbose", is_flag=True, help="Show every step.")
@click.option(
    "--dry-run", is_flag=True, help="Print the commands that would start workers, and start none."
)
@spec_options
def command(
    target: str, options: RunOptions, as_json: bool, quiet: bool, verbose: bool, dry_run: bool
) -> None:
    """Run a spec, or repeat a run by its id. The same command continues what was cut off.

    A run ends with its findings; the path of its report is the last line on stdout.
    """
    from toolkit import _flow
    from toolkit._run.display import NORMAL, QUIET, VERBOSE, display
    from toolkit._run.pools import worker_commands

    planned = _flow.plan(target, options)
    if dry_run:
        for line in worker_commands(planned.plan, planned.parts, planned.options):
            echo(line)
        return
    verbosity = QUIET if quiet else VERBOSE if verbose else NORMAL
    with display(as_json=as_json, verbosity=verbosity) as show:
        outcome = _flow.run(planned, show)
    if as_json:
        return
    for finding in outcome.findings:
        echo(finding_line(finding))
    echo(str(outcome.report))


def finding_line(finding: Finding) -> str:
    """A finding as a line, with the baseline that reaches the same without features."""
    baseline = f" ({finding.baseline})" if finding.baseline else ""
    return f"- {finding.sentence}{baseline}"
