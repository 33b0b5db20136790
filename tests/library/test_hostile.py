"""Files that are damaged, or made to do harm: each is read to finite numbers or refused in one
line, in little time and memory, and what they say reaches no terminal unescaped."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import hostile
from expertbank import load_bank
from expertbank._files import LONGEST, printable, read_arrays, reading
from expertbank.cli import main
from expertbank.routers import (
    RouterStatistics,
    load_statistics,
    read_routing,
    routing_report,
    statistics_of,
)
from expertbank.routers.report_page import html_page
from expertbank.tables import open_table, read_table

# of tables and banks, and of routing files: so many mutants
N_MUTANTS = {"": 1_200, "routes": 2_000}


def refusal(call, error=ValueError):
    """The one line of a refusal."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert message.isprintable() and len(message) <= LONGEST, message
    made_of = [type(error).__name__ for error in hostile.chain(caught.value)]
    assert "MemoryError" not in made_of
    return message


# --- mutants of everything ---


@pytest.mark.parametrize("read_by", N_MUTANTS)
def test_every_mutant_is_read_to_numbers_or_refused_in_one_line(tmp_path, torch, read_by):
    n = N_MUTANTS[read_by]
    command = [sys.executable, hostile.__file__, str(tmp_path), str(n), str(hostile.SEED), read_by]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3_000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["failures"] == []
    assert found["read"] + found["refused"] == n
    # the mutants are neither all harmless nor all plain rubbish
    assert found["read"] > n / 12 and found["refused"] > n / 2


@pytest.mark.parametrize(
    ("reads", "says"),
    [
        (lambda path: np.nan, "not finite"),
        (lambda path: [][0], "IndexError"),
        (lambda path: (path / "b").read_bytes(), "NotADirectoryError"),
    ],
)
def test_the_fuzz_can_fail(tmp_path, reads, says):
    (tmp_path / "a.npy").write_bytes(b"")
    sample = hostile.Sample(tmp_path / "a.npy", reads, ("curve",))
    outcome, message = hostile.judged(sample, sample.path)
    assert outcome == "failed" and says in message


@pytest.mark.parametrize("raised", ["two\nlines", "bell\a", "x" * 301])
def test_the_fuzz_wants_one_short_line(tmp_path, raised):
    def read(path):
        raise ValueError(raised)

    assert hostile.judged(hostile.Sample(tmp_path, read, ()), tmp_path)[0] == "failed"


def test_the_fuzz_sees_memory_behind_a_refusal(tmp_path):
    def read(path):
        with reading(path):
            raise MemoryError

    outcome, message = hostile.judged(hostile.Sample(tmp_path, read, ()), tmp_path)
    assert outcome == "failed" and "memory" in message


# --- sizes are checked before memory is taken ---


def npy_of(shape, dtype="<f8", content=b""):
    file = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + content


def archive_of(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("shape", [(2**40, 25), (2**62, 4), (1, 2), (0, 2), (-3, -1)])
def test_a_header_that_promises_another_size(tmp_path, shape):
    content = npy_of(shape, content=np.ones(3).tobytes())
    (tmp_path / "a.npy").write_bytes(content)
    archive_of(tmp_path / "a.npz", {"a.npy": content})
    archive_of(tmp_path / "v.npz", {"chosen.npy": content})
    for call in (
        lambda: read_table(tmp_path / "a.npy"),
        lambda: open_table(tmp_path / "a.npy"),
        lambda: read_table(tmp_path / "a.npz"),
        lambda: statistics_of(tmp_path / "v.npz", n_experts=3),
        lambda: statistics_of(tmp_path / "a.npy", n_experts=3),
    ):
        assert "24 are there: truncated?" in refusal(call)


def test_an_archive_that_grows(tmp_path):
    zeros = npy_of((1 << 27,), "|u1") + bytes(1 << 27)
    bomb = archive_of(tmp_path / "bomb.npz", {"a.npy": zeros}, compression=zipfile.ZIP_DEFLATED)
    # 134 MB out of 130 kB is no more than a table of zeros may be
    assert len(read_arrays(bomb)["a"]) == 1 << 27 and bomb.stat().st_size < 200_000
    many = archive_of(
        tmp_path / "many.npz",
        {f"{i}.npy": zeros for i in range(9)},
        compression=zipfile.ZIP_DEFLATED,
    )
    assert "it asks for 1.21 GB of memory" in refusal(lambda: read_arrays_of(many))


def read_arrays_of(path):
    with reading(path):
        return read_arrays(path)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("flag_bits", 1, "encrypted or patched"),
        ("file_size", 2**31, "claims 2,147,483,648 bytes"),
        ("compress_type", zipfile.ZIP_LZMA, "is not stored or deflated"),
        ("compress_type", 97, "is not stored or deflated"),
    ],
)
def test_members_that_no_numpy_wrote(tmp_path, monkeypatch, field, value, says):
    np.savez(tmp_path / "a.npz", np.eye(3))
    infolist = zipfile.ZipFile.infolist

    def changed(archive):
        members = infolist(archive)
        setattr(members[0], field, value)
        return members

    monkeypatch.setattr(zipfile.ZipFile, "infolist", changed)
    assert says in refusal(lambda: read_table(tmp_path / "a.npz"))


def test_two_members_of_one_name(tmp_path):
    one = npy_of((1, 1), content=bytes(8))
    with (
        pytest.warns(UserWarning, match="Duplicate"),
        zipfile.ZipFile(tmp_path / "a.npz", "w") as a,
    ):
        a.writestr("a.npy", one)
        a.writestr("a.npy", one)
    assert "two members have one name" in refusal(lambda: read_table(tmp_path / "a.npz"))


def with_header(source, target, **sizes):
    """Statistics whose header speaks of other sizes."""
    with np.load(source) as archive:
        arrays = dict(archive)
    header = json.loads(str(arrays["header"]))
    header["sizes"] |= sizes
    np.savez_compressed(target, **(arrays | {"header": np.array(json.dumps(header))}))
    return target


@pytest.mark.parametrize(
    "sizes",
    [
        {"n_experts": 30_000},
        {"n_kept": 10**9},
        {"n_tokens": 10**8},
        {"n_domains": 10**8},
        {"n_chosen": 2},
        {"n_experts": 10**18},
        {"n_experts": 3.5},
        {"n_experts": None},
        {"colour": 1},
    ],
)
def test_statistics_of_a_thousand_bytes_that_ask_for_gigabytes(tmp_path, sizes):
    statistics = RouterStatistics(n_experts=3, n_chosen=1, n_kept=4)
    statistics.update(0, [[1], [2]])
    statistics.save(tmp_path / "a.npz")
    path = with_header(tmp_path / "a.npz", tmp_path / "b.npz", **sizes)
    refusal(lambda: load_statistics(path))
    refusal(lambda: statistics_of(path))


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("slots", lambda a: a - 5),
        ("slots", lambda a: a + 2**60),
        ("weight_sum", lambda a: a * np.nan),
        ("probability_sum", lambda a: a + np.inf),
        ("kept_ids", lambda a: a[::-1]),
        ("kept_ids", lambda a: a - 7),
        ("kept_domains", lambda a: a - 9),
        ("sizes", lambda a: a.astype(float)),
    ],
)
def test_statistics_that_nobody_counted(tmp_path, field, change):
    statistics = RouterStatistics(n_experts=3, n_chosen=1, n_domains=2, n_kept=4)
    statistics.update(0, [[1], [2]], domain=[0, 1], sequence=[4, 5])
    statistics.save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as archive:
        arrays = dict(archive)
    arrays[f"0.{field}"] = change(arrays[f"0.{field}"])
    np.savez(tmp_path / "b.npz", **arrays)
    assert field in refusal(lambda: load_statistics(tmp_path / "b.npz"))


def test_a_layer_for_every_token_is_refused(tmp_path):
    n = 3_000
    np.savez_compressed(
        tmp_path / "a.npz", chosen=np.zeros((n, 1), int), layer=np.arange(n), n_experts=1_000
    )
    assert "it asks for 1.08 GB" in refusal(lambda: statistics_of(tmp_path / "a.npz"))


def test_domains_without_end_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", chosen=[[0]], domain=[2**40], n_experts=4)
    refusal(lambda: statistics_of(tmp_path / "a.npz"))


def test_parquet_that_asks_for_more_than_it_is(tmp_path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    # one long list makes every row as wide
    ragged = pa.table({"chosen": [list(range(20_000)), *[[0]] * 20_000]})
    parquet.write_table(ragged, tmp_path / "a.parquet")
    says = refusal(lambda: statistics_of(tmp_path / "a.parquet", n_experts=20_000))
    assert "it asks for 3.2 GB" in says
    # columns of one number for ever are a few bytes
    ids = pa.array(np.zeros(60_000_000, np.int8))
    column = pa.DictionaryArray.from_arrays(ids, pa.array([0.5]))
    columns = {name: column for name in "abc"}
    parquet.write_table(pa.table(columns), tmp_path / "b.parquet", row_group_size=10**9)
    assert (tmp_path / "b.parquet").stat().st_size < 1_000_000
    assert "it asks for 1.44 GB" in refusal(lambda: open_table(tmp_path / "b.parquet"))


def test_tensors_that_repeat_one_number_for_ever(tmp_path, torch):
    counts = torch.ones(1, dtype=torch.int64).expand(10**6, 10**6, 10**3)
    torch.save({"logical_count": counts}, tmp_path / "a.pt")
    assert "repeats its numbers" in refusal(lambda: statistics_of(tmp_path / "a.pt"))
    nested = [0]
    for _ in range(40):
        nested = [nested, nested]
    torch.save({"logical_count": nested}, tmp_path / "b.pt")
    assert "is a list; allowed are integers" in refusal(lambda: statistics_of(tmp_path / "b.pt"))
    logical = torch.tensor([[0, 10**9]])
    records = [{"global_physical_count": torch.ones(1, 2, dtype=torch.int64)}]
    content = {"records": records, "last_physical_to_logical_map": logical}
    torch.save(content, tmp_path / "c.pt")
    assert "must name an expert below 2" in refusal(lambda: statistics_of(tmp_path / "c.pt"))


# --- zarr ---


@pytest.fixture
def zarr_of(tmp_path):
    zarr = pytest.importorskip("zarr")
    losses = np.random.default_rng(0).random((12, 3))

    def make(name, codec, **options):
        path = tmp_path / f"{name}.zarr"
        array = zarr.create_array(
            path, shape=losses.shape, chunks=(6, 3), dtype=float, compressors=codec, **options
        )
        array[:] = losses
        assert np.array_equal(open_table(path).compute(), losses)
        return path

    return make


@pytest.mark.parametrize("codec", ["blosc", "lz4", "zstd"])
def test_a_chunk_of_another_size_than_it_says(zarr_of, codec):
    """blosc reads behind the end of a cut chunk, and what it finds would be losses; lz4 and zstd
    take the memory that a chunk asks for."""
    numcodecs = pytest.importorskip("numcodecs")
    path = zarr_of(codec, numcodecs.get_codec({"id": codec}), zarr_format=2)
    content = (path / "0.0").read_bytes()
    at = {"blosc": 4, "lz4": 0, "zstd": 5}[codec]  # where it says how much it holds
    asks = content[:at] + (2**31 - 16).to_bytes(4, "little") + content[at + 4 :]
    (path / "0.0").write_bytes(asks)
    assert "chunk 0.0 is truncated or damaged" in refusal(lambda: open_table(path))
    (path / "0.0").write_bytes(content[:-9])
    refusal(lambda: open_table(path).compute())


@pytest.mark.parametrize("key", ["shape", "chunks"])
def test_a_zarr_without_end(zarr_of, key):
    path = zarr_of("a", None, zarr_format=2)
    metadata = json.loads((path / ".zarray").read_text())
    metadata[key] = [10**12, 3]
    (path / ".zarray").write_text(json.dumps(metadata))
    says = refusal(lambda: open_table(path))
    assert "memory" in says or "chunks" in says


def test_no_codec_of_zarr_runs_code(zarr_of, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    path = zarr_of("a", None, zarr_format=2)
    metadata = json.loads((path / ".zarray").read_text())
    (path / "0.0").write_bytes(pickle.dumps(Trap()))
    for change in (
        {"compressor": {"id": "pickle"}},
        {"filters": [{"id": "pickle"}]},
        {"filters": [{"id": "pickle"}], "dtype": "|O", "fill_value": None},
    ):
        (path / ".zarray").write_text(json.dumps(metadata | change))
        refusal(lambda: open_table(path).compute())
    assert not (tmp_path / "made").exists()


# --- what is no file on a disk ---


@pytest.mark.parametrize("suffix", ["npy", "npz", "csv", "parquet", "pt"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, capsys, suffix):
    path = tmp_path / f"a.{suffix}"
    os.mkfifo(path)
    calls = [lambda: statistics_of(path, "npz"), lambda: list(read_routing(path))]
    if suffix in ("npy", "npz", "csv"):
        calls.append(lambda: read_table(path))
    if suffix in ("npy", "parquet"):
        calls.append(lambda: open_table(path))
    if suffix == "npz":
        calls.append(lambda: load_statistics(path))
    for call in calls:
        assert "is a pipe; allowed is" in refusal(call)
    assert main(["routes", "report", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_device_and_a_folder_are_refused(tmp_path):
    (tmp_path / "a.csv").symlink_to("/dev/null")
    assert "a.csv is a device; allowed is" in refusal(lambda: read_table(tmp_path / "a.csv"))
    (tmp_path / "b.npy").mkdir()
    assert "b.npy is a folder; allowed is" in refusal(lambda: read_table(tmp_path / "b.npy"))
    # inside a folder of files too
    (tmp_path / "c.parquet").mkdir()
    os.mkfifo(tmp_path / "c.parquet" / "part.0.parquet")
    assert "is a pipe" in refusal(lambda: open_table(tmp_path / "c.parquet"))


# --- text from files ---

EVIL = "\x1b[2Jgone\x07\r\n\u202eesrever\u2066<b>"
SHOWN = r"\x1b[2Jgone\x07\r\n\u202eesrever\u2066<b>"


def test_names_of_layers_are_escaped_in_the_terminal_and_on_the_page(tmp_path, capsys):
    chosen = np.random.default_rng(0).integers(0, 3, (40, 1))
    np.savez(tmp_path / "a.npz", chosen=chosen, layer=EVIL, n_experts=4)
    assert main(["routes", "report", str(tmp_path / "a.npz")]) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.replace("\n", "").isprintable()
    assert SHOWN in out and f"Dead experts in layer {SHOWN}: 3." in " ".join(out.split())
    report = routing_report(statistics_of(tmp_path / "a.npz"))
    page = html_page(report)
    assert not set(EVIL) & set(page) - set("\n<>b") - set("[2Jgoneesrever")
    assert SHOWN.replace("<", "&lt;").replace(">", "&gt;") in page
    # a program gets the name as it is
    assert report.json()["layers"][0]["layer"] == EVIL


@pytest.mark.parametrize("longest", [None, 30])
def test_printable_text_cannot_act_on_a_terminal(longest):
    every = "".join(map(chr, [*range(0x3000), *range(0xD800, 0xD810), 0xFEFF, 0xE0001, 0x10FFFF]))
    shown = printable(every, longest)
    assert shown.isprintable() and shown.encode()
    assert longest is None or len(shown) <= longest
    assert printable("Schicht 7, 専門家 é") == "Schicht 7, 専門家 é"


@pytest.mark.parametrize(
    ("name", "column"), [(EVIL.replace("/", ""), "a"), ("plain", EVIL)], ids=["file", "column"]
)
def test_names_in_errors_are_escaped(tmp_path, capsys, name, column):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / f"{name}.parquet"
    parquet.write_table(pa.table({column: ["x"]}), path)
    assert r"\u202eesrever" in refusal(lambda: open_table(path))
    refusal(lambda: statistics_of(path, n_experts=4))
    for command in (["curve"], ["routes", "report"]):
        assert main([*command, str(path)]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and err.strip("\n").isprintable()


def test_a_long_path_leaves_room_for_the_reason(tmp_path):
    folder = tmp_path / ("f" * 200) / ("g" * 200)
    folder.mkdir(parents=True)
    (folder / "table.npy").write_bytes(b"no array")
    says = refusal(lambda: read_table(folder / "table.npy"))
    assert "g/table.npy cannot be read as one table of numbers: " in says
    np.savez(folder / "a.npz", chosen=np.array([None], object))
    says = refusal(lambda: statistics_of(folder / "a.npz", n_experts=2))
    assert says.count("cannot be read") == 1 and says.endswith("write plain arrays")


# --- JSON ---


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "9" * 10_000, "\x00", '{"files": 7}', "[]", "\ud800"]
)
def test_json_of_any_kind(tmp_path, text):
    bank = tmp_path / "mine"
    bank.mkdir()
    (bank / "manifest.json").write_text(text, errors="surrogatepass")
    assert "is not a bank manifest" in refusal(lambda: load_bank(bank))
    np.savez(tmp_path / "a.npz", header=np.array(text.encode(errors="replace").decode()))
    refusal(lambda: load_statistics(tmp_path / "a.npz"))


def test_a_bank_whose_arrays_ask_for_memory(tmp_path):
    from support import reseal

    source = Path(str(load_bank().folder))
    bank = tmp_path / "mine"
    bank.mkdir()
    (bank / "manifest.json").write_bytes((source / "manifest.json").read_bytes())
    content = json.loads((bank / "manifest.json").read_text())
    content["files"] = {"predictions.npz": content["files"]["predictions.npz"]}
    (bank / "manifest.json").write_text(json.dumps(content))
    archive_of(bank / "predictions.npz", {"train_labels.npy": npy_of((2**40,), "|u1")})
    reseal(bank)
    assert "cannot be read at train_labels" in refusal(lambda: load_bank(bank))
