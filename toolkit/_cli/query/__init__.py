"""`toolkit query`: what the committed tables of a run say about a feature, a sample, a comparison
or an intervention.

Rows are filtered and ordered as Arrow, a batch of steps at a time; only the rows that are shown
become Python objects.
"""

from __future__ import annotations

import click

from toolkit._cli.query import activations, runs, single_tokens, statistics, words


@click.group("query")
def command() -> None:
    """Look up features, samples, comparisons and effects of a run, also while it runs.

    ADDRESS is 25/2059, L25-2059, L25#2059, 25:2059, Neuronpedia's model/source/2059 or
    model/hookpoint/sae:2059.
    """


for _command in (
    activations.top,
    activations.tokens,
    activations.coactive,
    activations.similar,
    activations.sample,
    runs.diff,
    runs.sql,
    statistics.features,
    statistics.verdicts,
    statistics.effects,
    words.words,
    words.label,
    single_tokens.feature,
    single_tokens.attention,
    single_tokens.attribution,
):
    command.add_command(_command)
