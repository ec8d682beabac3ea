"""SAEs read in turn by an extraction: host memory and speed. Stand-in: Llama Scope's original
layout, random bfloat16 weights.

    python benchmarks/loading.py [--layers 31] [--width 32768] [--inputs 4096] [--rows 128] [--ways
    read ours] [--cold] [--folder DIR]

At full size the files take 16.6 GB of disk below `--folder` (a temporary folder unless given; files
of an earlier run are used again). Each way runs in a process of its own: `read` reads the files and
does nothing (the limit of the disk or the page cache); `load_file` is safetensors' own loading with
every number looked at once, still bfloat16; `product` multiplies the rows with a float32 encoder
that is in memory (the limit of the processor; its memory includes the matrix); `naive` makes
float32 of everything, folds, and multiplies; `ours` is `extract.activations` over the adapter's
SAEs. Peaks are above what the process had after a first run over a tiny SAE: `anonymous` is memory
of its own, `mapped` are pages of files, which processes share and the system may take back.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

WEIGHTS = "checkpoints/final.safetensors"
THRESHOLD = 2.96
"""Of normal numbers 0.15 % are larger: about 50 of 32,768."""


# --- files ----------------------------------------------------------------------------------------


def write(root: Path, layers: int, inputs: int, width: int) -> None:
    """One folder a layer; all hold the same numbers, in files of their own."""
    for layer in range(1, layers + 1):
        folder = root / f"Stand-In-L{layer}R-8x"
        if not (folder / "hyperparams.json").exists():
            (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
            if layer == 1:
                _write_weights(folder / WEIGHTS, inputs, width)
            else:
                shutil.copyfile(root / "Stand-In-L1R-8x" / WEIGHTS, folder / WEIGHTS)
            (folder / "hyperparams.json").write_text(json.dumps(_hyperparams(layer, inputs, width)))
    os.sync()


def _must_fit(folder: Path, needed: int) -> None:
    """Stop if the disk has no room for the files. Files that exist already are not counted."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free + sum(
        file.stat().st_size for file in folder.rglob("*") if file.is_file()
    )
    if needed > free:
        raise SystemExit(
            f"{needed / 1e9:.1f} GB are needed at {folder}, {free / 1e9:.1f} GB are free: fewer "
            "--layers, or --folder elsewhere."
        )


def _write_weights(file: Path, inputs: int, width: int) -> None:
    import torch
    from safetensors.torch import save_file

    draw = torch.Generator().manual_seed(0)
    shapes = {
        "encoder.weight": (width, inputs),
        "encoder.bias": (width,),
        "decoder.weight": (inputs, width),
        "decoder.bias": (inputs,),
    }
    made = {
        name: (torch.randn(*shape, generator=draw) * inputs**-0.5).bfloat16()
        for name, shape in shapes.items()
    }
    save_file(made, file)


def _hyperparams(layer: int, inputs: int, width: int) -> dict[str, Any]:
    return {
        "hook_point_in": f"blocks.{layer}.hook_resid_post",
        "hook_point_out": f"blocks.{layer}.hook_resid_post",
        "d_model": inputs,
        "d_sae": width,
        "act_fn": "jumprelu",
        "jump_relu_threshold": THRESHOLD,
        "dataset_average_activation_norm": {"in": inputs**0.5, "out": inputs**0.5},
        "top_k": 50,
    }


def drop(files: Sequence[Path]) -> None:
    """Evict files from the page cache, as far as the system allows."""
    for file in files:
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# --- ways -----------------------------------------------------------------------------------------


def read(root: Path, rows: Any) -> int:
    """The files' bytes."""
    into = bytearray(1 << 20)
    for file in files_of(root):
        with file.open("rb", buffering=0) as opened:
            while opened.readinto(into):
                pass
    return 0


def load_file(root: Path, rows: Any) -> int:
    """safetensors' own loading; each number is looked at once."""
    from safetensors.torch import load_file

    for file in files_of(root):
        for tensor in load_file(file).values():
            tensor.aminmax()
    return 0


def product(root: Path, rows: Any) -> int:
    """The rows times one float32 encoder in memory, once per file: the work that no way avoids."""
    import torch

    files = files_of(root)
    known = json.loads((files[0].parents[1] / "hyperparams.json").read_text())
    matrix = torch.full((known["d_sae"], known["d_model"]), 0.01)
    for _ in files:
        rows @ matrix.T
    return 0


def naive(root: Path, rows: Any) -> int:
    """Everything in float32, folded, dense."""
    from safetensors.torch import load_file

    found = 0
    for file in files_of(root):
        raw = {name: tensor.float() for name, tensor in load_file(file).items()}
        lengths = raw["decoder.weight"].norm(dim=0)
        w_enc, w_dec = (
            (raw["encoder.weight"].T * lengths).contiguous(),
            (raw["decoder.weight"] / lengths).T.contiguous(),
        )
        z = rows @ w_enc + raw["encoder.bias"] * lengths
        found += len((z * (z > THRESHOLD)).nonzero())
        del raw, w_enc, w_dec, z
    return found


def ours(root: Path, rows: Any) -> int:
    """The toolkit's extraction."""
    import pyarrow as pa

    from toolkit.tables import arrow_schema
    from toolkit.testing.fakes import SilentReporter, make_work
    from toolkit_saes import toolkit_parts

    parts = {part.name: part for part in toolkit_parts()}
    adapter: Any = parts["llama_scope"]
    extract: Any = parts["extract.activations"]
    saes = adapter.load(adapter.params(path=str(root)), SilentReporter())
    samples = [
        {name: None for name in arrow_schema("samples").names} | _sample(at)
        for at in range(len(rows))
    ]
    tables = {"samples": pa.Table.from_pylist(samples, schema=arrow_schema("samples"))}
    work = make_work(extract.params(), tables, model=_rows_as_model(rows), saes=saes)
    return sum(
        len(row)
        for name, table in extract.run(work)
        if name == "activations"
        for row in table["features"].to_pylist()
    )


def _sample(at: int) -> dict[str, Any]:
    return {
        "sample": f"s{at:05d}",
        "unit": f"s{at:05d}",
        "cluster": "c",
        "text": "t",
        "token_ids": [at + 1],
    } | {
        "pieces": ["t"],
        "spans": [],
        "prompt_hash": "h",
    }


def _rows_as_model(rows: Any) -> Any:
    """Stands in for a model: token n has row n - 1 at every hookpoint."""
    import torch

    from toolkit.identity import Identity
    from toolkit.models import Model

    class Rows(Model):
        def __init__(self) -> None:
            self.identity, self.layers, self.width = Identity("rows", "0", "0"), 32, rows.shape[1]
            self.context = len(rows) + 1

        def encode(self, text: str, *, chat: bool = False) -> Any:
            raise NotImplementedError

        def decode(self, ids: Sequence[int]) -> str:
            raise NotImplementedError

        def unembed(self, states: Any) -> Any:
            raise NotImplementedError

        def run(
            self, batch: Sequence[Sequence[int]], capture: Sequence[str], edits: Any = ()
        ) -> dict[str, Any]:
            streams = rows[torch.tensor(batch) - 1]
            return dict.fromkeys(capture, streams)

    return Rows()


WAYS: dict[str, Callable[[Path, Any], int]] = {
    "read": read,
    "load_file": load_file,
    "product": product,
    "naive": naive,
    "ours": ours,
}


def files_of(root: Path) -> list[Path]:
    """The weights of every layer."""
    return sorted(root.glob(f"*/{WEIGHTS}"))


# --- measured -------------------------------------------------------------------------------------


class Watch:
    """The most memory that a process had above what it began with, in bytes. Linux only."""

    def __init__(self) -> None:
        self._began = _memory()
        self.peak = dict.fromkeys(self._began, 0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.002):
            for name, now in _memory().items():
                self.peak[name] = max(self.peak[name], now - self._began[name])


def _memory() -> dict[str, int]:
    wanted = {"VmRSS": "total", "RssAnon": "anonymous", "RssFile": "mapped"}
    lines = Path("/proc/self/status").read_text().splitlines()
    pairs = (line.split(":") for line in lines if line.split(":")[0] in wanted)
    return {wanted[name]: int(value.split()[0]) * 1024 for name, value in pairs}


def measure(
    way: str, root: Path, tiny: Path, rows: int, cold: bool, threads: int | None
) -> dict[str, Any]:
    """Run one way in this process: first on a tiny SAE, which loads libraries and allocates
    buffers, then on the files.
    """
    import torch

    if threads:
        torch.set_num_threads(threads)
    inputs = [
        json.loads((folder / "Stand-In-L1R-8x" / "hyperparams.json").read_text())["d_model"]
        for folder in (tiny, root)
    ]
    small, large = (
        torch.randn(rows, size, generator=torch.Generator().manual_seed(1)) for size in inputs
    )
    with torch.inference_mode():
        WAYS[way](tiny, small)
        if cold:
            drop(files_of(root))
        with Watch() as watch:
            started, busy = time.perf_counter(), time.process_time()
            found = WAYS[way](root, large)
            seconds, busy = time.perf_counter() - started, time.process_time() - busy
    return {"way": way, "seconds": seconds, "busy": busy, "found": found, **watch.peak}


def run(
    ways: Sequence[str],
    root: Path,
    tiny: Path,
    rows: int,
    cold: bool = False,
    threads: int | None = None,
) -> list[dict[str, Any]]:
    """Time each way in its own process; idle compute threads sleep, as in the toolkit's workers."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    context = multiprocessing.get_context("spawn")
    found = []
    for way in ways:
        with context.Pool(1) as pool:
            found.append(pool.apply(measure, (way, root, tiny, rows, cold, threads)))
    return found


def main() -> None:
    """Write, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=31)
    parser.add_argument("--width", type=int, default=32_768)
    parser.add_argument("--inputs", type=int, default=4096)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument(
        "--cold", action="store_true", help="put the files out of the page cache before each way"
    )
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root, tiny = (options.folder or Path(temporary)) / "large", Path(temporary) / "tiny"
        write(tiny, 1, 16, 40)
        _must_fit(root.parent, options.layers * options.inputs * options.width * 4)
        write(root, options.layers, options.inputs, options.width)
        size = files_of(root)[0].stat().st_size
        print(
            f"{options.layers} files of {size / 1e6:.0f} MB ({options.inputs} inputs, "
            f"{options.width} features), {options.rows} rows, "
            f"{'cold' if options.cold else 'page cache as it is'}"
        )
        found = run(
            ["read", *(way for way in options.ways if way != "read")],
            root,
            tiny,
            options.rows,
            options.cold,
            options.threads,
        )
        limit = found[0]["seconds"]
        for each in found:
            print(_line(each, options.layers, size, limit))


def _line(each: dict[str, Any], layers: int, size: int, limit: float) -> str:
    speed = layers * size / each["seconds"] / 1e6
    return (
        f"{each['way']:9} {each['seconds'] / layers:7.3f} s a file, {each['busy'] / layers:6.3f} s "
        f"of CPU {speed:7.0f} MB/s {each['seconds'] / limit:6.2f} x read   peak: "
        f"{each['total'] / size:5.2f} files, anonymous {each['anonymous'] / size:5.2f}, mapped "
        f"{each['mapped'] / size:5.2f}   {each['found']:,} found"
    )


if __name__ == "__main__":
    main()
