"""Readers of routing files: what was written comes back, and what is wrong or hostile is refused by
name."""

import os
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
from expertbank.routers.report import routing_report
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
        statistics.update(layer, **arrays)
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
        ("chosens", np.zeros(N), r"has keys \['chosens'\]; allowed are chosen, weights"),
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
        ValueError, match=r"a\.csv ends in '\.csv'; give format, one of npz, parquet"
    ):
        statistics_of(tmp_path / "a.csv")
    with pytest.raises(ValueError, match="format is 'csv'; allowed are npz"):
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


def read_csv(path):
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
    assert "csv         lines of chosen experts" in describe_formats()
    # the command line offers, explains and reads it too
    with pytest.raises(SystemExit):
        main(["routes", "report", "--help"])
    text = capsys.readouterr().out
    assert "vllm,csv}" in text and "lines of chosen experts" in text
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
        statistics.update(layer, together[:, layer], **labels)
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
        (lambda a: a - 1, r"routed_experts holds -1; vLLM's ids start at 0"),
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
        }
        statistics.update(layer, routing["chosen"][layer], sequence=sequence, **labels)
    same(numbered(found), numbered(statistics))


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
