"""Readers of routing files: what was written comes back, and what is wrong or hostile is refused by
name."""

import base64
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from expertbank.cli import main
from expertbank.routers import formats
from expertbank.routers.formats import (
    FORMATS,
    describe_formats,
    discover_formats,
    read_routing,
    statistics_of,
)
from expertbank.routers.measures import max_violation
from expertbank.routers.report import routing_report
from expertbank.routers.report_page import html_page
from expertbank.routers.statistics import RouterStatistics

E, K, N, LAYERS = 6, 2, 40, 3


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def routing(rng):
    """Eight sequences of five tokens in two domains, through three layers."""
    probabilities = rng.dirichlet(np.ones(E), size=(LAYERS, N))
    chosen = np.argsort(-probabilities, axis=2)[:, :, :K]
    sequence = np.repeat(np.arange(8), 5)
    return {
        "chosen": chosen.astype(np.int32),
        "weights": np.take_along_axis(probabilities, chosen, axis=2),
        "probabilities": probabilities,
        "sequence": sequence,
        "domain": sequence % 2,
        "position": np.tile(np.arange(5), 8),
        "token": rng.integers(0, 9, N),
        "mask": np.arange(N) % 7 != 0,
    }


MAIN = ("chosen", "weights", "probabilities")
ROOM = {"n_domains": 2, "n_positions": 5, "n_tokens": 9}


def expected(routing, **room):
    statistics = RouterStatistics(E, K, **(room or ROOM))
    for layer in range(LAYERS):
        arrays = {key: array[layer] if key in MAIN else array for key, array in routing.items()}
        statistics.update(layer, step=-1, **arrays)
    return statistics


def same(one, other):
    assert one.configuration == other.configuration
    assert list(one.layers) == list(other.layers)
    for name, layer in one.layers.items():
        for field, array in vars(layer).items():
            np.testing.assert_allclose(
                vars(other.layers[name])[field], array, rtol=1e-12, err_msg=field
            )


# --- plain npz ---


def test_npz_of_layers(tmp_path, routing):
    np.savez(tmp_path / "a.npz", **routing)
    same(statistics_of(tmp_path / "a.npz", n_positions=5, n_tokens=9), expected(routing))
    names = np.array(["first", "second", "third"])
    np.savez_compressed(tmp_path / "b.npz", **routing, layer=names)
    assert [layer for layer, _ in read_routing(tmp_path / "b.npz")] == names.tolist()


def test_npz_of_one_layer_and_of_rows(tmp_path, routing):
    one = {key: array[0] if key in MAIN else array for key, array in routing.items()}
    np.savez(tmp_path / "one.npz", **one, layer=7)
    [(layer, arrays)] = read_routing(tmp_path / "one.npz")
    assert layer == 7
    for key, array in one.items():
        np.testing.assert_array_equal(arrays[key], array)
    rows = {
        key: np.concatenate([array[i] if key in MAIN else array for i in range(LAYERS)])
        for key, array in routing.items()
    }
    np.savez(tmp_path / "rows.npz", **rows, layer=np.repeat(np.arange(LAYERS), N))
    same(statistics_of(tmp_path / "rows.npz", n_positions=5, n_tokens=9), expected(routing))


def test_npz_without_probabilities_needs_the_number_of_experts(tmp_path, routing):
    del routing["probabilities"]
    np.savez(tmp_path / "a.npz", **routing)
    with pytest.raises(
        ValueError, match=r"a\.npz do not say how many experts there are; give n_experts"
    ):
        statistics_of(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", **routing, n_experts=E)
    found = statistics_of(tmp_path / "b.npz", **ROOM)
    same(found, expected(routing))
    same(statistics_of(tmp_path / "a.npz", n_experts=E, **ROOM), found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["chosen"].astype(float), r"chosen has dtype float64; allowed are integers"),
        (lambda r: r["chosen"] + 1, r"chosen holds expert 6, n_experts is 6: give a larger one"),
        (lambda r: r["chosen"] - 3, r"chosen holds -3; allowed is 0 and up, -1 for none"),
        (
            lambda r: r["chosen"][0, :, 0],
            r"axes are .*'chosen': 1.*allowed are \(tokens, k\) or \(layers, tokens, k\)",
        ),
        (
            lambda r: r["chosen"][:2],
            r"numbers of layers are .*'chosen': 2.*allowed is the same for all",
        ),
        (
            lambda r: np.array([["a", None]], object),
            r"cannot be read at chosen: objects are pickles, which may run code",
        ),
        (lambda r: np.zeros_like(r["chosen"]), r"names an expert twice"),
    ],
)
def test_npz_with_wrong_experts(tmp_path, routing, change, message):
    np.savez(tmp_path / "a.npz", **{**routing, "chosen": change(routing)})
    with pytest.raises(ValueError, match=rf"(?s)a\.npz.*{message}"):
        statistics_of(tmp_path / "a.npz", **ROOM)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("weights", np.full((LAYERS, N, K), np.nan), "weights holds nan; mask such tokens"),
        ("weights", np.full((LAYERS, N, K), -0.5), "weights holds -0.5; allowed is 0 and up"),
        ("weights", np.ones((LAYERS, N, 1)), r"weights has shape \(40, 1\); allowed is \(40, 2\)"),
        ("probabilities", np.full((LAYERS, N, E), np.inf), "probabilities holds inf"),
        ("probabilities", np.full((LAYERS, N, E), 1.0), "row that sums to"),
        ("domain", np.zeros(3, int), r"domain has shape \(3,\); allowed is \(40,\)"),
        ("domain", np.zeros(N), "domain has dtype float64; allowed are integers"),
        ("mask", np.zeros(N), "mask has dtype float64; allowed are booleans"),
        ("mask", np.zeros(3, bool), r"mask has shape \(3,\); allowed is \(40,\)"),
        ("chosens", np.zeros(N), r"has columns \['chosens'\]; allowed are chosen, weights"),
        ("layer", np.arange(2), "numbers of layers are"),
        ("token", np.full(N, 9), "token holds 9; allowed are 0 to 8"),
    ],
)
def test_npz_with_other_faults(tmp_path, routing, key, value, message):
    np.savez(tmp_path / "a.npz", **{**routing, key: value})
    with pytest.raises(ValueError, match=rf"(?s)a\.npz.*{message}"):
        statistics_of(tmp_path / "a.npz", **ROOM)


def test_masked_tokens_may_hold_anything(tmp_path, routing):
    routing["probabilities"][:, ~routing["mask"]] = np.nan
    routing["chosen"][:, ~routing["mask"]] = 99
    np.savez(tmp_path / "a.npz", **routing)
    routing["domain"] = np.where(routing["mask"], routing["domain"], 77).astype(np.uint8)
    np.savez(tmp_path / "b.npz", **routing)
    for name in ("a.npz", "b.npz"):
        found = statistics_of(tmp_path / name)
        assert found.layers[0].tokens == routing["mask"].sum() and found.n_domains == 2


@pytest.mark.parametrize("name", ["a.npz", "a.npy", "a.pt", "a.parquet"])
def test_truncated_and_foreign_files(tmp_path, routing, torch, name):
    write(torch, tmp_path / name, routing)
    whole = (tmp_path / name).read_bytes()
    for content in (
        whole[: len(whole) // 2],
        whole[:20],
        b"",
        b"PK\x03\x04 no archive",
        b"text\n" * 40,
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            statistics_of(tmp_path / name, n_experts=E)


def test_missing_and_unknown_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.npz does not exist"):
        statistics_of(tmp_path / "no.npz")
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(
        ValueError, match=r"a\.csv ends in '\.csv'; give format, one of megatron, npz, parquet"
    ):
        statistics_of(tmp_path / "a.csv")
    with pytest.raises(ValueError, match="format is 'csv'; allowed are megatron, npz"):
        list(read_routing(tmp_path / "a.csv", "csv"))
    with pytest.raises(ValueError, match="no file is given"):
        statistics_of([])


def write(torch, path, routing):
    """The routing in the format that the suffix stands for."""
    if path.suffix == ".npz":
        np.savez(path, **routing)
    elif path.suffix == ".npy":
        np.save(path, routing["chosen"].transpose(1, 0, 2).astype(np.int16))
    elif path.suffix == ".parquet":
        write_parquet(path, routing)
    else:
        torch.save(per_token(torch, routing), path)


# --- a format of one's own ---

CSV = """
import numpy as np

from expertbank.routers.formats._common import Format, Piece


def read_csv(path, asked):
    yield Piece(0, {"chosen": np.loadtxt(path, int, delimiter=",", ndmin=2)})


FORMAT = Format("csv", (".csv",), "lines of chosen experts", read_csv)
"""


def test_a_new_format_is_one_new_module(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "more_formats"
    folder.mkdir()
    (folder / "csv_lines.py").write_text(CSV)
    (tmp_path / "a.csv").write_text("0,1\n2,-1\n")
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(folder)])
    for name, format in discover_formats().items():
        monkeypatch.setitem(FORMATS, name, format)
    monkeypatch.delitem(sys.modules, "expertbank.routers.formats.csv_lines")
    found = statistics_of(tmp_path / "a.csv", n_experts=4)
    assert found.layers[0].slots.tolist() == [1, 1, 1, 0]
    [(_, arrays)] = read_routing(tmp_path / "a.csv", "csv")
    assert arrays["chosen"].tolist() == [[0, 1], [2, -1]]
    assert "csv          lines of chosen experts" in describe_formats()
    # the command line offers, explains and reads it too
    with pytest.raises(SystemExit):
        main(["routes", "report", "--help"])
    text = capsys.readouterr().out
    assert "vllm-http,csv}" in text and "lines of chosen experts" in text
    file = str(tmp_path / "a.csv")
    assert main(["routes", "report", file, "--format", "csv", "--experts", "4"]) == 0
    assert "1 layer, 4 experts" in capsys.readouterr().out


def test_every_format_describes_itself():
    assert discover_formats() == FORMATS
    for name, format in FORMATS.items():
        assert format.name == name and format.description
        assert all(suffix.startswith(".") for suffix in format.suffixes)


# --- saved statistics ---


def test_saved_statistics_add_up(tmp_path, routing):
    one = expected(routing)
    one.save(tmp_path / "one.npz")
    same(statistics_of(tmp_path / "one.npz"), one)
    same(statistics_of([tmp_path / "one.npz"] * 2), one + one)
    with pytest.raises(ValueError, match="holds statistics, no tokens; read it by load_statistics"):
        list(read_routing(tmp_path / "one.npz"))
    with pytest.raises(ValueError, match="is about 6 experts, n_experts is 7"):
        statistics_of(tmp_path / "one.npz", n_experts=7)


# --- vLLM ---


def requests(rng, lengths=(7, 3, 5)):
    return [
        np.argsort(rng.random((length, LAYERS, E)), axis=2)[:, :, :K].astype(np.int16)
        for length in lengths
    ]


def numbered(statistics):
    """With sequences numbered through: their ids are not in the file."""
    for layer in statistics.layers.values():
        known = layer.kept_ids >= 0
        layer.kept_ids[known] = np.arange(known.sum())
    return statistics


def test_vllm_requests(tmp_path, rng):
    arrays, domain = requests(rng), np.array([1, 0, 1])
    statistics = RouterStatistics(E, K, n_domains=2, n_positions=7)
    ids = np.repeat([0, 1, 2], [7, 3, 5])
    together = np.concatenate(arrays)
    position = np.concatenate([np.arange(len(array)) for array in arrays])
    for layer in range(LAYERS):
        labels = {"domain": domain[ids], "sequence": ids, "position": position}
        statistics.update(layer, together[:, layer], **labels, step=-1)
    np.savez(
        tmp_path / "v.npz",
        **{f"request_{i}": array for i, array in enumerate(arrays)},
        domain=domain,
    )
    found = statistics_of(tmp_path / "v.npz", n_experts=E, n_positions=7)
    same(numbered(found), numbered(statistics))


def test_vllm_one_array_a_file_each_of_a_domain(tmp_path, rng):
    arrays = requests(rng)
    for i, array in enumerate(arrays):
        np.save(tmp_path / f"{i}.npy", array)
    parts = [
        statistics_of(tmp_path / f"{i}.npy", domain=i % 2, n_experts=E, n_chosen=K, n_domains=2)
        for i in range(3)
    ]
    total = parts[0] + parts[1] + parts[2]
    assert total.layers[0].sequences == 3
    assert total.layers[0].domains.sum(axis=1).tolist() == [24, 6]
    # sequences of different files are different sequences
    assert (total.layers[0].kept_ids >= 0).sum() == 3


def test_vllm_prompt_and_answer_are_one_request(tmp_path, rng):
    prompt, answer = requests(rng, (4, 3))
    np.savez(tmp_path / "v.npz", prompt_routed_experts=prompt, routed_experts=answer)
    arrays = dict(read_routing(tmp_path / "v.npz"))[1]
    np.testing.assert_array_equal(arrays["chosen"], np.concatenate([prompt, answer])[:, 1])
    assert len(set(arrays["sequence"])) == 1
    np.testing.assert_array_equal(arrays["position"], np.arange(7))


def test_vllm_dense_layers_are_left_out(tmp_path, rng):
    [array] = requests(rng, (30,))
    array[:, 0] = 0
    np.save(tmp_path / "v.npy", array)
    assert list(statistics_of(tmp_path / "v.npy", n_experts=E).layers) == [1, 2]


def test_vllm_long_files_come_in_batches_of_whole_requests(tmp_path, rng, monkeypatch):
    monkeypatch.setattr("expertbank.routers.formats._common.BATCH", 8)
    np.savez(
        tmp_path / "v.npz",
        **{f"{i}": array for i, array in enumerate(requests(rng, (5, 2, 9, 1, 4, 4)))},
    )
    sizes = [
        len(arrays["chosen"]) for layer, arrays in read_routing(tmp_path / "v.npz") if layer == 0
    ]
    assert sizes == [7, 9, 5, 4]
    whole = [len(set(a["sequence"])) for layer, a in read_routing(tmp_path / "v.npz") if layer == 0]
    assert whole == [2, 1, 2, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda a: a.astype(np.float32),
            r"routed_experts is float32 of shape .* allowed are integers \[tokens, layers",
        ),
        (lambda a: a[:, :, 0], r"allowed are integers \[tokens, layers, k\]"),
        (lambda a: a - 1, "has a row of which some experts are missing"),
        (lambda a: a + 1, r"chosen holds expert 6, n_experts is 6: give a larger one"),
    ],
)
def test_vllm_faults(tmp_path, rng, change, message):
    np.save(tmp_path / "v.npy", change(requests(rng, (60,))[0]))
    with pytest.raises(ValueError, match=rf"v\.npy.*{message}"):
        statistics_of(tmp_path / "v.npy", n_experts=E)


def test_vllm_faults_of_several(tmp_path, rng):
    one, two = requests(rng, (4, 4))
    np.savez(tmp_path / "v.npz", a=one, b=two[:, :2])
    with pytest.raises(ValueError, match="allowed are requests of one model"):
        statistics_of(tmp_path / "v.npz", n_experts=E)
    np.savez(tmp_path / "v.npz", a=one, b=two, domain=[0])
    with pytest.raises(
        ValueError, match=r"domain has shape \(1,\); allowed is one a request, \(2,\)"
    ):
        statistics_of(tmp_path / "v.npz", n_experts=E)
    np.save(tmp_path / "v.npy", one)
    with pytest.raises(ValueError, match="do not say how many experts there are; give n_experts"):
        statistics_of(tmp_path / "v.npy")


# --- SGLang: dumps as its recorder writes them ---

# two physical copies of expert 0; the map differs from layer to layer
PHYSICAL = np.array([[0, 1, 2, 3, 4, 5, 0], [5, 4, 3, 2, 1, 0, 0], [0, 1, 2, 3, 4, 5, 0]])


def per_token(torch, routing):
    """Two prefills of four sequences each and five decoding steps of one token, in room for eight
    experts a token."""
    slots = np.full((LAYERS, N, 8), -1, np.int32)
    slots[:, :, :K] = [
        np.argsort(names[:E])[chosen] for names, chosen in zip(PHYSICAL, routing["chosen"])
    ]
    slots[0] = -1  # a dense layer
    spans = [(0, 20, [5] * 4), (20, 35, [5, 5, 5]), *((35 + i, 36 + i, None) for i in range(5))]
    records = [
        {
            "forward_pass_id": i,
            "rank": 0,
            "gatherer_key": "primary",
            "misc_objects": [],
            "input_ids": routing["token"][start:stop].tolist(),
            "positions": routing["position"][start:stop].tolist(),
            "extend_seq_lens": lengths,
            "forward_mode": 1 if lengths else 2,
            "topk_ids_of_layer": torch.tensor(slots[:, start:stop]),
            "global_physical_count": torch.zeros(LAYERS, 7, dtype=torch.int32),
        }
        for i, (start, stop, lengths) in enumerate(spans)
    ]
    return {"records": records, "last_physical_to_logical_map": torch.tensor(PHYSICAL)}


def test_sglang_per_token(tmp_path, routing, torch):
    torch.save(per_token(torch, routing), tmp_path / "s.pt")
    found = statistics_of(tmp_path / "s.pt", domain=1, n_domains=2, n_positions=5, n_tokens=9)
    sequence = np.where(np.arange(N) < 35, routing["sequence"], -1)
    statistics = RouterStatistics(E, K, **ROOM)
    for layer in (1, 2):
        labels = {
            "position": routing["position"],
            "token": routing["token"],
            "domain": np.ones(N, int),
            "step": np.searchsorted([20, 35, 36, 37, 38, 39], np.arange(N), "right"),
        }
        statistics.update(layer, routing["chosen"][layer], sequence=sequence, **labels)
    same(numbered(found), numbered(statistics))
    assert statistics.layers[1].steps == 7  # two prefills and five decoded tokens


@pytest.mark.parametrize("mode", ["stat", "per_pass"])
def test_sglang_counts_give_loads_only(tmp_path, rng, torch, mode):
    counts = rng.integers(0, 50, (4, LAYERS, 7))
    counts[:, 0] = 0  # a dense layer
    logical = np.zeros((4, LAYERS, E), int)
    for layer, names in enumerate(PHYSICAL):
        for copy, name in enumerate(names):
            logical[:, layer, name] += counts[:, layer, copy]
    if mode == "stat":
        dump = {
            "rank": 0,
            "logical_count": torch.tensor(logical),
            "average_utilization_rate_over_window": None,
        }
    else:
        records = [
            {"forward_pass_id": i, "global_physical_count": torch.tensor(c)}
            for i, c in enumerate(counts)
        ]
        dump = {"records": records, "last_physical_to_logical_map": torch.tensor(PHYSICAL)}
    torch.save(dump, tmp_path / "s.pt")
    [(one, first), (two, second)] = read_routing(tmp_path / "s.pt")
    assert (one, two) == (1, 2) and list(first) == list(second) == ["load"]
    found = statistics_of(tmp_path / "s.pt")
    for layer, statistics in found.layers.items():
        np.testing.assert_array_equal(statistics.slots, logical[:, layer].sum(axis=0))
        steps = [max_violation(load) for load in logical[:, layer]]  # a pass is one
        assert statistics.steps == 4
        assert statistics.mean_step_violation == pytest.approx(np.mean(steps))
        assert statistics.tokens == statistics.sequences == 0 and not statistics.pairs.any()
        [report] = routing_report(found, layers=[layer]).layers
        assert report.load == pytest.approx(statistics.slots / statistics.slots.sum())
        assert report.rate is report.empty_slots is report.coactivation is None


class Hostile:
    """Would make a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, torch):
    folder = tmp_path / "made"
    for name, content in (("a.pt", Hostile(folder)), ("b.pt", {"records": [Hostile(folder)]})):
        torch.save(content, tmp_path / name)
        with pytest.raises(
            ValueError,
            match=rf"{name} is refused: its pickle asks for \w+\.mkdir, .*could run code",
        ):
            statistics_of(tmp_path / name)
    torch.save(Hostile(folder), tmp_path / "c.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"c\.pt is refused.*np\.savez"):
        statistics_of(tmp_path / "c.pt")
    np.savez(tmp_path / "d.npz", chosen=np.array([Hostile(folder)], object))
    with pytest.raises(ValueError, match=r"d\.npz cannot be read at chosen: .*may run code"):
        statistics_of(tmp_path / "d.npz")
    assert not folder.exists()
    torch.load(tmp_path / "a.pt", weights_only=False)  # the trap is a real one
    assert folder.exists()


def test_sglang_faults(tmp_path, routing, torch):
    def fails(content, message):
        torch.save(content, tmp_path / "s.pt")
        with pytest.raises(ValueError, match=rf"(?s)s\.pt.*{message}"):
            statistics_of(tmp_path / "s.pt")

    fails(
        {"weights": torch.zeros(2)}, r"holds \['weights'\]; allowed is a dump of SGLang's recorder"
    )
    fails([1, 2], "holds list; allowed is a dump")
    fails({"records": []}, "records is empty")
    fails(
        {"logical_count": torch.zeros(2, 3)},
        r"logical_count is float32 of shape \(2, 3\); allowed are integers",
    )
    dump = per_token(torch, routing)
    dump["records"][1]["topk_ids_of_layer"] = dump["records"][1]["topk_ids_of_layer"] + 8
    fails(dump, r"layer \d has expert \d+, the map has shape \(3, 7\)")
    dump = per_token(torch, routing)
    dump["records"][0]["positions"] = [1, 2]
    fails(dump, "positions has 2 tokens, topk_ids_of_layer 20")
    dump = per_token(torch, routing)
    del dump["last_physical_to_logical_map"]
    fails(dump, "do not say how many experts")


def test_loads_are_counts(tmp_path):
    statistics = RouterStatistics(3, 1)
    for load, message in (
        ([1, -1, 2], "load holds -1"),
        ([1, 2], r"load has shape \(2,\)"),
        ([1.5, 0, 0], "float64"),
    ):
        with pytest.raises(ValueError, match=message):
            statistics.add_load(0, load)
    assert not statistics.layers


# --- parquet ---


def write_parquet(path, routing, layers=LAYERS, keys=None, **options):
    import pyarrow as pa
    import pyarrow.parquet

    columns = {
        key: np.concatenate([array[i] if key in MAIN else array for i in range(layers)]).tolist()
        for key, array in routing.items() if keys is None or key in keys
    }  # fmt: skip
    columns["layer"] = np.repeat(np.arange(layers), N)
    pyarrow.parquet.write_table(pa.table(columns), path, **options)


@pytest.mark.parametrize("batch", [7, 33, 65_536])
def test_parquet_in_batches(tmp_path, routing, monkeypatch, batch):
    monkeypatch.setattr("expertbank.routers.formats._common.BATCH", batch)
    write_parquet(tmp_path / "a.parquet", routing, row_group_size=11)
    same(statistics_of(tmp_path / "a.parquet", n_positions=5, n_tokens=9), expected(routing))


def test_parquet_of_ragged_and_of_fixed_lists(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet

    ragged = pa.table(
        {"chosen": [[0, 1], [2], [], [3, 0]], "weights": [[0.5, 0.2], [1.0], [], [0.1, 0.1]]}
    )
    pyarrow.parquet.write_table(ragged, tmp_path / "a.parquet")
    [(layer, arrays)] = read_routing(tmp_path / "a.parquet", n_experts=4)
    assert layer == 0
    assert arrays["chosen"].tolist() == [[0, 1], [2, -1], [-1, -1], [3, 0]]
    assert statistics_of(tmp_path / "a.parquet", n_experts=4).layers[0].sizes.tolist() == [1, 1, 2]
    fixed = pa.table({"chosen": pa.array([[0, 1], [2, 3]], pa.list_(pa.int16(), 2))})
    pyarrow.parquet.write_table(
        fixed.replace_schema_metadata({"n_experts": "4"}), tmp_path / "b.parquet"
    )
    assert statistics_of(tmp_path / "b.parquet").layers[0].slots.tolist() == [1, 1, 1, 1]


def test_a_sequence_keeps_its_slots_across_batches_of_other_widths(tmp_path, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet

    chosen = [[0], [1], [2], [0, 1], [1, 2], [3], [0]]
    weights = [[1.0], [1.0], [1.0], [0.5, 0.5], [0.7, 0.3], [1.0], [1.0]]
    sequence = [0, 0, 0, 0, 0, 1, 1]
    columns = {"chosen": chosen, "weights": weights, "sequence": sequence}
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    whole = statistics_of(tmp_path / "a.parquet", n_experts=4)
    assert whole.layers[0].sizes.tolist() == [0, 5, 2]
    # the first batches have one slot, the next two of the same sequence have two
    monkeypatch.setattr("expertbank.routers.formats._common.BATCH", 3)
    same(statistics_of(tmp_path / "a.parquet", n_experts=4), whole)
    pieces = [arrays["chosen"].tolist() for _, arrays in read_routing(tmp_path / "a.parquet")]
    assert pieces[0] == [[0, -1], [1, -1], [2, -1], [0, 1], [1, 2]]


def test_parquet_faults(tmp_path, routing, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet

    def fails(columns, message):
        pyarrow.parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
        with pytest.raises(ValueError, match=rf"a\.parquet.*{message}"):
            statistics_of(tmp_path / "a.parquet", n_experts=4)

    fails({"chosen": [1, 2]}, "chosen is int64; allowed are lists")
    fails({"choices": [[1, 2]]}, r"has columns \['choices'\]; allowed are chosen")
    fails({"domain": [1]}, "chosen or probabilities is needed")
    fails({"chosen": [[1], None]}, "chosen has 1 nulls")
    fails({"chosen": [[1], [None]]}, "chosen has dtype float64; allowed are integers")
    fails(
        {"chosen": [[1.5]]},
        "chosen has dtype double|chosen has dtype float64; allowed are integers",
    )
    fails({"chosen": [[7]]}, "chosen holds expert 7, n_experts is 4")
    fails({"chosen": [[1]], "domain": [[1]]}, "domain is list.*; allowed is one value a row")
    fails(
        {"chosen": [[1], [2]], "probabilities": [[0.5, 0.5], [1.0]]},
        "probabilities has lists of 1 to 2",
    )
    monkeypatch.setattr("expertbank.routers.formats._common.BATCH", 2)
    fails(
        {"chosen": [[1]] * 6, "sequence": [0, 0, 1, 1, 0, 0]},
        "sequence 0 comes after sequence 1; sort the rows",
    )


def test_parquet_stays_within_bounds(tmp_path, rng):
    """A million rows are read a batch at a time."""
    import pyarrow as pa
    import pyarrow.parquet

    n = 1_000_000
    chosen = pa.FixedSizeListArray.from_arrays(rng.integers(0, 4, n).astype(np.int16), 1)
    table = pa.table({"chosen": chosen, "sequence": np.arange(n) // 100})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    sizes = [len(arrays["chosen"]) for _, arrays in read_routing(tmp_path / "a.parquet")]
    assert max(sizes) <= 65_536 + 100 and sum(sizes) == n


# --- responses as JSON ---


def as_npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return base64.b64encode(file.getvalue()).decode()


def write_lines(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def routes(rng, n, dtype=np.int16):
    return requests(rng, (n,))[0].astype(dtype)


def rows_of(path, layer=1, **options):
    """Choices, sequences and positions of the rows that count."""
    chosen = []
    sequence = []
    position = []
    for name, arrays in read_routing(path, **options):
        keep = arrays.get("mask", np.ones(len(arrays["chosen"]), bool))
        if name == layer:
            chosen += arrays["chosen"][keep].tolist()
            sequence += arrays["sequence"][keep].tolist()
            position += arrays["position"][keep].tolist()
    names = {name: i for i, name in enumerate(dict.fromkeys(sequence))}
    return chosen, [names[name] for name in sequence], position


def vllm_response(*arrays, n_prompt=None, **more):
    """As /v1/completions answers: a base64 of npy (P + N - 1, L, k) a choice."""
    choices = [
        {"index": i, "text": "", "routed_experts": array if array is None else as_npy(array)}
        for i, array in enumerate(arrays)
    ]
    usage = {"prompt_tokens": n_prompt, "total_tokens": 9} if n_prompt else None
    return {"object": "text_completion", "choices": choices, "usage": usage, **more}


def test_vllm_responses(tmp_path, rng):
    one, two = routes(rng, 5, np.uint8), routes(rng, 4, np.uint8)
    path = write_lines(tmp_path / "v.jsonl", vllm_response(one), vllm_response(two))
    chosen, sequence, position = rows_of(path)
    assert chosen == [*one[:, 1].tolist(), *two[:, 1].tolist()]
    assert sequence == [0] * 5 + [1] * 4 and position == [*range(5), *range(4)]
    found = statistics_of(path, n_experts=E)
    assert found.layers[0].tokens == 9 and found.layers[0].unrouted == 0
    # the same as one .json, of one response and of a list
    (tmp_path / "v.json").write_text(json.dumps([vllm_response(one), vllm_response(two)], indent=1))
    assert rows_of(tmp_path / "v.json")[0] == chosen
    (tmp_path / "w.json").write_text(json.dumps(vllm_response(one)))
    assert rows_of(tmp_path / "w.json")[0] == one[:, 1].tolist()


def test_vllm_completions_share_their_prompt(tmp_path, rng):
    prompt, first, second = routes(rng, 4), routes(rng, 3), routes(rng, 2)
    arrays = [np.concatenate([prompt, answer]) for answer in (first, second)]
    path = write_lines(tmp_path / "v.jsonl", vllm_response(*arrays, n_prompt=4))
    chosen, sequence, position = rows_of(path)
    assert chosen == [*arrays[0][:, 1].tolist(), *second[:, 1].tolist()]
    assert sequence == [0] * 7 + [1] * 2 and position == [*range(7), 4, 5]
    found = statistics_of(path, n_experts=E)
    assert found.layers[0].tokens == 9 and found.layers[0].unrouted == 0
    write_lines(path, vllm_response(*arrays))
    with pytest.raises(ValueError, match=r"line 1 has several choices and no usage\.prompt_tokens"):
        statistics_of(path, n_experts=E)
    # of vLLM 0.21: nested lists, the prompt once beside the choices
    choices = [{"routed_experts": answer.tolist()} for answer in (first, second)]
    write_lines(path, {"prompt_routed_experts": prompt.tolist(), "choices": choices})
    assert rows_of(path) == (chosen, sequence, position)


def test_vllm_prompt_start_tokens_and_domains(tmp_path, rng):
    array = routes(rng, 4)
    tokens = {"prompt_token_ids": [5, 6, 7, 8], "n_prompt": 4}
    record = {
        "request": {"prompt": "x", "routed_experts_prompt_start": 2},
        "response": vllm_response(array, **tokens),
        "domain": "poems",
    }
    record["response"]["choices"][0]["token_ids"] = [3, 2, 1]
    other = {"response": vllm_response(array), "domain": "code"}
    path = write_lines(tmp_path / "v.jsonl", record, other)
    arrays = next(arrays for _, arrays in read_routing(path, domains=["code", "poems"]))
    assert arrays["position"].tolist() == [2, 3, 4, 5, 0, 1, 2, 3]
    assert arrays["token"].tolist() == [7, 8, 3, 2] + [-1] * 4
    assert arrays["domain"].tolist() == [1] * 4 + [0] * 4
    # by the alphabet where no order is given
    found = statistics_of(path, n_experts=E)
    assert found.layers[0].domains.sum(axis=1).tolist() == [8, 8] and found.n_domains == 2
    with pytest.raises(ValueError, match=r"domain is 'poems'; allowed are .'code'., which"):
        statistics_of(path, n_experts=E, domains=["code"])
    write_lines(path, {**other, "domain": 999_999})
    with pytest.raises(ValueError, match="domain is 999999; allowed is below 65,536, or a name"):
        statistics_of(path, n_experts=E)
    record["response"]["choices"][0]["token_ids"] = [3]
    write_lines(path, record)
    with pytest.raises(ValueError, match="is routed_experts_prompt_start missing"):
        statistics_of(path, n_experts=E)


def test_rows_without_a_route_are_left_out_counted_and_reported(tmp_path, rng):
    cached = routes(rng, 6)
    cached[:2] = -1
    cached[5] = 0  # not captured: k = 2 distinct experts are not all 0
    dense = cached.copy()
    dense[:, 0] = 0
    for name, array in (("a", cached), ("b", dense)):
        path = write_lines(tmp_path / f"{name}.jsonl", vllm_response(array), vllm_response(None))
        found = statistics_of(path, n_experts=E)
        assert list(found.layers) == ([0, 1, 2] if name == "a" else [1, 2])
        layer = found.layers[1]
        assert (layer.tokens, layer.unrouted, layer.sizes.tolist()) == (3, 3, [0, 0, 3])
        np.save(tmp_path / f"{name}.npy", array)
        assert statistics_of(tmp_path / f"{name}.npy", n_experts=E).layers[1].unrouted == 3
    report = routing_report(found)
    assert [layer.unrouted for layer in report.layers] == [3, 3]
    assert "no route" in report.table() and "no route" in html_page(report)
    assert (found + found).layers[1].unrouted == 6
    cached[:] = -1
    np.save(tmp_path / "c.npy", cached)
    with pytest.raises(ValueError, match=r"c\.npy: none of 6 rows holds a route"):
        statistics_of(tmp_path / "c.npy", n_experts=E)


def test_statistics_of_earlier_files_have_no_rows_without_a_route(tmp_path, routing):
    one = expected(routing)
    one.save(tmp_path / "new.npz")
    with np.load(tmp_path / "new.npz") as archive:
        arrays = {name: a for name, a in archive.items() if not name.endswith(".unrouted")}
    assert len(arrays) < len(np.load(tmp_path / "new.npz"))
    np.savez(tmp_path / "old.npz", **arrays)
    same(statistics_of(tmp_path / "old.npz"), one)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({}, "no choice has routed_experts"),
        ({"routed_experts": None}, "no choice has routed_experts"),
        ({"routed_experts": "@@"}, "routed_experts is no base64; was it cut off"),
        ({"routed_experts": as_npy(np.zeros(3))[:40]}, "line 1 cannot be read at routed_experts"),
        ({"routed_experts": as_npy(np.zeros(3))}, "routed_experts is float64 of shape"),
        ({"routed_experts": base64.b64encode(b"text").decode()}, "holds no npy file"),
        ({"routed_experts": [[[0, 1]], [[0]]]}, "inhomogeneous"),
        ({"routed_experts": [[["0"]]]}, "routed_experts is <U1 of shape"),
        ({"routed_experts": 7}, "routed_experts is a int; allowed is base64"),
        ({"routed_experts": [[[0, 9]]]}, "chosen holds expert 9, n_experts is 6"),
        ({"routed_experts": [[[0, -1]]]}, "a row of which some experts are missing"),
        ({"routed_experts": [[[2, 2]]]}, "names an expert twice"),
    ],
)
def test_vllm_response_faults(tmp_path, choice, message):
    path = write_lines(tmp_path / "v.jsonl", {"choices": [choice]})
    with pytest.raises(ValueError, match=rf"v\.jsonl.*{message}"):
        statistics_of(path, "vllm-http", n_experts=E)


def test_pickles_in_responses_are_refused_and_not_run(tmp_path):
    folder = tmp_path / "made"
    file = io.BytesIO()
    np.save(file, np.array([[[Hostile(folder)]]], object), allow_pickle=True)
    text = base64.b64encode(file.getvalue()).decode()
    path = write_lines(tmp_path / "v.jsonl", {"choices": [{"routed_experts": text}]})
    with pytest.raises(ValueError, match=r"line 1 cannot be read at routed_experts.*may run code"):
        statistics_of(path, n_experts=E)
    assert not folder.exists()


def test_lines_that_are_damaged_or_without_end(tmp_path, rng, monkeypatch):
    path = write_lines(tmp_path / "v.jsonl", vllm_response(routes(rng, 4)))
    path.write_text(path.read_text() + '{"choices": [')
    with pytest.raises(ValueError, match=r"v\.jsonl, line 2 cannot be read as JSON"):
        statistics_of(path, n_experts=E)
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="line 1 cannot be read as JSON"):
        statistics_of(path, "vllm-http", n_experts=E)
    path.write_text("7\n")
    with pytest.raises(ValueError, match="line 1 is a int; allowed are objects"):
        statistics_of(path, n_experts=E)
    path.write_text("{}\n")
    with pytest.raises(ValueError, match=r"v\.jsonl is not recognised; give format"):
        statistics_of(path, n_experts=E)
    monkeypatch.setattr("expertbank.routers.formats._json_lines.LONGEST_RECORD", 99)
    write_lines(path, vllm_response(routes(rng, 4)))
    with pytest.raises(ValueError, match=r"line 1 is longer than 99 bytes; write a .jsonl"):
        statistics_of(path, "vllm-http", n_experts=E)


# --- vLLM 0.21, offline ---


def test_vllm_offline_completions_and_several_requests(tmp_path, rng):
    sizes = {"": 3, "_7": 2}
    arrays = {f"prompt_routed_experts{end}": routes(rng, n) for end, n in sizes.items()}
    arrays |= {name: routes(rng, 2) for name in ("routed_experts_0", "routed_experts_1")}
    arrays["routed_experts_7"] = routes(rng, 4)
    arrays["prompt_routed_experts_7"][0] = -1  # cached
    np.savez(tmp_path / "v.npz", **arrays, domain=[0, 1])
    chosen, sequence, position = rows_of(tmp_path / "v.npz")
    order = ("prompt_routed_experts", "routed_experts_0", "routed_experts_1")
    own = [arrays[name][:, 1].tolist() for name in (*order, "routed_experts_7")]
    assert chosen == [
        *own[0],
        *own[1],
        *own[2],
        *arrays["prompt_routed_experts_7"][1:, 1].tolist(),
        *own[3],
    ]
    assert sequence == [0] * 5 + [1] * 2 + [2] * 5
    assert position == [0, 1, 2, 3, 4, 3, 4, *range(1, 6)]
    found = statistics_of(tmp_path / "v.npz", n_experts=E)
    assert found.layers[0].domains.sum(axis=1).tolist() == [14, 10]
    assert found.layers[0].unrouted == 1
    np.savez(tmp_path / "w.npz", **arrays, answer=routes(rng, 2))
    with pytest.raises(ValueError, match="answer belongs to no prompt; allowed is routed_experts"):
        statistics_of(tmp_path / "w.npz", n_experts=E)


# --- SGLang's server ---


def sglang_response(ids, n_prompt, dtype="int32", **more):
    text = base64.b64encode(ids.astype(dtype).tobytes()).decode()
    n = len(ids) + more.get("routed_experts_start_len", 0)
    meta = {"prompt_tokens": n_prompt, "completion_tokens": n + 1 - n_prompt, "id": "x"}
    return {"text": "", "meta_info": {**meta, "routed_experts": text, **more}}


def test_sglang_responses(tmp_path, rng):
    one, two = routes(rng, 5), routes(rng, 4)
    one[:, 0] = -1  # a dense layer
    two[:, 0] = -1
    two[1] = -1
    records = sglang_response(one, 3), sglang_response(two, 4, routed_experts_start_len=2)
    path = write_lines(tmp_path / "s.jsonl", *records)
    chosen, sequence, position = rows_of(path, n_chosen=K)
    assert chosen == [*one[:, 1].tolist(), *two[[0, 2, 3], 1].tolist()]
    assert sequence == [0] * 5 + [1] * 3 and position == [0, 1, 2, 3, 4, 2, 4, 5]
    found = statistics_of(path, n_experts=E, n_chosen=K)
    assert list(found.layers) == [1, 2] and found.layers[1].unrouted == 1
    with pytest.raises(ValueError, match=r"has 6 numbers a token, .*; give n_chosen"):
        statistics_of(path, n_experts=E)
    # of the OpenAI endpoints, in the narrow type that newer servers say
    choice = sglang_response(routes(rng, 5), 3, "uint8", routed_experts_dtype="uint8")
    write_lines(path, {"choices": [choice]})
    assert statistics_of(path, n_experts=E, n_chosen=K).layers[1].tokens == 5


def test_sglang_completions_of_one_prompt_count_it_once(tmp_path, rng):
    prompt = routes(rng, 3)
    answers = [sglang_response(np.concatenate([prompt, routes(rng, n)]), 3) for n in (2, 1)]
    write_lines(tmp_path / "s.jsonl", answers)
    _, sequence, position = rows_of(tmp_path / "s.jsonl", n_chosen=K)
    assert sequence == [0] * 5 + [1] and position == [0, 1, 2, 3, 4, 3]
    # equal prompts of two requests are two prompts
    write_lines(tmp_path / "s.jsonl", *answers)
    assert len(rows_of(tmp_path / "s.jsonl", n_chosen=K)[1]) == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt_tokens": None}, "no prompt_tokens or completion_tokens"),
        ({"completion_tokens": 9}, "which are no 11 tokens"),
        ({"completion_tokens": -1}, "completion_tokens is '-1'; allowed is a count"),
        ({"routed_experts_dtype": "int64"}, "is of 'int64'; allowed is int32"),
        ({"routed_experts": "AAA"}, "is no base64"),
        ({"routed_experts": ""}, "which are no 4 tokens"),
    ],
)
def test_sglang_response_faults(tmp_path, rng, change, message):
    record = sglang_response(routes(rng, 4), 3)
    record["meta_info"] |= change
    path = write_lines(tmp_path / "s.jsonl", record)
    with pytest.raises(ValueError, match=rf"s\.jsonl, line 1.*{message}"):
        statistics_of(path, n_experts=E, n_chosen=K)


def test_sglang_passes_do_not_overflow(tmp_path, torch):
    counts = torch.full((1, 3), 2**30, dtype=torch.int32)
    dump = {"records": [{"global_physical_count": counts}] * 5}
    torch.save(dump, tmp_path / "s.pt")
    assert statistics_of(tmp_path / "s.pt").layers[0].slots.tolist() == [5 * 2**30] * 3
    torch.save({"logical_count": counts.repeat(5, 1, 1)}, tmp_path / "t.pt")
    assert statistics_of(tmp_path / "t.pt").layers[0].slots.tolist() == [5 * 2**30] * 3


# --- Megatron-Core's router trace ---


def bfloat16(array):
    return (np.asarray(array, np.float32).view(np.uint32) >> 16).astype("<u2")


def write_trace(folder, rng, rank=0, logits=True, state=None):
    """Two steps of two microbatches through layers 1 and 3 and a head of MTP."""
    records = []
    kept = {}
    with open(folder / f"logits_rank{rank}.bin", "wb") as file:
        for step, (block, layer) in [
            (step, layer)
            for step in (0, 1)
            for _ in range(2)
            for layer in (("decoder", 1), ("decoder", 3), ("mtp", 1))
        ]:
            words = bfloat16(rng.normal(size=(4, E)))
            scores = (words.astype(np.uint32) << 16).view(np.float32).astype(float)
            chosen = np.argsort(-scores, axis=1)[:, :K]
            record = {"step": step, "stage": "pre_dispatch", "block": block, "layer": layer}
            record |= {"rank": rank, "num_tokens": 4, "topk": K, "top_indices": chosen.tolist()}
            if block == "mtp":
                record["mtp_idx"] = 0
            if logits:
                record |= {"logit_offset": file.tell(), "logit_bytes": words.nbytes}
                record["logit_shape"] = [4, E]
                file.write(words.tobytes())
            records.append(record)
            name = layer if block == "decoder" else "mtp0.1"
            kept.setdefault(name, []).append((chosen, scores))
    if state is not None:
        import torch

        layers = {1: {"weight": torch.zeros(E, 2), "expert_bias": None, "score_function": state}}
        torch.save(layers, folder / f"router_state_rank{rank}.pt")
    return write_lines(folder / f"router_trace_rank{rank}.jsonl", *records), kept


@pytest.mark.parametrize("score", [None, "softmax", "sigmoid"])
def test_megatron_trace_with_logits(tmp_path, rng, torch, score):
    path, kept = write_trace(tmp_path, rng, state=score)
    found = statistics_of(path)
    assert list(found.layers) == [1, 3, "mtp0.1"]
    wanted = RouterStatistics(E, K)
    for layer, parts in kept.items():
        chosen, scores = (np.concatenate(part) for part in zip(*parts))
        share = 1 / (1 + np.exp(-scores)) if score == "sigmoid" else np.exp(scores)
        probabilities = share / share.sum(axis=1, keepdims=True)
        microbatch = np.arange(len(chosen)) // 4
        wanted.update(layer, chosen, probabilities=probabilities, step=microbatch)
    same(found, wanted)
    # a piece is a step, and a folder is the trace without what stands beside it
    sizes = [len(arrays["chosen"]) for layer, arrays in read_routing(path) if layer == 1]
    assert sizes == [8, 8]
    same(statistics_of(tmp_path), wanted)
    assert list(statistics_of(path, layers=[3]).layers) == [3]


def test_megatron_trace_without_logits_and_of_ranks(tmp_path, rng):
    path, _ = write_trace(tmp_path, rng, logits=False)
    with pytest.raises(ValueError, match="do not say how many experts there are; give n_experts"):
        statistics_of(path)
    other, _ = write_trace(tmp_path, rng, rank=1, logits=False)
    assert statistics_of([path, other], n_experts=E).layers[1].tokens == 32
    # ranks of one tensor-parallel group write the same tokens
    other.write_text(path.read_text().replace('"rank": 0', '"rank": 1'))
    with pytest.raises(ValueError, match=r"rank1.jsonl and router_trace_rank0.jsonl hold the same"):
        statistics_of([path, other], n_experts=E)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_tokens": 5}, "top_indices is int64 of shape .4, 2.; .* promise integers of .5, 2."),
        ({"topk": None}, "num_tokens and topk, counts"),
        ({"layer": "x"}, "layer is 'x'; allowed is a count"),
        ({"layer": None}, "has a layer, a number"),
        ({"block": 3}, "a block, a name"),
        ({"top_indices": [[0, 1.5]] * 4}, "top_indices is float64"),
        ({"logit_offset": 10**6}, "logits_rank0.bin ends before byte 1,000,048"),
        ({"logit_offset": -1}, "logit_offset is '-1'; allowed is a count"),
        ({"logit_shape": [4, 2**40]}, "logit_shape is '1099511627776'; allowed is a count"),
        ({"logit_shape": [4, 2**39]}, "logit_bytes is 48"),
        ({"logit_shape": [[4], E]}, "logit_shape is .*; allowed is .4, experts."),
        ({"logit_bytes": 10}, "logit_bytes is 10"),
        ({"rank": "../../etc/x"}, "logit_offset is '../../etc/x'; allowed is a count"),
        ({"rank": 7}, "logits_rank7.bin does not exist"),
    ],
)
def test_megatron_faults(tmp_path, rng, change, message):
    path, _ = write_trace(tmp_path, rng)
    first, *rest = map(json.loads, path.read_text().splitlines())
    write_lines(path, *rest, first | change)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        statistics_of(path)


def test_a_hostile_router_state_is_refused_and_not_run(tmp_path, rng, torch):
    path, _ = write_trace(tmp_path, rng)
    torch.save(Hostile(tmp_path / "made"), tmp_path / "router_state_rank0.pt")
    with pytest.raises(ValueError, match=r"router_state_rank0\.pt is refused.*could run code"):
        statistics_of(path)
    assert not (tmp_path / "made").exists()
    torch.save({0: {"score_function": "sqrtsoftplus"}}, tmp_path / "router_state_rank0.pt")
    with pytest.raises(ValueError, match=r"score functions .'sqrtsoftplus'.; allowed is softmax"):
        statistics_of(path)


# --- counts of trainers ---


def test_tokens_per_expert_of_all_layers_and_of_one(tmp_path):
    whole = write_lines(
        tmp_path / "a.jsonl",
        {"step": 1, "tokens_per_expert": [[4.0, 0.0, 2.0], [0, 0, 0], [1, 1, 4]]},
        {"step": 2, "tokens_per_expert": [[1, 2, 3], [0, 0, 0], [2**40, 0, 0]]},
    )
    found = statistics_of(whole)
    assert {name: layer.slots.tolist() for name, layer in found.layers.items()} == {
        0: [5, 2, 5],
        2: [2**40 + 1, 1, 4],
    }
    single = write_lines(
        tmp_path / "b.jsonl",
        {"step": 1, "layer_id": 4, "tokens_per_expert": [1, 2]},
        {"step": 1, "layer": "last", "tokens_per_expert": [3, 0]},
        {"step": 2, "tokens_per_expert": {"4": [1, 1]}},
    )
    found = statistics_of(single)
    assert found.layers[4].slots.tolist() == [2, 3] and found.layers["last"].slots[0] == 3
    # each line is a step of its own
    assert found.layers[4].steps == 2
    assert found.layers[4].mean_step_violation == pytest.approx((1 / 3 + 0) / 2)


def test_many_steps_are_read_in_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("expertbank.routers.formats.tokens_per_expert.MOST_STEPS", 3)
    loads = np.random.default_rng(0).integers(0, 9, (8, 4))
    records = [{"layer": 0, "tokens_per_expert": load.tolist()} for load in loads]
    path = write_lines(tmp_path / "a.jsonl", *records)
    assert len(list(read_routing(path))) == 4
    [layer] = statistics_of(path).layers.values()
    assert layer.slots.tolist() == loads.sum(axis=0).tolist() and layer.steps == 8
    assert layer.step_violation(1) == max(max_violation(load) for load in loads)


def test_a_file_without_steps_is_cut_into_them_where_that_is_asked_for(tmp_path, routing):
    np.savez(tmp_path / "a.npz", **routing)
    assert statistics_of(tmp_path / "a.npz").layers[0].steps == 0
    layer = statistics_of(tmp_path / "a.npz", step=8).layers[0]
    counted = routing["chosen"][0][routing["mask"]]
    assert len(counted) % 8 == 2  # of which nothing is made
    loads = [np.bincount(counted[i : i + 8].ravel(), minlength=E) for i in range(0, 32, 8)]
    assert layer.steps == 4
    expected = np.mean([max_violation(load) for load in loads])
    assert layer.mean_step_violation == pytest.approx(expected)
    with pytest.raises(ValueError, match="step is 0"):
        statistics_of(tmp_path / "a.npz", step=0)


def test_tokens_per_expert_of_megatron_are_of_a_rank_alone(tmp_path):
    for rank in range(4):  # two devices to the experts of a layer, two times
        record = {"iter": 100, "block": "decoder", "layer": 3, "tpe": [[rank, 1], [10, 1]]}
        other = {"iter": 100, "block": "mtp", "mtp_idx": 0, "layer": 1, "tpe": [[0, 7]]}
        write_lines(tmp_path / f"rank{rank}.jsonl", record, other)
    found = statistics_of(tmp_path, n_experts=4)
    assert found.layers[3].slots.tolist() == [22, 4, 24, 4]
    assert found.layers["mtp0.1"].slots.tolist() == [0, 14, 0, 14]
    with pytest.raises(ValueError, match="do not say how many experts there are; give n_experts"):
        statistics_of(tmp_path)
    with pytest.raises(ValueError, match="has counts of 2 experts, n_experts is 5; allowed are"):
        statistics_of(tmp_path, n_experts=5)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"tokens_per_expert": [[1, -2]]}, "a count is -2; allowed are whole numbers"),
        ({"tokens_per_expert": [[0.5, 0.5]]}, "a count is 0.5"),
        ({"tokens_per_expert": [[1e300, 1]]}, r"a count is 1e\+300"),
        ({"tokens_per_expert": [1, 2]}, "counts are int64 of shape"),
        ({"tokens_per_expert": 3}, "allowed are lines with tokens_per_expert, and layer"),
        ({"tokens_per_expert": [["a"]]}, "counts are <U1"),
        ({"tokens_per_expert": [[1, 2, 3]], "layer": 0}, "counts are int64 of shape .1, 3."),
        ({"tokens_per_expert": [[1], [2, 3]]}, "say that there are .1, 2. experts"),
        ({"tpe": [[1, 2]], "layer": None}, "allowed are lines with tokens_per_expert, and layer"),
    ],
)
def test_tokens_per_expert_faults(tmp_path, record, message):
    path = write_lines(tmp_path / "c.jsonl", record)
    with pytest.raises(ValueError, match=rf"c\.jsonl.*{message}"):
        statistics_of(path)


# --- R3: routes to be replayed ---


def padded(rng, lengths=(5, 3), fill="arange", n=7):
    """A batch as NeMo-RL pads it: the last token of a sequence never ran and is filled too."""
    batch = np.zeros((len(lengths), n, LAYERS, K), np.int16)
    batch[:] = np.arange(K) if fill == "arange" else fill
    for i, length in enumerate(lengths):
        batch[i, : length - 1] = routes(rng, length - 1)
    return batch


@pytest.mark.parametrize("fill", ["arange", -1, 0])
@pytest.mark.parametrize("beside", [None, "input_lengths", "attention_mask"])
@pytest.mark.parametrize("suffix", ["npz", "pt"])
def test_r3_batches(tmp_path, rng, torch, fill, beside, suffix):
    batch = padded(rng, fill=fill)
    lengths = np.array([5, 3])
    more = {}
    if beside == "input_lengths":
        more = {beside: lengths}
    elif beside == "attention_mask":
        more = {beside: (np.arange(7) < lengths[:, None]).astype(int)}
    path = tmp_path / f"r.{suffix}"
    if suffix == "npz":
        np.savez(path, routed_experts=batch, domain=["b", "a"], **more)
    else:
        arrays = {"rollout_routed_experts": batch, "domain": np.array([1, 0]), **more}
        torch.save({name: torch.tensor(array) for name, array in arrays.items()}, path)
    chosen, sequence, position = rows_of(path)
    assert chosen == [*batch[0, :4, 1].tolist(), *batch[1, :2, 1].tolist()]
    assert sequence == [0] * 4 + [1] * 2 and position == [0, 1, 2, 3, 0, 1]
    layer = statistics_of(path, n_experts=E).layers[1]
    assert (layer.tokens, layer.unrouted) == (6, 8)
    assert layer.domains.sum(axis=1).tolist() == [4, 8]


def test_r3_knows_padding_from_a_route_where_lengths_are_given(tmp_path, rng):
    batch = padded(rng, (7, 7))
    batch[:, 3:] = np.arange(K)  # really chosen, of all but the last
    np.savez(tmp_path / "a.npz", routed_experts=batch, input_lengths=[6, 6])
    assert statistics_of(tmp_path / "a.npz", n_experts=E).layers[0].tokens == 10
    np.savez(tmp_path / "b.npz", routed_experts=batch)
    assert statistics_of(tmp_path / "b.npz", n_experts=E).layers[0].tokens == 6


def test_r3_padded_on_the_left_and_samples_of_their_own_lengths(tmp_path, rng, torch):
    batch = padded(rng, (5,), fill=0)[:, ::-1]
    mask = np.array([[0, 0, 0, 1, 1, 1, 1]])
    np.savez(tmp_path / "a.npz", routed_experts=batch, attention_mask=mask)
    assert rows_of(tmp_path / "a.npz")[2] == [0, 1, 2, 3]
    samples = [torch.tensor(routes(rng, n)) for n in (4, 2)]
    torch.save({"rollout_routed_experts": samples}, tmp_path / "b.pt")
    assert rows_of(tmp_path / "b.pt")[1] == [0] * 4 + [1] * 2


def envelope(ids):
    text = base64.b64encode(np.ascontiguousarray(ids).tobytes()).decode()
    return f"nrlre1:{ids.dtype}:{'x'.join(map(str, ids.shape))}:{text}"


def test_r3_dumps_and_envelopes_of_nemo_rl(tmp_path, rng):
    one, two = routes(rng, 5), routes(rng, 3)
    rows = [
        {"step": 1, "input_lengths": [len(a)], "routed_experts": [a.tolist()]} for a in (one, two)
    ]
    path = write_lines(tmp_path / "train_data_step1.jsonl", *rows)
    wanted = [*one[:, 1].tolist(), *two[:, 1].tolist()]
    assert rows_of(path)[0] == wanted
    messages = [{"role": "assistant", "routed_experts": envelope(a)} for a in (one, two)]
    write_lines(path, *[{"choices": [{"message": message}]} for message in messages])
    assert rows_of(path)[0] == wanted
    for bad, says in (
        ("nrlre1:int16:5x3:AA", "is no envelope"),
        ("nrlre1:int64:1x1x1:AA==", "is of 'int64'"),
        ("nrlre1:int16:5x3x2:AAAA", "has 1 numbers|cannot be read|5x3x2 are promised"),
        ("nrlre1:int16:5x3x999999999999999:AAAA", "is no envelope"),
    ):
        messages[0]["routed_experts"] = bad
        write_lines(path, {"choices": [{"message": messages[0]}]})
        with pytest.raises(ValueError, match=says):
            statistics_of(path, n_experts=E)


def test_r3_faults(tmp_path, rng, torch):
    batch = padded(rng)

    def fails(message, **arrays):
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(ValueError, match=rf"a\.npz.*{message}"):
            statistics_of(tmp_path / "a.npz", n_experts=E)

    fails("is float64 of shape", routed_experts=batch.astype(float))
    fails("input_lengths is int64 of shape", routed_experts=batch, input_lengths=[1])
    fails("attention_mask is float64", routed_experts=batch, attention_mask=np.ones((2, 7)))
    batch[0, 0, 0, 0] = -1
    fails("a row of which some experts are missing", routed_experts=batch)
    torch.save({"routed_experts": batch}, tmp_path / "b.pt")
    with pytest.raises(ValueError, match=r"b\.pt is refused: its pickle asks for"):
        statistics_of(tmp_path / "b.pt", n_experts=E)


# --- data frames ---


def test_names_of_sequences_and_domains(tmp_path, routing):
    import pyarrow as pa
    import pyarrow.parquet

    numbers = statistics_of_parquet(tmp_path / "a.parquet", routing)
    names = np.array(["poems", "code"])
    text = {**routing, "sequence": np.array([f"s{i}" for i in routing["sequence"]])}
    text["domain"] = names[routing["domain"]]
    found = statistics_of_parquet(tmp_path / "b.parquet", text)
    for name, layer in found.layers.items():
        other = numbers.layers[name]
        # code comes before poems
        np.testing.assert_array_equal(layer.domains, other.domains[::-1])
        assert layer.sequences == other.sequences and (layer.kept_ids >= 0).sum() == 8
        assert layer.mixed_sequences == 0
    # in a dictionary, as pandas writes categories; and in npz
    table = pa.parquet.read_table(tmp_path / "b.parquet")
    place = table.schema.get_field_index("domain")
    table = table.set_column(place, "domain", table["domain"].dictionary_encode())
    pa.parquet.write_table(table, tmp_path / "c.parquet")
    same(statistics_of(tmp_path / "c.parquet", **LABELLED), found)
    np.savez(tmp_path / "d.npz", **text)
    same(statistics_of(tmp_path / "d.npz", **LABELLED), found)
    # the order that is given holds in every part
    given = statistics_of(tmp_path / "d.npz", domains=names, n_experts=E, n_chosen=K, **ROOM)
    np.testing.assert_array_equal(given.layers[0].domains, numbers.layers[0].domains)
    with pytest.raises(ValueError, match=r"domain is 'code'; allowed are \[\], which `domains`"):
        statistics_of(tmp_path / "d.npz", n_experts=E, n_chosen=K, **ROOM)
    with pytest.raises(ValueError, match="domain is names in one place and numbers in another"):
        statistics_of([tmp_path / "a.parquet", tmp_path / "b.parquet"])


LABELLED = {"n_positions": 5, "n_tokens": 9}


def statistics_of_parquet(path, routing):
    write_parquet(path, routing)
    return statistics_of(path, **LABELLED)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
def test_unsigned_ids_keep_their_empty_slots(tmp_path, dtype):
    import pyarrow as pa
    import pyarrow.parquet

    kind = pa.list_(pa.from_numpy_dtype(dtype))
    chosen = pa.array([[0, 1], [2], [], [3, 0]], kind)
    sequence = np.array([0, 0, 1, 1], dtype)
    pa.parquet.write_table(
        pa.table({"chosen": chosen, "sequence": sequence}), tmp_path / "a.parquet"
    )
    found = statistics_of(tmp_path / "a.parquet", n_experts=256)
    layer = found.layers[0]
    assert layer.sizes.tolist() == [1, 1, 2] and layer.slots[:4].tolist() == [2, 1, 1, 1]
    assert layer.slots.sum() == 5 and layer.sequences == 2
    np.savez(tmp_path / "a.npz", chosen=np.array([[255, 1], [2, 0]], dtype), n_experts=256)
    assert statistics_of(tmp_path / "a.npz").layers[0].slots[255] == 1


def test_columns_are_renamed_or_left_out(tmp_path, routing):
    import pyarrow as pa
    import pyarrow.parquet

    write_parquet(tmp_path / "a.parquet", routing)
    table = pa.parquet.read_table(tmp_path / "a.parquet")
    new = {"chosen": "selected_experts", "weights": "gate_weights", "sequence": "doc"}
    table = table.rename_columns([new.get(name, name) for name in table.column_names])
    table = table.append_column("text", [["x"] * len(table)])
    pa.parquet.write_table(table, tmp_path / "b.parquet")
    columns = {"doc": "sequence", "text": None}
    found = statistics_of(tmp_path / "b.parquet", columns=columns, **LABELLED)
    same(found, expected(routing))
    with pytest.raises(ValueError, match=r"has columns \['doc', 'text'\]; allowed are chosen"):
        statistics_of(tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"selected_experts and doc are both chosen"):
        statistics_of(tmp_path / "b.parquet", columns={"doc": "chosen", "text": None})
    np.savez(tmp_path / "c.npz", **{new.get(key, key): array for key, array in routing.items()})
    same(statistics_of(tmp_path / "c.npz", columns={"doc": "sequence"}, **LABELLED), found)


# --- many files, some layers, little memory ---


def test_files_and_folders_in_one_call(tmp_path, rng):
    arrays = requests(rng)
    folder = tmp_path / "day" / "one"
    folder.mkdir(parents=True)
    np.save(tmp_path / "a.npy", arrays[0])
    np.savez(folder / "b.npz", x=arrays[1])
    write_lines(folder / "c.jsonl", vllm_response(arrays[2]))
    (folder / ".hidden.jsonl").write_text("{")
    (folder / "notes.md").write_text("#")
    found = statistics_of([tmp_path / "a.npy", tmp_path / "day"], n_experts=E)
    assert found.layers[0].tokens == 15 and found.layers[0].sequences == 3
    assert len(list(read_routing([tmp_path / "a.npy", tmp_path / "day"]))) == 3 * LAYERS
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no file that ends in"):
        statistics_of(tmp_path / "empty")
    (folder / "c.jsonl").write_text("{}")
    with pytest.raises(ValueError, match=r"c\.jsonl is not recognised"):
        statistics_of(tmp_path / "day", n_experts=E)


def test_a_sequence_in_two_files_is_refused(tmp_path, routing):
    paths = [tmp_path / "a.npz", tmp_path / "b.npz"]
    for path in paths:
        np.savez(path, **routing)
    with pytest.raises(ValueError, match=r"b\.npz: sequence 0 is in a file before it too"):
        statistics_of(paths)
    found = statistics_of(paths, by_file=True)
    assert (found.layers[0].kept_ids >= 0).sum() == 16
    # layers of the same sequences may stand in files of their own
    for i, path in enumerate(paths):
        own = {key: array[i] if key in MAIN else array for key, array in routing.items()}
        np.savez(path, **own, layer=i)
    assert list(statistics_of(paths).layers) == [0, 1]


def test_prompts_that_begin_alike_are_other_sequences(tmp_path, rng):
    start = routes(rng, 9)
    for name, last in (("a", 1), ("b", 2)):
        array = np.concatenate([start, np.full((1, LAYERS, K), [0, last])])
        np.save(tmp_path / f"{name}.npy", array.astype(np.int16))
    one, two = (next(read_routing(tmp_path / f"{n}.npy"))[1]["sequence"][0] for n in "ab")
    assert one != two
    # requests of equal length that differ after the first MiB
    whole = np.tile(routes(rng, 1), (200_000, 1, 1))
    for name, last in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        whole[-1] = [0, last]
        np.save(tmp_path / name / "x.npy", whole)
    one, two = (next(read_routing(tmp_path / n / "x.npy"))[1]["sequence"][0] for n in "ab")
    assert one != two


def test_only_the_layers_asked_for_are_read(tmp_path, routing, torch):
    np.savez(tmp_path / "a.npz", **routing)
    write_parquet(tmp_path / "a.parquet", routing, row_group_size=N)
    torch.save(per_token(torch, routing), tmp_path / "a.pt")
    for name in ("a.npz", "a.parquet", "a.pt"):
        found = statistics_of(tmp_path / name, layers=[1], n_experts=E)
        assert list(found.layers) == [1] and found.layers[1].tokens
    # row groups of other layers are not even looked at
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    import pyarrow.parquet

    group = pyarrow.parquet.ParquetFile(tmp_path / "a.parquet").metadata.row_group(2)
    start = group.column(0).data_page_offset
    data[start : start + 40] = bytes(40)
    (tmp_path / "b.parquet").write_bytes(bytes(data))
    same(
        statistics_of(tmp_path / "b.parquet", layers=[1]),
        statistics_of(tmp_path / "a.parquet", layers=[1]),
    )
    with pytest.raises(ValueError, match=r"b\.parquet"):
        statistics_of(tmp_path / "b.parquet")


@pytest.mark.parametrize("batch", [1, 7, 65_536])
def test_npz_in_batches_of_whole_sequences(tmp_path, routing, monkeypatch, batch):
    monkeypatch.setattr("expertbank.routers.formats._common.BATCH", batch)
    np.savez(tmp_path / "a.npz", **routing)
    same(statistics_of(tmp_path / "a.npz", **LABELLED), expected(routing))
    pieces = [arrays for layer, arrays in read_routing(tmp_path / "a.npz") if layer == 2]
    assert len(pieces) == {1: 8, 7: 4, 65_536: 1}[batch]
    # where a sequence comes back, all is read together
    np.savez(tmp_path / "b.npz", **{**routing, "sequence": np.arange(N) % 8})
    assert len(list(read_routing(tmp_path / "b.npz"))) == LAYERS
    rows = {
        key: np.concatenate([array[i] if key in MAIN else array for i in range(LAYERS)])
        for key, array in routing.items()
    }
    np.savez(tmp_path / "rows.npz", **rows, layer=np.repeat(np.arange(LAYERS), N))
    same(statistics_of(tmp_path / "rows.npz", **LABELLED), expected(routing))


LARGE = """
import resource, sys
import numpy as np
from expertbank.routers import statistics_of
from expertbank.routers.formats import FORMATS
sizes = {"n_experts": 8, "n_chosen": 2, "n_domains": 0}
statistics_of(sys.argv[1], **sizes)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = statistics_of(sys.argv[2], **sizes)
print(sum(int(layer.tokens) for layer in found.layers.values()))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("kind", ["npz", "jsonl", "requests"])
def test_large_files_are_read_in_little_memory(tmp_path, rng, kind):
    """96 MB of choices, in one pass, within 40 MB more than a small file takes."""
    rows = np.argsort(rng.random((250_000, 8)), axis=1)[:, :2].astype(np.int64)
    sizes = {"small": 1, "large": 24}
    for name, n in sizes.items():
        if kind == "npz":
            np.savez(tmp_path / f"{name}.npz", chosen=np.tile(rows, (n, 1)))
        elif kind == "requests":
            ids = rows[:, None].reshape(-1, 2, 2)
            parts = {f"r{i}": ids[: 125_000 // 5] for i in range(5 * n)}
            np.savez(tmp_path / f"{name}.npz", **parts)
        else:
            line = json.dumps(vllm_response(rows[:50_000].reshape(-1, 5, 2))) + "\n"
            with open(tmp_path / f"{name}.jsonl", "w") as file:
                file.writelines([line] * (5 * n))
    suffix = "jsonl" if kind == "jsonl" else "npz"
    paths = [str(tmp_path / f"{name}.{suffix}") for name in sizes]
    run = subprocess.run(
        [sys.executable, "-c", LARGE, *paths], capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    tokens, more = map(int, run.stdout.split())
    assert tokens == 24 * 250_000
    assert os.path.getsize(paths[1]) > 80_000_000 or kind == "jsonl"
    assert more < 40_000, f"{more} kB"


def test_every_format_names_its_writer_and_source():
    for format in FORMATS.values():
        assert format.writer
        if format.name not in ("npz", "parquet", "statistics"):
            assert " at " in format.source or "pull request" in format.source


def test_text_from_files_is_escaped_on_the_page(tmp_path):
    evil = "<script>\x1b[2J\u202e"
    path = write_lines(tmp_path / "c.jsonl", {"layer": evil, "tokens_per_expert": [1, 2]})
    page = html_page(routing_report(statistics_of(path)))
    assert evil not in page and "<script>\x1b" not in page and r"&lt;script&gt;\x1b[2J" in page
    write_lines(path, {"layer": 0, "tokens_per_expert": [1, 2], "block": evil})
    assert evil not in html_page(routing_report(statistics_of(path)))
