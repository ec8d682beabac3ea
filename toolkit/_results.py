"""Results from Python: a store, its runs, features and samples, as polars frames that notebooks
show well.

store = toolkit.open("toolkit-runs")
run = store.run("quickstart")
run.features()
run.top("3/65")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit._query.html import safe, table_html, tokens_html

if TYPE_CHECKING:
    import polars as pl

    from toolkit._query.run import Run
    from toolkit.work import Finding
    from toolkit_store import Features


def open_store(store: str | Path | None = None) -> StoreResults:
    """The results in a store: a folder or a URI; None means TOOLKIT_STORE, else ./toolkit-runs."""
    import toolkit_store
    from toolkit._run.run_folder import store_folder

    return StoreResults(toolkit_store.open(store_folder(None if store is None else str(store))))


def pull(repository: str, *, revision: str = "main", store: str | Path | None = None) -> RunResults:
    """Import a run from a dataset repository of the hub into a store, which is made where there is
    none.
    """
    import toolkit_store
    from toolkit._run.run_folder import store_folder
    from toolkit._share.pull import pull

    folder = store_folder(None if store is None else str(store))
    pulled = pull(toolkit_store.open_store(folder, create=True), repository, revision=revision)
    return open_store(store).run(pulled.run)


@dataclass(frozen=True, repr=False)
class StoreResults:
    """All runs of a store, for reading."""

    features_of: Features

    def runs(self) -> pl.DataFrame:
        """One row per run, the newest first."""
        from toolkit._query.answers import runs_frame

        return runs_frame(self.features_of.runs())

    def run(self, prefix: str | None = None) -> RunResults:
        """The run whose id begins with `prefix`; by default the newest."""
        from toolkit._query.run import run_of
        from toolkit._run.run_folder import find_run
        from toolkit.errors import BadInput

        states = self.features_of.runs()
        if prefix is None and not states:
            raise BadInput(f"{self.features_of.store.uri} holds no runs yet.")
        store, recorded = self.features_of.store, [row.run for row in states]
        name = recorded[-1] if prefix is None else find_run(store.folder, prefix, recorded)
        return RunResults(run_of(store, name, states))

    def sql(self, statement: str, k: int | None = None) -> pl.DataFrame:
        """One SELECT over the tables of all runs together; each table has a column `run`."""
        return self.features_of.sql_of_all(statement, k)

    def search(self, text: str, k: int = 50) -> pl.DataFrame:
        """Features of all runs whose address, label, words or promoted tokens have `text` in
        them, at most `k` of each run.
        """
        import polars as pl

        from toolkit._query.answers import frame

        parts = [
            run.search(text, k).select(pl.lit(run.id).alias("run"), pl.all())
            for run in map(self.run, self.runs()["run"])
        ]
        return pl.concat(parts) if parts else frame([], ("run", "address", "match", "text"))

    def __repr__(self) -> str:
        return f"<store {self.features_of.store.uri}>"

    def _repr_html_(self) -> str:
        return table_html(self.runs(), f"Runs in {self.features_of.store.uri}")


@dataclass(frozen=True, repr=False)
class RunResults:
    """The committed results of one run."""

    query: Run

    @property
    def id(self) -> str:
        """The id of the run."""
        return self.query.id

    @property
    def report(self) -> Path:
        """The path of its report."""
        from toolkit._run.run_folder import REPORT, run_folder

        return run_folder(self.query.folder, self.id) / REPORT

    @cached_property
    def findings(self) -> Sequence[Finding]:
        """Its main results in sentences, as its report opens with them."""
        from toolkit._plugins.loading import load_parts
        from toolkit._report.findings import findings_of
        from toolkit._run.inputs import StoreInputs

        return findings_of(StoreInputs(self.query.store, {"": self.query.steps}), load_parts())

    def features(
        self,
        *,
        layer: int | None = None,
        stage: str | None = None,
        by: str | None = None,
        significant: bool = False,
        every_stat: bool = False,
        k: int = 20,
    ) -> pl.DataFrame:
        """One row per feature and comparison, ranked and with the columns of `toolkit query
        features`; with `every_stat`, those of its `--json`.
        """
        from toolkit._query import answers

        return answers.features(
            self.query,
            spaces=self.query.spaces_of(None, layer),
            stage=stage,
            by=by,
            significant=significant,
            every_stat=every_stat,
            k=k,
        )

    def feature(self, address: str) -> FeatureResults:
        """One feature, by its address."""
        space, index = self.query.feature(address)
        return FeatureResults(self.query, space, index)

    def top(self, address: str, k: int = 20) -> pl.DataFrame:
        """The largest values of a feature: sample, position, token, value, unit, text."""
        return self.feature(address).top(k)

    def sample(self, sample: str) -> SampleResults:
        """One sample, by its id."""
        self.query.sample(sample)
        return SampleResults(self.query, sample)

    def effects(
        self, address: str | None = None, arm: str | None = None, *, samples: bool = False
    ) -> pl.DataFrame:
        """What interventions did, most certain first: summaries over samples, or single samples."""
        from toolkit._query import answers

        where: dict[str, list[Any]] = {} if arm is None else {"arm": [arm]}
        if address is not None:
            space, index = self.query.feature(address)
            where |= {"space": [space], "feature": [index]}
        return answers.effects(self.query, where, samples=samples)

    def verdicts(self) -> pl.DataFrame:
        """What was concluded about screened features, most certain first."""
        from toolkit._query import answers

        return answers.verdicts(self.query, {})

    def search(self, text: str, k: int = 50) -> pl.DataFrame:
        """Features whose address, label, words or promoted tokens have `text` in them."""
        from toolkit._query import answers

        return answers.search(self.query, text, k)

    def push(self, repository: str, *, revision: str | None = None, public: bool = False) -> str:
        """Upload the run to a dataset repository of the hub, private unless `public`; returns the
        commit.
        """
        from toolkit._share.push import push

        return push(self.query, repository, revision=revision, public=public).commit

    def sql(self, statement: str, k: int | None = None) -> pl.DataFrame:
        """One SELECT over the tables of the run."""
        return self.query.view.sql(statement, k)

    def __repr__(self) -> str:
        return f"<run {self.id}>"

    def _repr_html_(self) -> str:
        import polars as pl

        state, manifest = self.query.state, self.query.manifest
        question = (manifest.get("spec") or {}).get("question")
        head = f"<p><b>{safe(self.id)}</b> · {safe(state.name)} · {safe(state.state)}</p>"
        paragraph = f"<p>{safe(question)}</p>" if question else ""
        items = "".join(f"<li>{safe(finding.sentence)}</li>" for finding in self.findings)
        counts: dict[str, int] = {}
        for step in self.query.steps:
            for name, rows in step.tables.items():
                counts[name] = counts.get(name, 0) + rows
        tables = pl.DataFrame({"table": list(counts), "rows": list(counts.values())})
        return f"{head}{paragraph}<ul>{items}</ul>{table_html(tables)}"


@dataclass(frozen=True, repr=False)
class FeatureResults:
    """One feature of a run."""

    query: Run
    space: str
    index: int

    @property
    def address(self) -> str:
        """Its shortest address that commands accept."""
        return self.query.label(self.space, self.index)

    @property
    def label(self) -> str | None:
        """Its label; None if it has none."""
        labels = self.query.view.labels(self.space, [self.index])
        return None if labels.is_empty() else str(labels["label"][0])

    def top(self, k: int = 20) -> pl.DataFrame:
        """Its largest values: sample, position, token, value, unit, text."""
        from toolkit._query import answers

        return answers.top(self.query, self.space, self.index, k)

    def effects(self) -> pl.DataFrame:
        """What interventions on it did: every arm and outcome, over all samples."""
        from toolkit._query import answers

        where: dict[str, list[Any]] = {"space": [self.space], "feature": [self.index]}
        return answers.effects(self.query, where)

    def __repr__(self) -> str:
        return f"<feature {self.address} of run {self.query.id}>"

    def _repr_html_(self) -> str:
        title = f"<p><b>{safe(self.address)}</b> of run {safe(self.query.id)}</p>"
        label = f"<p>{safe(self.label)}</p>" if self.label else ""
        texts = "".join(self._text(sample) for sample in self._top_samples())
        effects = self.effects()
        causes = table_html(effects, "Effects") if effects.height else ""
        return f"{title}{label}{texts}{causes}"

    def _top_samples(self) -> list[str]:
        hits = self.query.view.top(self.space, self.index, 5)
        return list(dict.fromkeys(hits["sample"]))

    def _text(self, sample: str) -> str:
        tokens = self.query.view.tokens(self.space, self.index, sample)
        shaded = tokens_html(tokens["piece"].to_list(), tokens["value"].to_list())
        return f"<p><code>{safe(sample)}</code></p>{shaded}"


@dataclass(frozen=True, repr=False)
class SampleResults:
    """One sample of a run."""

    query: Run
    sample: str

    @property
    def text(self) -> str:
        """What the model read."""
        return str(self.query.sample(self.sample)["text"])

    def active(self, position: int | None = None) -> pl.DataFrame:
        """The features that are active on it, at one token or at all tokens, the strongest
        first.
        """
        from toolkit._query import answers

        pieces = self.query.sample(self.sample)["pieces"]
        answers.check_position(self.sample, pieces, position)
        return answers.active(self.query, pieces, self.query.view.sample(self.sample, position))

    def __repr__(self) -> str:
        return f"<sample {self.sample} of run {self.query.id}>"

    def _repr_html_(self) -> str:
        head = f"<p><b>{safe(self.sample)}</b> of run {safe(self.query.id)}</p>"
        pieces = self.query.sample(self.sample)["pieces"]
        return head + tokens_html(pieces, [None] * len(pieces)) + table_html(self.active())
