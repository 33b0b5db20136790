"""The report's pictures and further tables: each against a plain computation, and its JSON against
the page."""

import dataclasses
import html.parser
import json
import re

import numpy as np
import pytest

from expertbank.cli import main
from expertbank.routers import (
    Agreement,
    RouterStatistics,
    compare_routing,
    routing_report,
)
from expertbank.routers.agreement import NEAR_TIE, TIE_MARGINS, layer_transitions
from expertbank.routers.communication import FACTORS, communication_costs, dropped_share
from expertbank.routers.layer_report import with_phases
from expertbank.routers.maps import FEWEST_OF_TOKEN, TOP_TOKENS, layer_map, read_words
from expertbank.routers.nulls import LEVEL
from expertbank.routers.placement import ENGINES, load_placement, save_placement
from expertbank.routers.report import how_to_read
from expertbank.routers.report_page import html_page
from expertbank.routers.verdicts import FEWEST_SLOTS, LEAST_UTILISATION, MOST_VIOLATION

N_EXPERTS, K, LENGTH = 8, 2, 24


def a_run(seed=0, layers=(0, 1, 2), n_sequences=40, skew=0.0):
    """Statistics and the arrays behind them: experts lean on the domain, the token and, in each
    layer but the first, on the expert before."""
    rng = np.random.default_rng(seed)
    n = n_sequences * LENGTH
    domain = np.repeat(np.arange(n_sequences) % 4, LENGTH)
    token = rng.integers(0, 12, n)
    statistics = RouterStatistics(N_EXPERTS, K, n_domains=4, n_positions=LENGTH, n_tokens=12)
    fed = {}
    before = np.zeros((n, N_EXPERTS))
    for layer in layers:
        logits = rng.gumbel(size=(n, N_EXPERTS)) + skew * np.arange(N_EXPERTS)
        logits += np.eye(4, N_EXPERTS)[domain] + np.eye(12, N_EXPERTS)[token] + before
        chosen = logits.argsort(axis=1)[:, -K:]
        before = np.eye(N_EXPERTS)[chosen].sum(axis=1)
        odds = np.exp(logits)
        fed[layer] = {
            "chosen": chosen,
            "probabilities": odds / odds.sum(axis=1, keepdims=True),
            "domain": domain,
            "token": token,
            "sequence": np.repeat(np.arange(n_sequences), LENGTH),
            "position": np.arange(n) % LENGTH,
        }
        statistics.update(layer, **fed[layer])
    return statistics, fed


# --- single layers ---


def test_lifts_are_those_of_a_plain_loop():
    statistics, fed = a_run(layers=(0,))
    layer = with_phases(statistics.layers[0], 10)
    pictures = layer_map(0, layer, words={0: "<the>"})
    chosen, domain, token = (fed[0][name] for name in ("chosen", "domain", "token"))
    share = np.array([(chosen == e).mean() for e in range(N_EXPERTS)])
    for d, row in enumerate(pictures.domain_lift):
        for e, lift in enumerate(row):
            assert lift == pytest.approx((chosen[domain == d] == e).mean() / share[e])
    for found in pictures.tokens:
        served = (chosen[token == found.token] == found.expert).sum()
        assert found.slots == served >= FEWEST_OF_TOKEN
        mean = (chosen[token == found.token] == found.expert).mean()
        assert found.lift == pytest.approx(mean / share[found.expert]) and found.lift > 1
        assert found.word == ("<the>" if found.token == 0 else None)
    by_expert = [[each.lift for each in pictures.tokens if each.expert == e] for e in range(8)]
    assert all(lifts == sorted(lifts, reverse=True) for lifts in by_expert)
    assert max(map(len, by_expert)) == TOP_TOKENS
    early = fed[0]["position"] < 10
    for row, rows in zip(pictures.phases, (chosen[early], chosen[~early]), strict=True):
        assert row == pytest.approx([(rows == e).mean() * N_EXPERTS for e in range(N_EXPERTS)])


def test_prompts_beside_what_is_generated():
    statistics = RouterStatistics(4, 1, n_positions=6)
    statistics.update(0, [[0], [0], [1], [1], [2], [3]], position=[0, 1, 2, 3, 4, 5])
    (layer,) = routing_report(statistics, decode_from=4).layers
    assert layer.prefill_violation == layer.decode_violation == 1.0
    assert layer.phase_distance == 1.0
    weights = np.array([4, 2]) / 6
    assert layer.phase_information == pytest.approx(-(weights * np.log(weights)).sum())
    report = routing_report(statistics, decode_from=6)
    assert report.layers[0].phase_distance is None and not report.maps  # nothing was generated
    with pytest.raises(ValueError, match="decode_from needs the positions of tokens"):
        routing_report(statistics - statistics, decode_from=4)


def test_transitions_are_those_of_the_joint_table_however_layers_are_cut():
    _, fed = a_run()
    whole = layer_transitions(fed.items(), N_EXPERTS)
    assert list(whole) == [(0, 1), (1, 2)]
    counts = np.zeros((N_EXPERTS, N_EXPERTS), int)
    for one, other in zip(fed[0]["chosen"], fed[1]["chosen"], strict=True):
        for e in one:
            counts[e, other] += 1
    assert np.array_equal(whole[0, 1].pairs, counts)
    cut = [(layer, {"chosen": fed[layer]["chosen"][:100]}) for layer in fed]
    cut += [(layer, {"chosen": fed[layer]["chosen"][100:]}) for layer in fed]
    for pair, agreement in layer_transitions(cut, N_EXPERTS).items():
        assert np.array_equal(agreement.pairs, whole[pair].pairs)
    with pytest.raises(ValueError, match="tokens more"):
        layer_transitions(cut[:-1], N_EXPERTS)
    with pytest.raises(ValueError, match="need choices"):
        layer_transitions([(0, {"load": [1]})], N_EXPERTS)


def test_words_of_a_vocabulary(tmp_path):
    for name, text in (
        ("tokenizer.json", '{"model": {"vocab": {"a": 0, "b\\u001b": 1}}}'),
        ("vocab.json", '{"a": 0, "b\\u001b": 1}'),
        ("words.txt", "a\nb\x1b\n"),
    ):
        (tmp_path / name).write_text(text)
        assert read_words(tmp_path / name) == {0: "a", 1: "b\\x1b"}
    (tmp_path / "vocab.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match="no object"):
        read_words(tmp_path / "vocab.json")


# --- flips ---


def test_flips_lie_where_a_plain_loop_finds_them():
    rng = np.random.default_rng(2)
    n = 300
    logits = rng.normal(size=(n, N_EXPERTS)) / 4
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    chosen = np.argsort(-logits, axis=1)[:, :K]
    other = np.argsort(-(logits + 0.02 * rng.normal(size=logits.shape)), axis=1)[:, :K]
    position = rng.integers(0, 100, n)
    position[0] = -1
    mask = rng.random(n) < 0.9
    agreement = Agreement(N_EXPERTS)
    agreement.update(chosen, other, mask, position, probabilities)
    slots, flips = np.zeros(8, int), np.zeros(8, int)
    tokens, flipped = np.zeros(7, int), np.zeros(7, int)
    for i in np.flatnonzero(mask):
        differ = K - len(set(chosen[i]) & set(other[i]))
        left_out = np.delete(probabilities[i], chosen[i]).max()
        margin = np.log(probabilities[i][chosen[i]].min() / left_out)
        place = sum(margin >= edge for edge in TIE_MARGINS)
        tokens[place] += 1
        flipped[place] += differ
        if position[i] >= 0:
            bin_ = int(position[i]).bit_length()
            slots[bin_] += K
            flips[bin_] += differ
    assert np.array_equal(agreement.by_position[:, :8], [slots, flips])
    assert np.array_equal(agreement.by_margin, [tokens, flipped])
    near = TIE_MARGINS.index(NEAR_TIE) + 1
    expected = (tokens[:near].sum() / tokens.sum(), flipped[:near].sum() / flipped.sum())
    assert agreement.near_ties == pytest.approx(expected)
    both = agreement + agreement
    assert np.array_equal(both.by_margin, 2 * agreement.by_margin)
    assert np.array_equal(both.by_position, 2 * agreement.by_position)


def test_a_choice_by_something_else_has_no_margin():
    agreement = Agreement(3)
    agreement.update([[2], [0]], [[2], [0]], probabilities=[[0.6, 0.3, 0.1], [0.6, 0.3, 0.1]])
    assert agreement.by_margin[0].sum() == 1


# --- what expert parallelism costs ---


def test_costs_are_those_of_the_placements_and_maps_come_back(tmp_path):
    _, fed = a_run()
    sizes = RouterStatistics(N_EXPERTS, K)
    own = {layer: np.arange(N_EXPERTS)[::-1] for layer in fed}
    found = communication_costs(
        fed.items, sizes, 2, {"contiguous": 0, "coactivation": 0}, 32, 1024, 2, own
    )
    assert found.kinds() == ["contiguous", "coactivation", "given"]
    # devices in another order are the same devices
    assert found.mean("devices")["given"] == found.mean("devices")["contiguous"]
    for cost in found.costs:
        assert cost.dispatch_bytes == pytest.approx(cost.sent * 2048) == cost.combine_bytes
    for layer, shares in found.dropped.items():
        assert shares == pytest.approx(dropped_share(fed[layer]["chosen"], 8, FACTORS, 32))
    total = np.sum([cost.traffic for cost in found.costs if cost.placement == "given"], axis=0)
    assert found.traffic("given") == total.tolist()
    blind = communication_costs(fed.items, sizes, 2, {"contiguous": 0}, 32)
    assert blind.mean("dispatch_bytes") == {"contiguous": None}
    for engine in ENGINES:
        save_placement(tmp_path / "map.json", own, 2, engine)
        assert load_placement(tmp_path / "map.json") == [list(row) for row in own.values()]
    with pytest.raises(ValueError, match="the map has no layer 1"):
        communication_costs(fed.items, sizes, 2, {}, given={0: own[0]})
    with pytest.raises(ValueError, match="the map has 4 experts, the router 8"):
        communication_costs(fed.items, sizes, 2, {}, given=dict.fromkeys(fed, np.arange(4)))
    for text in ("[[]]", "{}", '[["a"]]', "[", "[1]"):
        (tmp_path / "map.json").write_text(text)
        with pytest.raises(ValueError, match="cannot be read as a map of experts"):
            load_placement(tmp_path / "map.json")


# --- the page and its JSON ---


def everything():
    """A report with all that a report can have, and names that a page must escape."""
    statistics, fed = a_run()
    _, other = a_run(3)
    stream = {layer: {**arrays, "token": fed[0]["token"]} for layer, arrays in other.items()}
    costs = communication_costs(
        fed.items, RouterStatistics(N_EXPERTS, K), 4, {"contiguous": 0, "load": 0}, 32, 512
    )
    report = routing_report(
        statistics,
        compare_routing(fed.items(), stream.items(), N_EXPERTS),
        transitions=layer_transitions(fed.items(), N_EXPERTS),
        decode_from=10,
        words={i: f"<i>{i}</i>" for i in range(12)},
        costs=costs,
    )
    early = routing_report(a_run(5, skew=1.0)[0])
    return dataclasses.replace(
        report,
        checkpoints=(("<script>1</script>", early), ("$step$ 2", report)),
        beside=('"><b>run', early),
    )


@pytest.fixture(scope="module")
def full():
    return everything()


@pytest.fixture(scope="module")
def page(full):
    return html_page(full)


class Words(html.parser.HTMLParser):
    """The text of a page outside of drawings and style."""

    def __init__(self, page):
        super().__init__()
        self.inside = 0
        self.text = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.inside += tag in ("svg", "style")

    def handle_endtag(self, tag):
        self.inside -= tag in ("svg", "style")

    def handle_data(self, data):
        if not self.inside:
            self.text.append(data)


def numbers_in(value):
    """All numbers of a JSON value, and those within its strings, as text."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from numbers_in(key)
            yield from numbers_in(each)
    elif isinstance(value, list):
        for each in value:
            yield from numbers_in(each)
    elif isinstance(value, str):
        yield from NUMBER.findall(value)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield from (f"{value:,}", str(value), f"{value:.4f}", f"{value:.3f}", f"{value:.2f}")
        yield from (f"{value:.3g}", f"{value:.1f}", f"{value:.1e}")
        yield f"{value:,.0f}"


NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e[-+]\d+)?")


def test_each_number_of_the_page_is_in_the_json(full, page):
    text = " ".join(Words(page).text)
    written = json.loads(json.dumps(full.json(), allow_nan=False))
    known = {number.lstrip("-").rstrip(",") for number in numbers_in(written)}
    # how many checkpoints the figure has, and the value of its scale that means balance
    known |= {str(len(written["checkpoints"]) + 1), "0", "1", "95"}
    found = {number.rstrip(",") for number in NUMBER.findall(text)}
    assert len(found) > 200
    assert not found - known


def test_names_from_files_are_escaped(page):
    assert "<script" not in page and "<i>" not in page and "<b>" not in page
    assert "&lt;script&gt;1&lt;/script&gt;" in page and "&lt;i&gt;" in page
    assert "http" not in page and "@import" not in page


def test_the_text_has_the_further_tables(full):
    text = full.table(explain=True)
    for heading, rows in full.further().items():
        assert f"\n{heading}\n{rows[0][0]}" in text
        assert how_to_read(heading) in re.sub(r"\s+", " ", text)
    assert max(map(len, text.splitlines())) <= 130
    headings = list(full.further())
    assert [heading.split()[0] for heading in headings] == [
        "Communication",
        "Dropped",
        "Flips",
        "Checkpoints,",
        "Side",
    ]
    unknown = dataclasses.replace(full, costs=dataclasses.replace(full.costs, hidden_size=None))
    assert any("Bytes" in note for note in unknown.notes())
    assert not any("Bytes" in note for note in full.notes())
    assert "Tokens by lift" not in text and any("Tokens" in name for name in full.tables())


def test_names_of_files_reach_no_terminal_unescaped(full):
    named = dataclasses.replace(full, beside=("a\x1b[2J", full), checkpoints=(("\x1b[2J", full),))
    assert "\x1b" not in named.table() and "Side by side: this run | a\\x1b" in named.table()


def test_pictures_are_of_the_worst_layers_and_few():
    statistics, _ = a_run(layers=tuple(range(9)))
    statistics.layers[6].add(slots=[4000, *[0] * 7])
    report = routing_report(statistics)
    assert len(report.maps) == 4 and report.maps[0].layer == 6
    assert report.worst()[0][0].layer == 6


# --- the command ---


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Choices of two runs on the same tokens, statistics of an earlier one, a vocabulary, a map."""
    place = tmp_path_factory.mktemp("routes")
    for name, seed in (("ours", 0), ("theirs", 3)):
        _, fed = a_run(seed)
        arrays = {name: np.stack([fed[i][name] for i in fed]) for name in ("chosen",)}
        labels = {key: a_run(0)[1][0][key] for key in ("domain", "token", "sequence", "position")}
        np.savez(place / f"{name}.npz", **arrays, **labels, n_experts=N_EXPERTS)
    a_run(5, skew=1.0)[0].save(place / "early.npz")
    (place / "words.txt").write_text("\n".join(f"<w{i}>" for i in range(12)))
    save_placement(place / "map.json", dict.fromkeys(range(3), np.arange(N_EXPERTS)), 2, "vllm")
    return place


def test_the_command_shows_all_of_it(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    sizes = "--decode-from 10 --tokens 12 --words words.txt"
    runs = "--against theirs.npz --checkpoint early.npz --beside theirs.npz --transitions"
    costs = "--devices 2 --replicas 2 --map map.json --hidden 100 --bytes 1 --step 48"
    outputs = "--json out.json --html out.html"
    line = f"routes report ours.npz {sizes} {runs} {costs} {outputs}"
    assert main(line.split()) == 0
    out = capsys.readouterr().out
    written = json.loads((folder / "out.json").read_text())
    assert [*written["checkpoints"], *written["beside"]] == ["early.npz", "theirs.npz"]
    kinds = ["contiguous", "load", "coactivation", "replicated", "given"]
    assert list(written["costs"]["traffic"]) == kinds and written["costs"]["step"] == 48
    mean = written["costs"]["mean"]
    assert mean["devices"]["given"] == mean["devices"]["contiguous"]
    assert mean["dispatch_bytes"]["load"] == pytest.approx(100 * mean["sent"]["load"])
    (layer, *_) = written["layers"]
    assert layer["next_layer"] == "1" and layer["phase_distance"] > 0
    assert layer["flip_rate"] > 0.5 and written["maps"][0]["tokens"][0]["word"] == "<w0>"
    for heading in ("Communication on 2 devices, 48 tokens a step", "Checkpoints", "Side by side"):
        assert f"\n{heading}" in out
    assert out.splitlines()[1].startswith("Verdict by layer: ")
    assert "&lt;w0&gt;" in (folder / "out.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--column position= --decode-from 3", "decode_from needs the positions of tokens"),
        ("--decode-from -1", "decode_from is -1"),
        ("--devices 3", "evenly"),
        ("--devices 2 --map words.txt", "cannot be read as a map of experts"),
        ("--tokens 12 --words none.json", "none.json does not exist"),
        ("--checkpoint none.npz", "none.npz does not exist"),
        ("--beside words.txt", "words.txt"),
        ("--json map.json --devices 2 --map map.json", "are the same file"),
    ],
)
def test_the_command_names_what_is_wrong(folder, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(folder)
    assert main(["routes", "report", "ours.npz", *arguments.split()]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error


def test_the_help_says_the_limits_of_the_verdicts(capsys):
    with pytest.raises(SystemExit):
        main(["routes", "report", "--help"])
    text = capsys.readouterr().out
    for limit in (f"{FEWEST_SLOTS} slots", f"below {LEAST_UTILISATION}", f"above {LEVEL}"):
        assert limit in text
    assert 1 + MOST_VIOLATION == 2 and "over twice the mean load" in text
