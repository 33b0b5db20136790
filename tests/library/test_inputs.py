"""What users have: every kind of array and file gives the right number, or one sentence that says
what to do."""

import numpy as np
import pytest

import expertbank as eb
from expertbank import cli
from expertbank.tables import open_table, read_table
from support import skip_or_fail

RNG = np.random.default_rng(0)
LOSSES = RNG.integers(0, 2, (40, 3))
GATE = RNG.dirichlet(np.ones(4), 50)
POINT = eb.rate_distortion(LOSSES, 0.3)


def answer(losses):
    return eb.rate_distortion(losses, 0.3).distortion


def sentence(call):
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    return message


@pytest.fixture
def pandas():
    return pytest.importorskip("pandas")


@pytest.fixture
def dask_array():
    return pytest.importorskip("dask.array")


# --- arrays ---


def read_only():
    losses = LOSSES.astype(float)
    losses.setflags(write=False)
    return losses


@pytest.mark.parametrize(
    "losses",
    [
        LOSSES.astype(object),
        LOSSES.tolist(),
        LOSSES.astype(">f8"),
        LOSSES.astype(">i4"),
        LOSSES.astype(np.float16),
        LOSSES.astype(np.longdouble),
        np.asfortranarray(LOSSES),
        LOSSES[::-1][::-1],
        LOSSES.astype(bool),
        read_only(),
    ],
    ids=["object", "list", ">f8", ">i4", "f2", "longdouble", "fortran", "strided", "bool", "r/o"],
)
def test_any_real_array_gives_the_same_answer(losses):
    assert answer(losses) == pytest.approx(POINT.distortion, abs=1e-12)
    run = eb.simulate(losses, 0.7, 16, 200)
    assert run.information == eb.simulate(LOSSES, 0.7, 16, 200).information


def test_memory_maps_are_read(tmp_path):
    np.save(tmp_path / "losses.npy", LOSSES)
    assert answer(np.load(tmp_path / "losses.npy", mmap_mode="r")) == POINT.distortion


MASKED = np.ma.masked_array(LOSSES, LOSSES == 1)


@pytest.mark.parametrize(
    "call",
    [
        lambda: answer(MASKED),
        lambda: answer(list(MASKED)),
        lambda: eb.simulate(MASKED),
        lambda: eb.gating_rate(np.ma.masked_array(GATE, GATE > 0.5)),
        lambda: eb.entropy(np.ma.masked_array([0.5, 0.5], [0, 1])),
        lambda: eb.alpha_mixture(np.ma.masked_array([0.5, 0.5], [0, 1]), 0.5),
        lambda: eb.rate_distortion(LOSSES, 0.3, np.ma.masked_array(np.ones(40), np.arange(40) < 9)),
        lambda: eb.binary_entropy(np.ma.masked_array([0.5, 0.5], [0, 1])),
    ],
)
def test_masked_arrays_are_refused_not_read_as_what_they_hide(call):
    assert "masked" in sentence(call)


@pytest.mark.parametrize(
    ("losses", "says"),
    [
        (LOSSES.astype(complex), "allowed are real numbers"),
        (LOSSES.astype(str), "allowed are real numbers"),
        (LOSSES.astype("M8[s]"), "allowed are real numbers"),
        (np.array([[1, None], [0, 1]], dtype=object), r"holds None at (0, 1)"),
        (np.array([["1", 0]], dtype=object), r"holds '1' at (0, 0)"),
        (np.float64(3), "shape ()"),
    ],
)
def test_what_is_no_table_of_numbers_is_one_sentence(losses, says):
    assert says in sentence(lambda: answer(losses))


def test_data_frames(pandas):
    mixed = pandas.DataFrame({"a": LOSSES[:, 0] > 0, "b": LOSSES[:, 1], "c": 1.0 * LOSSES[:, 2]})
    assert answer(mixed) == POINT.distortion
    assert answer(pandas.DataFrame(LOSSES).astype("Int64")) == POINT.distortion
    missing = pandas.DataFrame(LOSSES).astype("Int64").mask(LOSSES == 1)
    assert "<NA>" in sentence(lambda: answer(missing))


# --- rows that should sum to 1 ---


def test_one_rule_for_rows_that_should_sum_to_1():
    rate = eb.gating_rate(GATE)
    assert eb.gating_rate(GATE.astype(np.float32)) == pytest.approx(rate, abs=1e-6)
    assert eb.gating_rate(GATE.astype(np.float16)) == pytest.approx(rate, abs=1e-3)
    off = GATE.copy()
    off[0] *= 1.002
    assert "sum to 1" in sentence(lambda: eb.gating_rate(off))
    assert eb.gating_rate(off.astype(np.float16)) == pytest.approx(rate, abs=1e-3)
    off[0] *= 1.05
    assert "sum to 1" in sentence(lambda: eb.gating_rate(off.astype(np.float16)))


def test_tensors_of_networks():
    try:
        import torch
    except ImportError:
        skip_or_fail("torch is not installed")
    rate = eb.gating_rate(GATE)
    gate = torch.tensor(GATE)
    assert eb.gating_rate(gate.to(torch.bfloat16)) == pytest.approx(rate, abs=5e-3)
    assert eb.gating_rate(gate.clone().requires_grad_()) == pytest.approx(rate)
    assert answer(torch.tensor(LOSSES).to(torch.bfloat16)) == pytest.approx(POINT.distortion)


# --- dask ---


def test_dask_tables_with_empty_chunks(dask_array):
    whole = dask_array.from_array(LOSSES, chunks=(10, 3))
    empty = whole[whole[:, 0] > 7]
    for parts in ([empty, whole], [whole, empty], [empty, empty, whole[:5], empty, whole[5:]]):
        losses = dask_array.concatenate(parts).compute_chunk_sizes()
        assert 0 in losses.chunks[0]
        assert answer(losses) == pytest.approx(POINT.distortion, abs=1e-12)


def test_dask_tables_that_cannot_be_solved_say_why(dask_array):
    whole = dask_array.from_array(LOSSES, chunks=(10, 3))
    unknown = whole[whole[:, 0] > 0]
    assert "compute_chunk_sizes()" in sentence(lambda: answer(unknown))
    nothing = whole[whole[:, 0] > 7].compute_chunk_sizes()
    assert "N, R >= 1" in sentence(lambda: answer(nothing))
    assert "masked" in sentence(lambda: answer(dask_array.ma.masked_equal(whole, 1)))


# --- files ---


def frames(pandas):
    plain = pandas.DataFrame(LOSSES, columns=list("abc"))
    mixed = plain.assign(a=plain["a"] > 0, c=1.0 * plain["c"])
    return {
        "range index": plain,
        "named index": plain.set_index(pandas.Index(range(40), name="id")),
        "names as index": plain.set_index(pandas.Index([f"x{i}" for i in range(40)])),
        "two indices": plain.set_index(pandas.MultiIndex.from_product([range(4), range(10)])),
        "numbers as columns": pandas.DataFrame(LOSSES),
        "bool, int and float": mixed,
        "nullable": plain.astype("Int64"),
    }


def test_parquet_as_pandas_writes_it(pandas, tmp_path):
    pytest.importorskip("dask.array")
    for name, frame in frames(pandas).items():
        path = tmp_path / f"{name}.parquet"
        frame.to_parquet(path, row_group_size=7)
        losses = open_table(path)
        assert losses.shape == (40, 3), name
        assert answer(losses) == pytest.approx(POINT.distortion, abs=1e-12), name


def test_parquet_that_holds_no_losses_says_why(pandas, tmp_path, capsys):
    pytest.importorskip("dask.array")
    words = tmp_path / "words.parquet"
    pandas.DataFrame({"a": ["x"] * 3, "b": [0.0] * 3}).to_parquet(words)
    assert "column a holds" in sentence(lambda: open_table(words))
    missing = tmp_path / "missing.parquet"
    pandas.DataFrame({"a": [1.0, None], "b": [0.0, 1.0]}).to_parquet(missing)
    assert "NaN" in sentence(lambda: answer(open_table(missing)))
    assert cli.main(["curve", str(missing)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "NaN" in error


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_of_offices_and_of_unix(tmp_path, encoding, end):
    path = tmp_path / "losses.csv"
    text = end.join(",".join(map(str, row)) for row in LOSSES.tolist())
    path.write_bytes(text.encode(encoding))
    assert np.array_equal(read_table(path), LOSSES)


def test_csv_of_many_columns(tmp_path):
    wide = RNG.integers(0, 2, (3, 20_000))
    np.savetxt(tmp_path / "wide.csv", wide, delimiter=",", fmt="%d")
    assert np.array_equal(read_table(tmp_path / "wide.csv"), wide)


DAMAGED = {
    "empty.csv": b"",
    "header.csv": b"a,b\n0,1\n",
    "semicolons.csv": b"0;1\n1;0\n",
    "ragged.csv": b"1,2\n3\n",
    "utf16.csv": "0,1\n".encode("utf-16"),
    "text.npy": b"not an array",
    "short.npy": b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (9, 9",
    "syntax.npy": b"\x93NUMPY\x01\x00\x16\x00{'descr': '<f8', ((((\n   ",
    "text.npz": b"PK\x03\x04 not an archive",
    "text.parquet": b"PAR1 not a table PAR1",
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("command", ["curve", "bounds", "simulate", "rate"])
def test_the_command_line_never_shows_a_traceback_for_a_file(tmp_path, capsys, name, command):
    path = tmp_path / name
    path.write_bytes(DAMAGED[name])
    assert cli.main([command, str(path)]) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.count("\n") == 1 and name in error
    assert error.count("cannot be read") <= 1


def test_a_bad_option_is_not_blamed_on_the_file(pandas, tmp_path, capsys):
    pytest.importorskip("dask.array")
    pandas.DataFrame(LOSSES, columns=list("abc")).to_parquet(tmp_path / "losses.parquet")
    assert cli.main(["curve", str(tmp_path / "losses.parquet"), "--tol", "-1"]) == 2
    error = capsys.readouterr().err
    assert "tol is -1" in error and "cannot be read" not in error


def test_a_bound_beside_data_has_the_scale_of_the_data(tmp_path, capsys):
    """A guarantee on losses outside [0, 1] holds with sigma = (b - a)/2, not with 1/2."""
    losses = 6 * RNG.random((400, 8))
    np.save(tmp_path / "losses.npy", losses)
    assert cli.main(["simulate", str(tmp_path / "losses.npy"), "--sample-size", "30"]) == 0
    scaled = capsys.readouterr().out.split()
    np.save(tmp_path / "losses.npy", (losses - losses.min()) / (losses.max() - losses.min()))
    assert cli.main(["simulate", str(tmp_path / "losses.npy"), "--sample-size", "30"]) == 0
    plain = capsys.readouterr().out.split()
    width = losses.max() - losses.min()

    def bound(words):
        return float(words[words.index("bound") + 1])

    assert bound(scaled) == pytest.approx(width * bound(plain), rel=1e-3)
    assert float(scaled[scaled.index("gap") + 1]) < bound(scaled)
