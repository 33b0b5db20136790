"""The routing testbed: its corpus, the balancing methods against brute force, the model, the runs,
the results."""

import hashlib
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the testbed needs the extra train")

import pooch

from expertbank.information import joint_information
from expertbank.routers import measures
from expertbank.routers.measures import group_entropy, routing_counts, specialisation
from expertbank.shipped.testbed import CONFIGURATION, EXAMPLES, contrast, load_testbed
from expertbank.training import balancing, corpus, testbed_runs
from expertbank.training import testbed_model as testbed
from expertbank.training.testbed_model import Run

# --- the corpus ---


@pytest.fixture(scope="module")
def mix():
    """The mix of eight scripts with a small vocabulary."""
    return corpus.load_mix("scripts", vocabulary=600)


def test_every_sequence_is_of_one_language_and_every_language_has_as_many(mix):
    assert mix.train.shape[0] == mix.held_out.shape[0] == 8
    assert mix.train.shape[2] == 32 and mix.train.max() < mix.vocabulary == 600
    scripts = [
        "CYRILLIC",
        "ARMENIAN",
        "GUJARATI",
        "SYRIAC",
        "COPTIC",
        "CHEROKEE",
        "CANADIAN",
        "LATIN",
    ]
    for sequences, script in zip(mix.held_out, scripts, strict=True):
        text = "".join(mix.tokenizer.decode(tokens.tolist()) for tokens in sequences[:50])
        letters = [unicodedata.name(letter, "") for letter in text if letter.isalpha()]
        assert np.mean([name.startswith(script) for name in letters]) > 0.95


def test_text_survives_the_tokens(mix):
    verse = corpus.verses(corpus.corpus_file("Gujarati-NT"))["b.JOH.1.1"]
    assert mix.tokenizer.decode(mix.tokenizer.encode(verse).ids).strip() == verse


def test_held_out_verses_are_the_same_everywhere_and_never_trained_on(mix):
    found = []
    for domain, name in enumerate(mix.languages):
        texts = {
            verse: text
            for verse, text in corpus.verses(corpus.corpus_file(name)).items()
            if len(text) > 60
        }
        train, held_out = (
            mix.tokenizer.decode(part[domain].ravel().tolist())
            for part in (mix.train, mix.held_out)
        )
        inside = {verse for verse, text in texts.items() if text in held_out}
        # the gospels repeat each other now and then, word for word
        assert sum(texts[verse] in train for verse in inside) <= max(1, 0.03 * len(inside))
        found.append(inside)
    assert sum(map(len, found)) > 200
    # the same tenth or so of the chapters is kept out in every language
    chapters = {verse.rsplit(".", 1)[0] for inside in found for verse in inside}
    assert len(chapters) < 0.2 * len({verse.rsplit(".", 1)[0] for verse in texts})


def test_the_classifier_is_the_posterior_of_the_counts(mix):
    posterior = corpus.domain_posterior(mix)
    token = int(mix.train[3, 0, 0])
    counts = np.array([(sequences == token).sum() for sequences in mix.train]) + 0.5
    assert posterior[token] == pytest.approx(counts / counts.sum())
    half = corpus.placed_tokens(mix, 0.5)
    assert half[mix.train].mean() == pytest.approx(0.5, abs=0.05)
    assert posterior[half].max(axis=1).min() >= posterior[~half].max(axis=1).max()
    assert (
        corpus.placed_tokens(mix, 1.0)[mix.train].all() and not corpus.placed_tokens(mix, 0.0).any()
    )
    assert corpus.classifier_accuracy(mix, half) > corpus.classifier_accuracy(mix) > 0.8


def test_a_download_is_checked_before_it_is_written(tmp_path, monkeypatch):
    text = corpus.corpus_file("Ewe-NT").read_bytes()
    asked = []

    def answer(body):
        def download(_, address, path, *given, **options):
            asked.append(address)
            Path(path).write_bytes(body)

        return download

    with pytest.raises(FileNotFoundError, match="download` fetches it"):
        corpus.corpus_file("Ewe-NT", tmp_path)
    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", answer(text[:-1]))
    with pytest.raises(ValueError, match="nothing was written"):
        corpus.corpus_file("Ewe-NT", tmp_path, download=True)
    assert not list((tmp_path / "bible-corpus").iterdir())
    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", answer(text))
    path = corpus.corpus_file("Ewe-NT", tmp_path, download=True)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == corpus.CORPUS_SHA256["Ewe-NT"]
    assert corpus.COMMIT in asked[-1] and asked[-1].endswith("/Ewe-NT.xml")
    path.write_bytes(text[:-1])
    with pytest.raises(ValueError, match="remove the file"):
        corpus.corpus_file("Ewe-NT", tmp_path)


# --- balancing ---


def test_balance_loss_is_the_measure_and_its_gradient_flattens():
    logits = torch.randn(3, 40, 8, generator=torch.manual_seed(0)).requires_grad_()
    chosen = balancing.top_choice(logits, 2)
    found = balancing.load_balancing_loss(logits, chosen)
    each = [
        measures.balance_loss(
            np.bincount(c.flatten().numpy(), minlength=8), p.softmax(-1).mean(0).detach().numpy()
        )
        for c, p in zip(chosen, logits)
    ]
    assert found.item() == pytest.approx(np.mean(each))
    found.backward()
    with torch.no_grad():
        assert balancing.load_balancing_loss(logits - 20 * logits.grad, chosen) < found


def test_bias_rises_for_idle_experts():
    moved = balancing.moved_bias(torch.zeros(3), torch.tensor([[[0, 1]], [[0, 1]], [[0, 2]]]), 0.5)
    assert moved.tolist() == [-0.5, 0.0, 0.5]


def test_sinkhorn_balances_the_softmax():
    logits = 2 * torch.randn(2, 64, 8, generator=torch.manual_seed(1)) + torch.arange(8.0)
    shares = (logits - balancing.sinkhorn_prices(logits, rounds=200)).softmax(dim=2).mean(dim=1)
    assert shares.numpy() == pytest.approx(np.full((2, 8), 1 / 8), abs=1e-4)


def test_auction_is_balanced_and_close_to_the_best_assignment():
    logits = torch.randn(2, 16, 8, generator=torch.manual_seed(2)) + torch.linspace(0, 2, 8)
    step = 0.01
    chosen = balancing.auction(logits, 2, step, rounds=20_000)
    for group, scores in zip(chosen, logits.double().numpy()):
        assert np.bincount(group.flatten(), minlength=8).tolist() == [4] * 8
        assert all(len(set(token.tolist())) == 2 for token in group)
        tokens, experts = np.kron(np.eye(16), np.ones(8)), np.kron(np.ones(16), np.eye(8))
        best = scipy.optimize.linprog(
            -scores.ravel(),
            A_eq=np.vstack([tokens, experts]),
            b_eq=[2] * 16 + [4] * 8,
            bounds=(0, 1),
        )
        value = np.take_along_axis(scores, group.numpy(), 1).sum()
        assert -best.fun - 32 * step - 1e-9 <= value <= -best.fun + 1e-9


def test_few_rounds_of_the_auction_are_nearly_balanced():
    logits = torch.randn(4, 128, 32, generator=torch.manual_seed(3)) + torch.randn(
        32, generator=torch.manual_seed(4)
    )
    chosen = balancing.auction(logits, 4)
    loads = np.stack([np.bincount(group.flatten(), minlength=32) for group in chosen])
    assert np.abs(loads - 16).sum() / loads.sum() < 0.02
    free = np.stack(
        [np.bincount(group.flatten(), minlength=32) for group in balancing.top_choice(logits, 4)]
    )
    assert np.abs(free - 16).sum() / free.sum() > 0.3


@given(st.integers(0, 1_000), st.integers(1, 12))
@settings(max_examples=30, deadline=None)
def test_caps_serve_the_first_that_come(seed, places):
    rng = np.random.default_rng(seed)
    chosen = np.stack([[rng.permutation(5)[:2] for _ in range(20)] for _ in range(2)])
    expected = np.zeros_like(chosen, dtype=bool)
    for group in range(2):
        taken = np.zeros(5, dtype=int)
        for token in range(20):
            for slot in range(2):
                taken[chosen[group, token, slot]] += 1
                expected[group, token, slot] = taken[chosen[group, token, slot]] <= places
    assert np.array_equal(balancing.kept(torch.from_numpy(chosen), 5, places).numpy(), expected)


# --- the model ---


def routed(run, placed=None, seed=0):
    torch.manual_seed(seed)
    routing = testbed.Routing(run, np.zeros(100, dtype=bool) if placed is None else placed)
    states, tokens = torch.randn(64, 32, 96), torch.randint(100, (64, 32))
    domains = torch.arange(64) % 8
    return routing, tokens, domains, routing(states, tokens, domains)


def test_experts_compute_only_their_tokens_and_add_up():
    torch.manual_seed(0)
    experts = testbed.Experts(testbed.SIZES["small"])
    states, chosen, weights = torch.randn(50, 96), torch.randint(32, (50, 4)), torch.rand(50, 4)
    dense = torch.nn.functional.gelu(torch.einsum("nw,ewh->neh", states, experts.inner))
    dense = torch.einsum("neh,ehw->new", dense, experts.outer)
    expected = (dense.gather(1, chosen.unsqueeze(2).expand(-1, -1, 96)) * weights.unsqueeze(2)).sum(
        dim=1
    )
    assert torch.allclose(experts(states, chosen, weights), expected, atol=1e-4)


def test_reference_confines_tokens_that_say_their_domain():
    placed = np.arange(100) < 40
    _, tokens, domains, (chosen, weights, _) = routed(Run(method="reference", strength=0.1), placed)
    own = chosen // 4 == domains[:, None, None]
    confined = torch.from_numpy(placed)[tokens]
    assert own[confined].all() and own[~confined].float().mean() < 0.3
    assert torch.allclose(weights.sum(dim=2), torch.ones(64, 32))


def test_caps_drop_choices_and_leave_the_other_weights_alone():
    *_, (chosen, weights, _) = routed(Run(capacity=1.0))
    *_, (free_chosen, free_weights, _) = routed(Run())
    assert torch.equal(chosen, free_chosen)
    kept = weights > 0
    assert 0.5 < kept.float().mean() < 0.95
    assert torch.equal(weights[kept], free_weights[kept])
    counts = torch.stack([torch.bincount(c[k], minlength=32) for c, k in zip(chosen, kept)])
    assert counts.max() == 4  # 32 tokens times 4 choices over 32 experts
    *_, (_, wide, _) = routed(Run(capacity=1.0, capacity_scope=64))
    assert (wide > 0).float().mean() > kept.float().mean()


def test_expert_bias_moves_in_training_alone():
    routing, tokens, domains, _ = routed(Run(method="EB", strength=0.25))
    moved = routing.bias.clone()
    assert set(moved.abs().unique().tolist()) <= {0.0, 0.25} and moved.abs().sum() > 0
    routing.eval()
    routing(torch.randn(64, 32, 96), tokens, domains)
    assert torch.equal(routing.bias, moved)


def test_balance_within_a_sequence_or_over_all():
    for method, tolerance in (("BA", 0.05), ("SH", 0.6)):
        *_, (chosen, _, _) = routed(Run(method=method, scope=1))
        loads = np.stack(
            [np.bincount(sequence.flatten(), minlength=32) for sequence in chosen.numpy()]
        )
        assert np.abs(loads - 4).mean() / 4 < tolerance
        *_, (free, _, _) = routed(Run(method="none"))
        free = np.stack(
            [np.bincount(sequence.flatten(), minlength=32) for sequence in free.numpy()]
        )
        assert np.abs(loads - 4).mean() < np.abs(free - 4).mean()


def test_batches_have_equal_shares_and_repeat_no_sequence_before_all_were_seen():
    sequences = np.arange(8 * 24).reshape(8, 24, 1)
    steps = testbed.batches(sequences, 64, np.random.default_rng(0))
    seen = []
    for _ in range(3):
        tokens, domains = next(steps)
        assert torch.equal(tokens[:, 0] // 24, domains)
        assert torch.bincount(domains).tolist() == [8] * 8
        seen += tokens[:, 0].tolist()
    assert sorted(seen) == list(range(8 * 24))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mix": "wiki"}, "mix is 'wiki'"),
        ({"method": "SA"}, "method is 'SA'"),
        ({"scope": 3}, "must divide 64"),
        ({"method": "EB", "scope": 8}, "EB balances the whole step"),
        ({"capacity": 0.0}, "capacity is 0"),
        ({"strength": -1.0}, "strength is -1"),
    ],
)
def test_impossible_runs_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Run(**given)


# --- a few small runs, from start to sealed results ---


@pytest.fixture
def small(monkeypatch, mix):
    """Three runs of five steps each, on little data."""
    size = replace(testbed.SIZES["small"], steps=5, width=32, expert_width=8)
    monkeypatch.setitem(testbed.SIZES, "small", size)
    little = replace(mix, train=mix.train[:, :16], held_out=mix.held_out[:, :16])
    monkeypatch.setattr(testbed_runs, "load_mix", lambda *_: little)
    runs = [Run(scope=scope, strength=testbed_runs.BALANCE_WEIGHT) for scope in (1, 64)] + [
        Run(scope=1, capacity=1.0)
    ]
    monkeypatch.setattr(testbed_runs, "shipped_runs", lambda size: runs)
    assert [run.name for run in runs[:2]] == list(EXAMPLES)
    return runs


def test_training_resumes_and_gives_the_same_numbers(small, tmp_path, monkeypatch):
    testbed_runs.train_testbed(tmp_path / "one", n_jobs=1)
    first = load_testbed(tmp_path / "one")
    with pytest.raises(FileExistsError, match="already holds a testbed"):
        testbed_runs.train_testbed(tmp_path / "one", n_jobs=1)
    trained = []

    def stopped(run, *given):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(run)
        return train_run(run, *given)

    train_run = testbed_runs.train_run
    monkeypatch.setattr(testbed_runs, "train_run", stopped)
    with pytest.raises(KeyboardInterrupt):
        testbed_runs.train_testbed(tmp_path / "two", n_jobs=1)
    assert not (tmp_path / "two").exists()
    trained.clear()
    with monkeypatch.context() as patch:
        longer = replace(testbed.SIZES["small"], steps=6)
        patch.setitem(testbed.SIZES, "small", longer)
        with pytest.raises(ValueError, match=r"was begun with recipe\.steps 5, not 6; remove it"):
            testbed_runs.train_testbed(tmp_path / "two", n_jobs=1)
    testbed_runs.train_testbed(tmp_path / "two", n_jobs=1)
    assert trained == small[2:] and not (tmp_path / "two.partial").exists()
    second = load_testbed(tmp_path / "two")
    for path in (tmp_path / "one").iterdir():  # byte by byte: nothing in it is a time
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name
    assert second.table.equals(first.table)
    one = dict(np.load(first.routing("wide")))
    assert one["chosen"].shape == (128 * 32, 4)
    assert one["sequence"].tolist() == np.repeat(range(128), 32).tolist() and one["n_experts"] == 32
    assert np.isnan(first.rows(scope=64)["capacity"]).all() and len(first.rows(capacity=None)) == 2
    assert first.rows(capacity=1.0)["dropped"][0] > 0.05


@pytest.mark.parametrize("method", ["LBL", "SH", "BA", "EB", "reference"])
def test_a_run_needs_no_other_code_on_a_gpu(small, mix, method):
    if not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device")
    run = Run(method=method, strength=0.1, capacity=1.25)
    little, placed = mix.train[:, :16], corpus.placed_tokens(mix)
    found = [
        testbed.train_run(run, little, little, mix.vocabulary, placed, where)[0]
        for where in ("cpu", "cuda")
    ]
    assert found[1]["loss"] == pytest.approx(found[0]["loss"], rel=0.02)
    assert found[1]["utilisation"] == pytest.approx(found[0]["utilisation"], abs=0.05)


def test_damaged_or_missing_results_are_one_clear_error(small, tmp_path):
    with pytest.raises(FileNotFoundError, match="make testbed"):
        load_testbed(tmp_path)
    testbed_runs.train_testbed(tmp_path / "one", n_jobs=1)
    table = tmp_path / "one" / "runs.csv"
    table.write_bytes(table.read_bytes().replace(b"LBL", b"LBX"))
    with pytest.raises(ValueError, match=r"runs\.csv"):
        load_testbed(tmp_path / "one")


# --- measures ---


def test_measures_by_brute_force():
    rng = np.random.default_rng(0)
    n_experts, chosen = 6, np.stack([[rng.permutation(6)[:2] for _ in range(5)] for _ in range(12)])
    chosen[rng.random(chosen.shape) < 0.1] = -1
    weights, domains, placed = (
        rng.random(chosen.shape),
        np.arange(12) % 3,
        rng.random((12, 5)) < 0.5,
    )
    found = specialisation(chosen, weights, domains, placed, n_experts)
    slots = [(s, t, e) for s in range(12) for t in range(5) for e in chosen[s, t] if e >= 0]

    def information(pairs):
        pairs, n = list(pairs), len(slots)
        joint = {pair: pairs.count(pair) / n for pair in pairs}
        one = {a: sum(p for (x, _), p in joint.items() if x == a) for a, _ in joint}
        other = {b: sum(p for (_, y), p in joint.items() if y == b) for _, b in joint}
        return sum(p * np.log(p / one[a] / other[b]) for (a, b), p in joint.items())

    assert found["domain_information"] == pytest.approx(
        information((domains[s], e) for s, _, e in slots)
    )
    assert found["sequence_information"] == pytest.approx(information((s, e) for s, _, e in slots))
    given_t = information(((t, domains[s]), e) for s, t, e in slots) - information(
        (t, e) for s, t, e in slots
    )
    assert found["position_information"] == pytest.approx(given_t)  # the chain rule
    best = [
        max(sum(domains[s] == d and x == e for s, _, x in slots) for d in range(3))
        for e in range(n_experts)
    ]
    assert found["load_purity"] == pytest.approx(sum(best) / len(slots))
    plain = [(s, e) for s, t, e in slots if placed[s, t]]
    pure = [
        [sum(domains[s] == d and x == e for s, x in plain) for d in range(3)]
        for e in range(n_experts)
    ]
    assert found["purity"] == pytest.approx(
        np.mean([max(row) / sum(row) for row in pure if sum(row)])
    )
    shares = []
    for s in range(12):
        for t in range(5):
            row = np.zeros(n_experts)
            for e, w in zip(chosen[s, t], weights[s, t]):
                row[e] += w * (e >= 0)
            shares += [row / row.sum()] if row.sum() else []
    from expertbank import gating_rate

    assert found["rate"] == pytest.approx(gating_rate(np.array(shares)))


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_scope_theorem_on_any_routing(seed):
    rng = np.random.default_rng(seed)
    scores = (
        rng.standard_normal((16, 10, 8))
        + 2 * rng.standard_normal((4, 1, 8)).repeat(4, axis=0) * rng.random()
    )
    chosen = scores.argsort(axis=2)[..., : rng.integers(1, 4)]
    found = specialisation(
        chosen, np.ones(chosen.shape), np.arange(16) // 4, np.ones((16, 10), bool), 8, seed
    )
    assert found["domain_information"] <= found["sequence_information"] + 1e-12
    assert found["sequence_information"] <= found["cap"] + 1e-12


def test_balance_in_every_group_caps_what_the_domains_can_get():
    # four groups of two sequences, every expert as often in each group, all that this leaves given
    # to the domains
    domains = np.array([0, 1, 0, 1, 0, 0, 1, 1])
    chosen = np.zeros((8, 4, 1), dtype=int)
    for first in range(0, 8, 2):
        for i in (first, first + 1):
            mixed_group = domains[first] != domains[first + 1]
            chosen[i, :, 0] = [0, 0, 1, 1] if not mixed_group else [domains[i]] * 4
    found = specialisation(chosen, np.ones(chosen.shape), domains, np.ones((8, 4), bool), 2)
    assert found["utilisation"] == pytest.approx(1)
    mean_entropy = np.mean([np.log(2), np.log(2), 0, 0])
    assert 0 < found["domain_information"] <= mean_entropy
    assert found["sequence_information"] == pytest.approx(mean_entropy)


def test_entropy_of_a_group_by_drawing_groups():
    assert group_entropy(1) == pytest.approx(0) and group_entropy(64) == pytest.approx(np.log(8))
    assert group_entropy(2) == pytest.approx(56 / 63 * np.log(2))
    rng, domains = np.random.default_rng(0), np.arange(64) % 8
    drawn = [np.bincount(rng.permutation(domains)[:8], minlength=8) / 8 for _ in range(4_000)]
    assert group_entropy(8) == pytest.approx(
        np.mean(scipy.special.entr(drawn).sum(axis=1)), abs=0.01
    )


def test_the_sign_flip_p_value_is_scipys_and_keeps_its_promise():
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(3)

    def frames(differences):
        seeds = np.arange(len(differences))
        zero = pandas.DataFrame({"seed": seeds, "loss": np.zeros(len(seeds))})
        return pandas.DataFrame({"seed": seeds, "loss": differences}), zero

    for shift in (0, 0.7, 5):
        differences = rng.standard_normal(7) + shift
        theirs = scipy.stats.permutation_test(
            (differences, np.zeros(7)), lambda x, y: np.sum(x - y), permutation_type="samples"
        )
        assert contrast(*frames(differences)).p_value == pytest.approx(theirs.pvalue)
    assert contrast(*frames(np.ones(8))).p_value == 2 / 256  # the least that eight seeds can give
    # exchangeable pairs: no more than a twentieth of the p-values lie at or below 0.05
    drawn = [contrast(*frames(rng.standard_normal(6) ** 3)).p_value for _ in range(400)]
    assert np.mean(np.array(drawn) <= 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


def test_main_contrasts_have_eight_seeds_and_one_sign():
    pytest.importorskip("pandas")
    testbed = load_testbed()
    for method, strength in (("LBL", 0.125), ("SH", 0), ("BA", 0)):
        wanted = {"mix": "scripts", "method": method, "strength": strength, "capacity": None}
        narrow, wide = (testbed.rows(**wanted, scope=scope) for scope in (1, 64))
        found = contrast(narrow, wide, "loss_alone")
        assert (found.n_seeds, found.n_positive, found.p_value) == (8, 8, 2 / 256)


def test_contrasts_are_paired_by_seed():
    pandas = pytest.importorskip("pandas")
    rows = pandas.DataFrame({"seed": [0, 1, 2], "loss": [1.0, 2.0, 4.0]})
    other = pandas.DataFrame({"seed": [2, 0], "loss": [3.5, 0.9]})
    found = contrast(rows, other)
    assert found.mean == pytest.approx(0.3) and found.n_seeds == 2
    reach = scipy.stats.t.ppf(0.975, 1) * np.std([0.1, 0.5], ddof=1) / np.sqrt(2)
    assert found.interval == pytest.approx((0.3 - reach, 0.3 + reach))
    assert contrast(rows, other[:1]).interval == (-np.inf, np.inf)
    with pytest.raises(ValueError, match="one row a seed"):
        contrast(rows, pandas.concat([other, other]))


def test_counts_leave_dropped_choices_out():
    counts = routing_counts([[[0, 1]], [[2, -1]]], np.array([[0], [1]]), 2, 3)
    assert counts.tolist() == [[1, 1, 0], [0, 0, 1]]


# --- what is shipped ---


@pytest.fixture(scope="module")
def shipped():
    return load_testbed()


def test_every_run_is_shipped(shipped):
    configurations = shipped.table[[*CONFIGURATION, "seed"]].values.tolist()
    runs = testbed_runs.shipped_runs()
    assert len(configurations) == len(runs)
    for found, run in zip(configurations, runs):
        expected = [getattr(run, name) for name in (*CONFIGURATION, "seed")]
        assert [None if value != value else value for value in found] == expected
    assert shipped.manifest["recipe"]["steps"] == testbed.SIZES["small"].steps
    assert shipped.manifest["corpus"]["sha256"] == corpus.CORPUS_SHA256


def test_shipped_runs_obey_the_theorems(shipped):
    runs = shipped.table
    assert (runs["domain_information"] <= runs["sequence_information"] + 1e-5).all()
    assert (runs["sequence_information"] <= runs["cap"] + 1e-5).all()
    np.testing.assert_allclose(runs["cap"], np.log(32) - runs["sequence_entropy"], atol=1e-5)
    capped = runs[(runs["capacity"] > 0) & (runs["capacity_scope"] == 1)]
    limit = np.log(capped["capacity"] / (1 - capped["dropped"]))
    assert len(capped) == 22 and (capped["sequence_information"] <= limit).all()
    assert (np.log(32) - runs["entropy"] >= 2 * (1 - runs["utilisation"]) ** 2 - 1e-5).all()


def test_shipped_routing_gives_the_shipped_numbers_nearly(shipped):
    # it is a part of the held-out text: the first 512 sequences
    for name, scope in (("narrow", 1), ("wide", 64)):
        routing = dict(np.load(shipped.routing(name)))
        chosen = routing["chosen"].reshape(-1, 32, 4)
        counts = routing_counts(chosen, routing["domain"].reshape(-1, 32), 8, 32)
        row = shipped.rows(
            method="LBL", mix="scripts", scope=scope, strength=0.125, capacity=None, seed=0
        ).iloc[0]
        assert joint_information(counts) == pytest.approx(row["domain_information"], abs=0.03)
        assert np.bincount(routing["domain"], minlength=8).tolist() == [64 * 32] * 8
    with pytest.raises(ValueError, match="'narrow' and 'wide'"):
        shipped.routing("best")


def test_rows_say_what_is_allowed(shipped):
    with pytest.raises(ValueError, match="no column"):
        shipped.rows(router="LBL")
    with pytest.raises(ValueError, match="no run with"):
        shipped.rows(method="EB", scope=1)
