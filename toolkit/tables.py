"""The tables that stages exchange and that the store keeps, all declared here: this module is data.
The host owns the tables; adding a column is a new version.

A table is a name, a version, its columns and the columns that make a row unique. Types are written
as Arrow type names, so that importing this module needs no pyarrow; `arrow_schema` builds the Arrow
schema on demand. In the store every data table has one more column, `step`: the key of the step
that wrote the row. Rows whose step is not in the ledger are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from toolkit.errors import BadInput, choices, nearest

if TYPE_CHECKING:
    import pyarrow as pa

STORE_FORMAT = 1
"""Version of the set of tables. A store of another version is refused."""


@dataclass(frozen=True)
class Table:
    """One table: `columns` maps a name to an Arrow type; a trailing `?` allows null.

    `facts`: rows describe something, so several steps may write the same row; it is read once.
    `derived`: the store builds the rows from other tables and can rebuild them.
    """

    name: str
    columns: Mapping[str, str]
    key: tuple[str, ...]
    version: int = 1
    help: str = ""
    ledger: bool = False
    facts: bool = False
    derived: bool = False

    @property
    def shared(self) -> bool:
        """Whether a row that several steps write is stored once: its key is an id derived from its
        content.
        """
        return self.facts and len(self.key) == 1


def _table(name: str, key: str, help: str, kind: str = "data", /, **columns: str) -> Table:
    kinds = {"ledger": kind == "ledger", "facts": kind == "facts", "derived": kind == "derived"}
    return Table(name, MappingProxyType(columns), tuple(key.split()), 1, help, **kinds)


_SCREEN_COLUMNS = dict(
    screen="string",
    space="string",
    feature="uint32",
    comparison="string",
    contrast="string",
    outcome="string",
    group_a="string",
    group_b="string",
    value_a="float64",
    value_b="float64",
    d="float64?",
    fired="uint32",
    fired_here="uint32",
    points="uint32",
    clusters="uint32",
    probability="float64",
    effect="float64",
    low="float64",
    high="float64",
    p_units="float64",
    null="string?",
    directions="uint32",
    beyond="uint32?",
    null_low="float64?",
    null_high="float64?",
    p_directions="float64?",
    kl="float64",
    sham="float64",
    set_a="float64",
    set_b="float64",
    reconstruct="float64?",
    reconstruct_a="float64?",
    reconstruct_b="float64?",
    p_reconstruct="float64?",
    random_feature="float64?",
    random_direction="float64?",
    shuffled="float64?",
    mean_difference="float64?",
    prompt_only="float64?",
    edits="uint64",
    family="uint32",
    checked="uint32",
)
"""Columns of `screens` and of the screen of its control."""
_VERDICT_COLUMNS = dict(
    screen="string",
    space="string",
    feature="uint32",
    comparison="string",
    contrast="string",
    outcome="string",
    verdict="string",
    reason="string",
    effect="float64",
    low="float64",
    high="float64",
    p="float64",
    q="float64",
    family="uint32",
)
"""Columns of `verdicts` and of those on its control."""

_ALL = (
    _table(
        "samples",
        "sample",
        "one prompt, sentence or decision",
        sample="string",
        unit="string",
        cluster="string",
        text="string",
        token_ids="list<uint32>",
        pieces="list<string>",
        spans="list<struct<name:string,start:uint32,end:uint32>>",
        prompt_hash="string",
        bos="bool?",
    ),
    _table(
        "sample_meta",
        "sample key",
        "metadata of a sample, one row per key",
        sample="string",
        key="string",
        number="float64?",
        string="string?",
    ),
    _table(
        "activations",
        "space sample position",
        "sparse feature activations, by sample",
        space="string",
        sample="string",
        position="int32",
        features="list<uint32>",
        values="list<float32>",
    ),
    _table(
        "streams",
        "space sample position",
        "the raw stream, if an extraction keeps it; its space is the stream's, not an SAE's",
        space="string",
        sample="string",
        position="int32",
        hookpoint="string",
        values="list<float32>",
    ),
    _table(
        "postings",
        "space feature block",
        "the entries of `activations` by feature, in blocks of at most 65,536; samples "
        "by their number in `sample_index`",
        "derived",
        space="string",
        feature="uint32",
        block="uint32",
        place="int64",
        count="uint32",
        fired="uint32",
        max="float32",
        samples="list<uint32>",
        positions="list<int32>",
        values="list<float32>",
    ),
    _table(
        "feature_index",
        "space block",
        "how often each feature of a space fired: entries, samples, largest value; and "
        "how many positions and samples were measured",
        "derived",
        space="string",
        block="uint32",
        looked_at="uint64",
        samples="uint64",
        features="list<uint32>",
        counts="list<uint64>",
        fired="list<uint32>",
        maxima="list<float32>",
    ),
    _table(
        "sample_index",
        "number",
        "the numbers that `postings` has for samples",
        "derived",
        number="uint32",
        sample="string",
        unit="string?",
    ),
    _table(
        "projections",
        "space first",
        "compact decoder directions, for `similar` without the SAE files: bytes per feature, "
        "from the feature `first`",
        "derived",
        space="string",
        first="uint32",
        dims="uint32",
        directions="list<int8>",
    ),
    _table(
        "comparisons",
        "comparison",
        "one comparison: groups with their sizes, test, half, positions, family and correction; "
        "stages that compare the same share it, so it names no stage",
        comparison="string",
        part="string",
        test="string",
        by="string",
        effect="string",
        groups="list<struct<name:string,samples:uint32,units:uint32,prompts:uint32,"
        "clusters:uint32,not_measured:uint32,shared:uint32>>",
        half="string",
        positions="string",
        unit="string",
        cluster="string",
        family="string",
        tested="list<struct<space:string,address:string,features:uint32>>",
        min_count="uint32",
        min_density="float64",
        correction="string",
        alpha="float64",
        min_effect="float64",
        adjusted="string",
        seed="uint64?",
    ),
    _table(
        "features",
        "space feature stat group comparison",
        "statistics per feature: density, moments per group, tests, labels; `comparison` is null "
        "in rows that no comparison wrote",
        space="string",
        feature="uint32",
        stat="string",
        group="string",
        number="float64?",
        text="string?",
        comparison="string?",
    ),
    _table(
        "effects",
        "screen space feature sample arm outcome",
        "the effect of an intervention, with its interval and side effect; `screen` "
        "distinguishes two screens of one run",
        screen="string",
        space="string",
        feature="uint32",
        sample="string",
        arm="string",
        outcome="string",
        probability="float64",
        effect="float64?",
        low="float64?",
        high="float64?",
        p="float64?",
        q="float64?",
        kl="float64?",
    ),
    _table(
        "screens",
        "screen space feature comparison outcome",
        "one screened feature: its specific effect over all decision points, what random "
        "directions do there, and its control arms",
        **_SCREEN_COLUMNS,
    ),
    _table(
        "control_screens",
        "screen space feature comparison outcome",
        "the features of a screen with random decoder rows: the columns of `screens`, with "
        "the same `screen`",
        **_SCREEN_COLUMNS,
    ),
    _table(
        "verdicts",
        "screen space feature comparison outcome",
        "the verdict on a screened feature, with its reason and its p-value corrected over the "
        "declared family",
        **_VERDICT_COLUMNS,
    ),
    _table(
        "control_verdicts",
        "screen space feature comparison outcome",
        "the verdict on a feature with a random decoder row, by the same rules",
        **_VERDICT_COLUMNS,
    ),
    _table(
        "paired_games",
        "arm outcome",
        "games under an intervention paired with the same games without it: how often "
        "each outcome occurs",
        arm="string",
        outcome="string",
        pairs="uint32",
        changed="uint32",
        unpatched="float64",
        patched="float64",
        difference="float64",
        low="float64",
        high="float64",
        p="float64",
        q="float64",
        null_arms="uint32",
        beyond="uint32?",
        p_null="float64?",
    ),
    _table(
        "gradient_effects",
        "space feature comparison outcome method",
        "a screened feature's specific effect as estimated by a gradient, and the exact one",
        space="string",
        feature="uint32",
        comparison="string",
        outcome="string",
        method="string",
        estimate="float64",
        exact="float64",
    ),
    _table(
        "joint_effects",
        "name arm outcome",
        "several features changed together, against the sum of what each does alone",
        name="string",
        members="list<struct<space:string,feature:uint32>>",
        contrast="string",
        arm="string",
        outcome="string",
        effect="float64",
        low="float64",
        high="float64",
        p="float64",
        q="float64?",
        sets="uint32",
        beyond="uint32?",
        p_sets="float64?",
        points="uint32",
        clusters="uint32",
    ),
    _table(
        "feature_doses",
        "space feature comparison outcome dose",
        "a feature set to a dose, in multiples of the larger group mean: probabilities over all "
        "decision points",
        space="string",
        feature="uint32",
        comparison="string",
        contrast="string",
        outcome="string",
        dose="float64",
        value="float64",
        probability="float64",
        effect="float64",
        low="float64",
        high="float64",
    ),
    _table(
        "feature_dose_tests",
        "space feature comparison outcome",
        "whether an outcome rises with a feature's dose, and the feature's specific effect at "
        "decisions that the screen did not use",
        space="string",
        feature="uint32",
        comparison="string",
        contrast="string",
        outcome="string",
        effect="float64",
        low="float64",
        high="float64",
        p="float64",
        q="float64",
        tau="float64",
        p_tau="float64",
        q_tau="float64",
        monotone="bool",
        observed="float64?",
        points="uint32",
        clusters="uint32",
    ),
    _table(
        "doses",
        "axis layers direction dose outcome",
        "a stream moved along a direction by a dose: probabilities over all decision points",
        axis="string",
        layers="string",
        direction="string",
        dose="float64",
        outcome="string",
        probability="float64",
        effect="float64",
        low="float64",
        high="float64",
        kl="float64",
    ),
    _table(
        "dose_tests",
        "axis layers outcome",
        "whether an outcome rises with the dose along an axis, and more than along random "
        "directions",
        axis="string",
        layers="string",
        outcome="string",
        slope="float64",
        low="float64",
        high="float64",
        p_units="float64",
        directions="uint32",
        beyond="uint32",
        z="float64?",
        p_directions="float64",
        monotone="bool",
        tau="float64",
        p_tau="float64",
        points="uint32",
        clusters="uint32",
    ),
    _table(
        "baselines",
        "contrast kind name metric",
        "how well a label is predicted without the selected features: by metadata, a probe or a "
        "difference of means, and by chance; `groups` has the sizes of both groups, `separates` "
        "says whether it separates them perfectly",
        contrast="string",
        kind="string",
        name="string",
        metric="string",
        value="float64?",
        low="float64?",
        high="float64?",
        chance="float64?",
        folds="uint32?",
        groups="string?",
        separates="bool?",
        text="string?",
    ),
    _table(
        "trajectories",
        "space feature group against stat",
        "a tracked feature in one group of units, or between two (`group` and `against`): mean, "
        "d or loading, with its interval; `chosen` where it was picked for its d on these very "
        "units, `withheld` says why there is no p and q",
        space="string",
        feature="uint32",
        group="string",
        against="string?",
        stat="string",
        value="float64?",
        low="float64?",
        high="float64?",
        p="float64?",
        q="float64?",
        chosen="bool?",
        withheld="string?",
        text="string?",
    ),
    _table(
        "traces",
        "space feature sample",
        "a tracked feature at one decision of one unit; 0 where it was off",
        space="string",
        feature="uint32",
        sample="string",
        unit="string",
        decision="uint32",
        value="float64",
    ),
    _table(
        "links",
        "space feature other_space other_feature",
        "two features of different spaces that are correlated over units",
        space="string",
        feature="uint32",
        other_space="string",
        other_feature="uint32",
        r="float64",
        low="float64?",
        high="float64?",
        p="float64?",
        q="float64?",
        units="uint32",
        text="string?",
    ),
    _table(
        "signatures",
        "sample component",
        "a decision in a few numbers: its scores on the principal components of the "
        "tracked features",
        sample="string",
        unit="string",
        component="uint32",
        score="float64",
        share="float64",
    ),
    _table(
        "attention",
        "model sample layer head query",
        "the attention of one query (a position) in one head: `weights[i]` goes to the key "
        "position `keys[i]`, or to i where `keys` is null; `rest` is the total weight of the "
        "keys left out",
        model="string",
        sample="string",
        layer="int32",
        head="int32",
        query="int32",
        keys="list<uint32>?",
        weights="list<float16>",
        rest="float32",
    ),
    _table(
        "attributions",
        "sample against outcome method part layer position head space feature",
        "one part of an attribution: what a token, head, block, feature or SAE error "
        "contributes to an outcome; `exact` is the change from patching this part alone from the "
        "sample `against`; `attention` is what the last token pays to a token, as the mean of "
        "heads, and `norm` the norm of its features",
        sample="string",
        against="string",
        outcome="string",
        method="string",
        part="string",
        layer="int32?",
        position="int32?",
        head="int32?",
        space="string?",
        feature="uint32?",
        value="float64",
        exact="float64?",
        attention="float64?",
        norm="float64?",
    ),
    _table(
        "attribution_checks",
        "sample against outcome method part layer space",
        "whether the parts of an attribution add up to the measured change, and how well "
        "they agree with exact patching of the same parts",
        sample="string",
        against="string",
        outcome="string",
        method="string",
        part="string",
        layer="int32?",
        space="string?",
        total="float64",
        measured="float64?",
        compared="uint32",
        r="float64?",
        rank_r="float64?",
        same_sign="float64?",
    ),
    _table(
        "paths",
        "path hop sample",
        "one hop of a traced path: its strength by gradient, what an intervention does, and the "
        "verdict; the sample `*` stands for all samples together",
        path="string",
        hop="uint32",
        sample="string",
        upper="string",
        lower="string",
        position="int32?",
        strength="float64?",
        parts="float64?",
        whole="float64?",
        effect="float64?",
        low="float64?",
        high="float64?",
        p="float64?",
        q="float64?",
        units="uint32",
        verdict="string",
    ),
    _table(
        "path_parts",
        "path hop sample part position",
        "what each position contributes to a hop, and the other inputs of its upper end: "
        "other features of the layer, the SAE's error and constants",
        path="string",
        hop="uint32",
        sample="string",
        part="string",
        position="int32?",
        value="float64",
    ),
    _table(
        "span_contrasts",
        "statistic span layer group",
        "a statistic of a span at a layer: the mean of each group of samples, and their difference "
        "with its interval",
        statistic="string",
        span="string",
        layer="int32",
        group="string",
        value="float64?",
        low="float64?",
        high="float64?",
        p="float64?",
        q="float64?",
        units="uint32",
        text="string?",
    ),
    _table(
        "promoted_tokens",
        "space feature method",
        "tokens that the decoder row of a feature promotes or suppresses, the strongest "
        "first: `unembedding` "
        "(logit less the mean over the vocabulary, final norm folded in) or `input_embedding` "
        "(cosine, as published)",
        space="string",
        feature="uint32",
        method="string",
        promoted="list<uint32>",
        promoted_pieces="list<string>",
        promoted_values="list<float32>",
        suppressed="list<uint32>",
        suppressed_pieces="list<string>",
        suppressed_values="list<float32>",
    ),
    _table(
        "feature_words",
        "space feature method word",
        "a word of replies associated with a feature: selected in the select half "
        "(value, z, p, and q over the whole family) and tested again in the confirm half; "
        "`covariate` is the metadata number most associated with the word, by the same z",
        space="string",
        feature="uint32",
        method="string",
        word="string",
        value="float64",
        z="float64?",
        p="float64?",
        q="float64?",
        high="float64",
        low="float64",
        high_clusters="uint32",
        low_clusters="uint32",
        confirm_value="float64?",
        confirm_z="float64?",
        confirm_p="float64?",
        confirm_q="float64?",
        covariate="string?",
        covariate_z="float64?",
        family="uint64",
        verdict="string",
    ),
    _table(
        "feature_contexts",
        "space feature rank",
        "the strongest activations of a feature: the token and the surrounding text",
        space="string",
        feature="uint32",
        rank="uint32",
        sample="string",
        position="int32",
        value="float64",
        before="string",
        piece="string",
        after="string",
    ),
    _table(
        "cross_references",
        "space feature relation",
        "how well two descriptions of a feature (label, words, tokens, effect), or a "
        "description and where it fires, agree compared with shuffles; the feature is null in "
        "the row for all features of a space",
        space="string",
        feature="uint32?",
        relation="string",
        score="float64?",
        baseline="float64?",
        p="float64?",
        q="float64?",
        n="uint32",
        text="string?",
    ),
    _table(
        "games",
        "game",
        "one played game and how it ended; under an intervention `arm` names it and `pair` the "
        "same game without it",
        game="string",
        condition="string",
        repetition="uint32",
        outcome="string",
        rounds="uint32",
        final_balance="float64?",
        total_bet="float64",
        arm="string?",
        null_arm="bool?",
        pair="string?",
        meta="string",
    ),
    _table(
        "rounds",
        "game round attempt",
        "one reply: the exact prompt, the whole reply, how it was parsed and what followed",
        game="string",
        round="uint32",
        attempt="uint32",
        prompt="string",
        prompt_hash="string",
        spans="list<struct<name:string,start:uint32,end:uint32>>",
        state="string",
        state_hash="string",
        numbers="string",
        reply="string",
        reply_ids="list<uint32>",
        close_draws="uint32",
        finish="string",
        parse="string",
        action="string",
        asked="float64?",
        bet="float64?",
        balance_before="float64?",
        balance_after="float64?",
        won="bool?",
    ),
    _table(
        "measures",
        "measure subject scope condition",
        "a measure of played games: a rate, a mean, an effect or a count, with its interval; "
        "`scope` says over which games (`all`, those of a `level` of a group, of a `combination` "
        "of levels, or of one `condition`), `condition` names them and `title` names them for "
        "people",
        measure="string",
        subject="string",
        scope="string",
        condition="string",
        title="string",
        value="float64?",
        low="float64?",
        high="float64?",
        p="float64?",
        q="float64?",
        n="uint32",
        event="bool?",
        text="string?",
    ),
    _table(
        "spaces",
        "space",
        "model@revision, hookpoint, SAE file hash and recipe behind a space id",
        "facts",
        space="string",
        model="string",
        revision="string",
        hookpoint="string",
        sae="string?",
        sae_hash="string?",
        recipe="string",
        width="uint32",
        address="string",
    ),
    _table(
        "saes",
        "space site",
        "examination of an SAE: measured against declared values",
        "facts",
        space="string",
        site="string",
        l0="float64?",
        declared_l0="float64?",
        explained_variance="float64?",
        cosine="float64?",
        dead_share="float64?",
        tokens="uint64",
        verdict="string",
        message="string",
    ),
    _table(
        "steps",
        "key",
        "the ledger: a step's rows count only if the step has a row here",
        "ledger",
        key="string",
        experiment="string",
        stage="string",
        part="string",
        part_version="string",
        run="string",
        index="uint32",
        first="int64?",
        last="int64?",
        material="string",
        tables="string",
        worker="string",
        seconds="float64",
        committed_at="string",
        origin="string",
        shared="string",
    ),
    _table(
        "runs",
        "run seq",
        "the ledger of runs: one row per change of state",
        "ledger",
        run="string",
        seq="uint32",
        name="string",
        state="string",
        at="string",
        done="uint32",
        total="uint32?",
        note="string",
        steps="string",
        pid="int64",
        host="string",
    ),
)

TABLES: Mapping[str, Table] = MappingProxyType({table.name: table for table in _ALL})
DATA_TABLES: tuple[str, ...] = tuple(table.name for table in _ALL if not table.ledger)


def table(name: str) -> Table:
    """The table of that name, or an error naming those that exist."""
    if name not in TABLES:
        raise BadInput(
            f"There is no table '{name}'.{nearest(name, TABLES)} Tables: {choices(TABLES)}."
        )
    return TABLES[name]


@lru_cache
def arrow_schema(name: str, *, step: bool = False) -> pa.Schema:
    """The Arrow schema of a table; with `step`, as the store keeps it."""
    import pyarrow as pa

    columns = table(name).columns
    fields = [
        pa.field(column, _arrow_type(kind.rstrip("?")), nullable=kind.endswith("?"))
        for column, kind in columns.items()
    ]
    if step:
        fields.append(pa.field("step", pa.string(), nullable=False))
    return pa.schema(fields)


def list_column(offsets: Any, values: Any, kind: pa.ListType) -> pa.Array:
    """A list column; `offsets` say where each list begins and where the last one ends."""
    import pyarrow as pa

    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values), type=kind)


def written(number: float) -> str:
    """A number of `sample_meta` as a spec writes the name of a group: whole numbers without a
    decimal point.
    """
    return f"{int(number)}" if float(number).is_integer() else repr(float(number))


def _arrow_type(kind: str) -> pa.DataType:
    import pyarrow as pa

    if kind.startswith("list<"):
        return pa.list_(pa.field("item", _arrow_type(kind[5:-1]), nullable=False))
    if kind.startswith("struct<"):
        parts = (part.split(":") for part in kind[7:-1].split(","))
        return pa.struct(
            [pa.field(name, _arrow_type(child), nullable=False) for name, child in parts]
        )
    simple: pa.DataType = getattr(pa, {"bool": "bool_"}.get(kind, kind))()
    return simple
