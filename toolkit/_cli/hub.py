"""`toolkit hub`: runs to and from dataset repositories of the Hugging Face hub."""

from __future__ import annotations

import platform

import click

from toolkit._cli._text import columns, size, store_option
from toolkit.terminal import counted, echo


@click.group("hub")
def command() -> None:
    """Share runs as dataset repositories of the Hugging Face hub, with the login of `hf auth
    login` or HF_TOKEN.
    """


@command.command("push")
@click.argument("run")
@click.argument("repository", metavar="REPO")
@click.option("--revision", metavar="BRANCH", help="The branch. Default: main.")
@click.option("--public", is_flag=True, help="Allow a public repository, which everyone can read.")
@click.option("--dry-run", is_flag=True, help="Export the run and list its files; upload nothing.")
@store_option
def push(
    run: str,
    repository: str,
    revision: str | None,
    public: bool,
    dry_run: bool,
    store: str | None,
) -> None:
    """Upload RUN to REPO (OWNER/NAME), which is created as a private one if it does not exist.

    The files are those of `toolkit store export parquet`, uploaded in one commit. A repository that
    holds another run is refused.
    """
    from toolkit._cli.query.answers import open_named
    from toolkit._share.push import push as send

    pushed = send(
        open_named(store, run), repository, revision=revision, public=public, dry_run=dry_run
    )
    if dry_run:
        rows = [(name, size(count)) for name, count in pushed.files.items()]
        echo(columns(("FILE", "SIZE"), rows, right=("SIZE",)))
    total = f"{counted(len(pushed.files), 'file')}, {size(sum(pushed.files.values()))}"
    kind = "private" if pushed.private else "public"
    target = f"{pushed.repository}@{pushed.revision} ({kind})"
    if dry_run:
        echo(f"run {pushed.run}: {total}, would be pushed to {target}; nothing was uploaded")
    else:
        echo(f"run {pushed.run}: {total}, is now at {target}, commit {pushed.commit}")
    echo(
        f"manifest.json and events.jsonl name this machine ({platform.node()}) and paths on it.",
        err=True,
    )


@command.command("pull")
@click.argument("repository", metavar="REPO")
@click.option(
    "--revision", metavar="REVISION", default="main", help="A branch, tag or commit. Default: main."
)
@store_option
def pull(repository: str, revision: str, store: str | None) -> None:
    """Import the run of REPO into the store, against its recorded hashes. Repeating it changes
    nothing, and what the store has computed is never replaced.
    """
    from toolkit._run.run_folder import store_folder
    from toolkit._share.pull import pull as get
    from toolkit_store import open_store

    pulled = get(open_store(store_folder(store), create=True), repository, revision=revision)
    echo(f"run {pulled.run} from {pulled.repository}, commit {pulled.commit}")
