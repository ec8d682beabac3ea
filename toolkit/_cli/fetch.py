"""`toolkit fetch`: get a spec's model and SAEs before it is run."""

from __future__ import annotations

import dataclasses
import json
import sys

import click

from toolkit._cli._options import spec_options
from toolkit._run.options import RunOptions
from toolkit.terminal import echo


@click.command("fetch")
@click.argument("target", metavar="SPEC|RUN_ID")
@spec_options
def command(target: str, options: RunOptions, as_json: bool) -> None:
    """Download the model and SAEs of a spec into the hub's cache, and check that the files are
    whole.

    The same command continues a download that was cut off. With HF_HUB_OFFLINE set, nothing is
    fetched and only cached files are checked.
    """
    from toolkit import _flow
    from toolkit._plan.fetch import DownloadDisplay, downloads_of, fetch_all, loadables_of

    plan = _flow.plan(target, options).plan
    results = []
    for fetched in fetch_all(downloads_of(loadables_of(plan)), DownloadDisplay(sys.stderr)):
        results.append({**dataclasses.asdict(fetched), "folder": str(fetched.folder)})
        if not as_json:
            echo(fetched.sentence())
    if as_json:
        echo(json.dumps({"ok": True, "downloads": results}))
    elif not results:
        echo(f"{target}: nothing to fetch; its model and SAEs are not on the hub.")
