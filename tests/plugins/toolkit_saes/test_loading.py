"""Weights stay in their files: blocks give what whole matrices give, nothing is copied as float32,
processes share the pages.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import zipfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from toolkit.errors import BadInput, DataError
from toolkit.testing import sae_files as write
from toolkit.testing.fakes import SilentReporter
from toolkit_saes.encode import canonical as _canonical
from toolkit_saes.encode import matrix as _matrix
from toolkit_saes.encode import tensors as _tensors
from toolkit_saes.encode.matrix import Matrix, StoredMatrix, stamp
from toolkit_saes.layouts import gemma_scope as _gemma_scope
from toolkit_saes.layouts import llama_scope as _llama_scope
from toolkit_saes.layouts import saelens as _saelens
from toolkit_saes.layouts.gemma_scope import GemmaScope
from toolkit_saes.layouts.llama_scope import LlamaScope
from toolkit_saes.layouts.saelens import SaeLens

ROWS = write.numbers(9, write.INPUTS, seed=40)
ROOT = Path(__file__).parents[3]
linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is counted in /proc")


def llama(folder: Path, **settings: Any) -> Any:
    write.llama(folder / "x-L3R-8x", **settings)
    return _llama_scope.load(LlamaScope(path=str(folder)), SilentReporter())[0]


def openmoss(folder: Path, **settings: Any) -> Any:
    write.openmoss(folder / "L3R", **settings)
    return _llama_scope.load(LlamaScope(path=str(folder)), SilentReporter())[0]


def gemma(folder: Path, **settings: Any) -> Any:
    write.gemma(folder / "layer_3" / "width_16k" / "average_l0_7" / "params.npz", **settings)
    return _gemma_scope.load(GemmaScope(path=str(folder)), SilentReporter())[0]


def saelens(folder: Path, **settings: Any) -> Any:
    write.saelens(folder / "sae", **settings)
    return _saelens.load(SaeLens(path=str(folder)), SilentReporter())[0]


SAES = {
    "llama": llama,
    "openmoss-2025": lambda folder: openmoss(folder, new=False),
    "openmoss-2026": openmoss,
    "gemma": gemma,
    "saelens": saelens,
    "gated": lambda folder: saelens(folder, architecture="gated"),
    "topk": lambda folder: saelens(folder, architecture="topk"),
}


# --- blocks ---------------------------------------------------------------------------------------


def results(sae: Any) -> list[torch.Tensor]:
    result = sae.encode(ROWS)
    sparse = sae.sparse(ROWS, 4)
    parts = [result, sae.reconstruct(ROWS), sae.decode(result), sae.decoder_rows([3, 0, 10])]
    return [*parts, sparse.counts, sparse.features, sparse.values]


@pytest.mark.parametrize("layout", SAES)
def test_blocks_give_what_the_whole_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    """Whatever the size of a block: of one feature, of some that do not come out even, of all."""
    sae = SAES[layout](tmp_path)
    whole = results(sae)
    assert int(whole[4].sum()) > 20
    for block, dense in ((1, 1), (13, 30), (29, 7), (1 << 20, 1 << 20)):
        monkeypatch.setattr(_matrix, "BLOCK", block)
        monkeypatch.setattr(_canonical, "DENSE", dense)
        sae.release_memory()
        for result, expected in zip(results(sae), whole, strict=True):
            torch.testing.assert_close(result, expected, rtol=0, atol=5e-6)


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    odd=st.integers(0, 5),
    dtype=st.sampled_from(["bfloat16", "float16", "float32", "float64"]),
    turned=st.booleans(),
    scaled=st.booleans(),
    data=st.data(),
)
def test_a_stored_matrix_is_what_it_would_be_in_memory(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int],
    odd: int,
    dtype: str,
    turned: bool,
    scaled: bool,
    data: Any,
) -> None:
    """At even and odd places of a file, by rows and by columns."""
    tensor = torch.randn(*shape, generator=torch.Generator().manual_seed(odd)).to(
        getattr(torch, dtype)
    )
    file = tmp_path_factory.mktemp("stored") / "numbers"
    file.write_bytes(b"\1" * odd + tensor.view(torch.uint8).numpy().tobytes())
    plain = tensor.float().T if turned else tensor.float()
    scale = torch.linspace(0.5, 2, len(plain)) if scaled else None
    plain = plain if scale is None else plain * scale[:, None]
    result = Matrix(StoredMatrix(file, odd, dtype, shape, stamp(file)), turned, scale)
    assert result.shape == tuple(plain.shape)
    chosen = data.draw(st.lists(st.integers(0, len(plain) - 1), max_size=4))
    torch.testing.assert_close(result.rows(chosen), plain[chosen])
    torch.testing.assert_close(result.lengths(), plain.norm(dim=1))
    activations = torch.randn(3, plain.shape[1])
    torch.testing.assert_close(result.into(activations), activations @ plain.T)
    active = torch.randn(3, len(plain)).relu()
    torch.testing.assert_close(result.out_of(active), active @ plain)
    moved = result.on("meta")
    assert isinstance(moved.source, torch.Tensor)
    assert moved.source.dtype == (
        torch.float32 if odd % tensor.itemsize or dtype == "float64" else tensor.dtype
    )


def test_decoding_reads_the_features_that_are_on_only() -> None:
    """NaN times 0 would show."""
    numbers = torch.full((50, 4), float("nan"))
    numbers[[7, 31]] = torch.tensor([[1.0, 2, 3, 4], [5.0, 6, 7, 8]])
    active = torch.zeros(2, 50)
    active[0, 7], active[1, 31] = 2, 3
    assert Matrix(numbers).out_of(active).tolist() == [[2, 4, 6, 8], [15, 18, 21, 24]]
    assert Matrix(numbers).out_of(torch.zeros(2, 50)).tolist() == [[0] * 4] * 2


def test_entries_may_be_more_than_was_thought(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = torch.rand(40, 300) + 0.1
    result = _canonical._ActiveFeatures(dense)
    for first in range(0, 300, 60):
        result.add(dense[:, first : first + 60], 0, first)
    sparse = result.by_row()
    assert sparse.counts.tolist() == [300] * 40
    assert torch.equal(sparse.features.view(40, 300), torch.arange(300).expand(40, 300))
    assert torch.equal(sparse.values.view(40, 300), dense)


# --- what is held ---------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", SAES)
def test_no_matrix_is_held(tmp_path: Path, layout: str) -> None:
    """After all that an SAE does, what it holds are numbers for each feature and places in its
    file.
    """
    sae = SAES[layout](tmp_path)
    results(sae)
    tensors = [getattr(sae.weights(ROWS), field.name) for field in fields(sae.weights(ROWS))]
    matrices = [value for value in tensors if isinstance(value, Matrix)]
    assert len(matrices) == 2
    assert all(isinstance(value.source, StoredMatrix) for value in matrices)
    assert all(value.ndim <= 1 for value in tensors if isinstance(value, torch.Tensor))


def test_bfloat16_goes_to_another_device_as_it_is(tmp_path: Path) -> None:
    tensors = {name: value.bfloat16() for name, value in write.llama(tmp_path / "first").items()}
    sae = llama(tmp_path / "second", tensors=tensors)
    weights = sae.weights(torch.empty(0, device="meta"))
    assert [matrix.source.dtype for matrix in (weights.w_enc, weights.w_dec)] == [
        torch.bfloat16
    ] * 2
    assert weights.b_enc.dtype == torch.float32


def test_a_file_that_changes_while_it_is_used(tmp_path: Path) -> None:
    sae = llama(tmp_path)
    sae.encode(ROWS)
    file = tmp_path / "x-L3R-8x" / "checkpoints" / "final.safetensors"
    tensors = {name: tensor.clone() + 1 for name, tensor in load_file(file).items()}
    os.utime(file, ns=(1, 1))
    with pytest.raises(
        DataError,
        match=r"final\.safetensors has changed since it was checked\. Run "
        r"again, "
        r"and "
        r"leave it as it is",
    ):
        sae.encode(ROWS)
    save_file(tensors, file)
    sae.release_memory()
    assert len(sae.encode(ROWS)) == 9


# --- archives -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["packed", "by columns", "big-endian", "half"])
def test_archives_that_cannot_be_read_where_they_lie(tmp_path: Path, how: str) -> None:
    """They are read into memory, once, and mean the same."""
    arrays = write.gemma(
        tmp_path / "plain" / "layer_3" / "width_16k" / "average_l0_7" / "params.npz"
    )
    arrays = {name: array.astype(np.float16).astype(np.float32) for name, array in arrays.items()}
    expected = gemma(tmp_path / "first", **arrays).encode(ROWS)
    if how == "packed":
        file = tmp_path / "second" / "layer_3" / "width_16k" / "average_l0_7" / "params.npz"
        file.parent.mkdir(parents=True)
        np.savez_compressed(file, **arrays)
        sae = _gemma_scope.load(GemmaScope(path=str(tmp_path / "second")), SilentReporter())[0]
    else:
        change = {
            "by columns": np.asfortranarray,
            "big-endian": lambda a: a.astype(">f4"),
            "half": lambda a: a.astype("<f2"),
        }
        sae = gemma(
            tmp_path / "second", **{name: change[how](array) for name, array in arrays.items()}
        )
    assert isinstance(
        sae.weights(ROWS).w_enc.source, StoredMatrix if how == "half" else torch.Tensor
    )
    assert torch.equal(sae.encode(ROWS), expected)


def test_an_archive_with_another_checksum(tmp_path: Path) -> None:
    gemma(tmp_path, inputs=600)
    (file,) = tmp_path.rglob("params.npz")
    with zipfile.ZipFile(file) as archive:
        result = archive.getinfo("W_dec.npy")
    data = bytearray(file.read_bytes())
    data[result.header_offset + result.file_size - 3] ^= 1
    file.write_bytes(data)
    sae = _gemma_scope.load(GemmaScope(path=str(tmp_path)), SilentReporter())[0]
    with pytest.raises(
        BadInput, match=r"Bad CRC-32.*: it is damaged\. Copy or download it again\."
    ):
        sae.encode(torch.ones(1, 600))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("layout", "name"), [("llama", "decoder.weight"), ("gemma", "W_enc"), ("saelens", "W_dec")]
)
def test_a_matrix_with_numbers_that_are_none(
    tmp_path: Path, layout: str, name: str, bad: float
) -> None:
    if layout == "gemma":
        array = write.gemma(tmp_path / "first.npz")[name]
        array[2, 3] = bad
        sae = gemma(tmp_path, **{name: array})
    else:
        made = {"llama": write.llama, "saelens": write.saelens}[layout](tmp_path / "first" / "sae")
        made[name][2, 3] = bad
        sae = {"llama": llama, "saelens": saelens}[layout](tmp_path / "second", tensors=made)
    with pytest.raises(DataError, match=rf"1 of 66 numbers of {name} are NaN or infinite\."):
        sae.encode(ROWS)


def test_numbers_too_large_for_float32(tmp_path: Path) -> None:
    large = torch.full((write.WIDTH, write.INPUTS), 1e39, dtype=torch.float64)
    sae = llama(tmp_path, tensors={"encoder.weight": large})
    with pytest.raises(
        DataError, match=r"66 of 66 numbers of encoder\.weight are NaN or infinite\."
    ):
        sae.encode(ROWS)


def test_a_matrix_is_looked_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sae = llama(tmp_path)
    sae.encode(ROWS)
    before = _tensors.bad_numbers.cache_info().misses
    sae.release_memory()
    sae.encode(ROWS)
    assert _tensors.bad_numbers.cache_info().misses == before


# --- memory ---------------------------------------------------------------------------------------

SHARED = """
    import sys, torch
    from pathlib import Path
    from toolkit_saes.encode.matrix import StoredMatrix, stamp
    file = Path(sys.argv[1])
    held = StoredMatrix(file, 0, "bfloat16", (1024, 4096), stamp(file)).open()
    assert float(held.amax()) == 1
    print("ready", flush=True)
    for line in sys.stdin:
        text = Path("/proc/self/smaps").read_text().split(str(file))[1]
        lines = [line for line in text.splitlines()[1:24] if line.endswith("kB")]
        found = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        print(found["Rss"], found["Pss"], found["Anonymous"], flush=True)
"""


@linux
@pytest.mark.slow
def test_processes_share_the_pages_of_a_file(tmp_path: Path) -> None:
    """Each is charged for half of them while both look, and none has pages of its own."""
    file = tmp_path / "weights"
    file.write_bytes(b"\x80\x3f" * (1024 * 4096))
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", textwrap.dedent(SHARED), str(file)]
    with subprocess.Popen(command, **pipes) as first, subprocess.Popen(command, **pipes) as second:
        processes: list[Any] = [first, second]
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
            rss, pss, anonymous = map(int, process.stdout.readline().split())
            assert (rss, anonymous) == (file.stat().st_size // 1024, 0)
            assert pss == rss // 2
        for process in processes:
            process.stdin.close()


@linux
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_files_stream_through_an_extraction(tmp_path: Path) -> None:
    """The benchmark, small: memory for one file and a tenth at most, where everything in float32
    takes several.
    """
    code = f"""
        import sys
        sys.path.insert(0, {str(ROOT / "benchmarks")!r})
        from pathlib import Path
        import loading
        if __name__ == "__main__":
            root, tiny = Path({str(tmp_path / "large")!r}), Path({str(tmp_path / "tiny")!r})
            loading.write(tiny, 1, 16, 40)
            loading.write(root, 4, 2048, 32768)
            size = loading.files_of(root)[0].stat().st_size
            for found in loading.run(["naive", "ours"], root, tiny, 64, threads=1):
                print(found["total"] / size, found["anonymous"] / size, found["found"])
    """
    (tmp_path / "run.py").write_text(textwrap.dedent(code))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "run.py")],
        capture_output=True,
        text=True,
        timeout=280,
        check=True,
    )
    naive, ours = (list(map(float, line.split())) for line in done.stdout.splitlines())
    assert ours[0] <= 1.1
    assert ours[1] <= 0.25
    assert naive[0] > 3
    assert abs(ours[2] - naive[2]) <= 0.01 * naive[2]
    assert ours[2] > 0
