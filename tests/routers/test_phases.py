"""Prompts beside what is generated, of prompts of different lengths: whoever tells the phases, they
are counted as by hand."""

import json

import numpy as np
import pytest
import tiny_models
from test_formats import as_npy, envelope, routes, sglang_response, vllm_response, write_lines

from expertbank.cli import main
from expertbank.routers import RouterStatistics, record_routing, routing_report
from expertbank.routers.formats import statistics_of
from expertbank.routers.hooks import RoutingRecorder
from expertbank.routers.statistics import load_statistics

E, K = 6, 2
GENERATE = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
LENGTHS = (5, 9, 7)  # of prompts


def by_hand(prompts, answers, n_experts=E):
    """Slots (2, E) of rows of experts."""
    counts = np.zeros((2, n_experts), int)
    for phase, parts in enumerate((prompts, answers)):
        for rows in parts:
            np.add.at(counts[phase], rows[rows >= 0], 1)
    return counts.tolist()


def phases_in(path, layer=1, **options):
    return statistics_of(path, n_experts=E, **options).layers[layer].phases.tolist()


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# --- statistics and their report ---


def some_tokens(seed=0, n=60):
    rng = np.random.default_rng(seed)
    chosen = rng.random((n, E)).argsort(axis=1)[:, :K]
    return chosen, rng.integers(-1, 2, n)


def test_phases_add_subtract_and_come_back_from_a_file(tmp_path):
    chosen, phase = some_tokens()
    statistics = RouterStatistics(E, K)
    statistics.update(0, chosen, phase=phase)
    before = statistics.copy()
    more, _ = some_tokens(1)
    statistics.update(0, more, phase=1, mask=np.arange(60) < 40)
    statistics.update(0, more)
    first = by_hand([chosen[phase == 0]], [chosen[phase == 1]])
    second = by_hand([], [more[:40]])
    assert before.layers[0].phases.tolist() == first
    assert (statistics - before).layers[0].phases.tolist() == second
    assert (before + before).layers[0].phases.tolist() == (2 * np.array(first)).tolist()
    assert statistics.layers[0].phases.tolist() == np.add(first, second).tolist()
    statistics.save(tmp_path / "routes.npz")
    again = load_statistics(tmp_path / "routes.npz")
    np.testing.assert_array_equal(again.layers[0].phases, statistics.layers[0].phases)
    # a file that was written before phases were counted
    with np.load(tmp_path / "routes.npz") as archive:
        old = {name: archive[name] for name in archive.files if not name.endswith("phases")}
    np.savez(tmp_path / "old.npz", **old)
    assert not load_statistics(tmp_path / "old.npz").layers[0].phases.any()
    both = load_statistics(tmp_path / "old.npz") + statistics
    np.testing.assert_array_equal(both.layers[0].phases, statistics.layers[0].phases)


def test_the_report_shows_both_phases_and_what_is_of_neither():
    chosen, phase = some_tokens()
    statistics = RouterStatistics(E, K, n_positions=4)
    statistics.update(0, chosen, phase=phase, position=np.arange(60) % 4)
    report = routing_report(statistics)
    (layer,) = report.layers
    loads = np.array(by_hand([chosen[phase == 0]], [chosen[phase == 1]]))
    shares = loads / loads.sum(axis=1, keepdims=True)
    assert layer.prefill_violation == pytest.approx(shares[0].max() * E - 1)
    assert layer.decode_violation == pytest.approx(shares[1].max() * E - 1)
    assert layer.phase_distance == pytest.approx(abs(shares[0] - shares[1]).sum() / 2)
    assert layer.no_phase == K * (phase < 0).sum() > 0
    assert np.allclose(report.maps[0].phases, E * shares)
    assert "no phase" in report.table() and report.json()["layers"][0]["no_phase"]
    # what was counted by phase is not guessed again from positions
    assert routing_report(statistics, decode_from=2).layers == report.layers
    statistics = RouterStatistics(E, K)
    statistics.update(0, chosen, phase=0)
    report = routing_report(statistics)
    assert report.layers[0].no_phase is None and not report.maps  # one phase alone


# --- files ---


def test_a_label_of_ones_own_and_the_positions_of_a_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    chosen, phase = some_tokens()
    position = np.where(np.arange(60) % 11 == 0, -1, np.arange(60) % 6)
    np.savez("own.npz", chosen=chosen, phase=phase, position=position, n_experts=E)
    wanted = by_hand([chosen[phase == 0]], [chosen[phase == 1]])
    assert phases_in("own.npz", 0) == wanted
    assert phases_in("own.npz", 0, decode_from=3) == wanted  # the file knows
    np.savez("without.npz", chosen=chosen, position=position, n_experts=E)
    early = chosen[(position >= 0) & (position < 3)]
    assert phases_in("without.npz", 0, decode_from=3) == by_hand([early], [chosen[position >= 3]])
    assert not np.any(phases_in("without.npz", 0))
    line = "routes report without.npz --decode-from 3 --explain --json out.json"
    assert main(line.split()) == 0
    (layer,) = json.loads((tmp_path / "out.json").read_text())["layers"]
    assert layer["no_phase"] == K * (position < 0).sum() and layer["phase_distance"] > 0
    assert "Prefill and decode" in capsys.readouterr().out
    np.savez("wrong.npz", chosen=chosen, phase=phase + 2, n_experts=E)
    assert main(["routes", "report", "wrong.npz"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "wrong.npz, layer 0 cannot be read: phase holds 3" in error


def test_columns_of_a_data_frame(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    chosen, phase = some_tokens()
    table = pa.table({"selected_experts": chosen.tolist(), "phase": phase})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    wanted = by_hand([chosen[phase == 0]], [chosen[phase == 1]])
    assert phases_in(tmp_path / "a.parquet", 0) == wanted


def prompts_and_answers(rng, lengths=LENGTHS):
    prompts = [routes(rng, n) for n in lengths]
    answers = [routes(rng, n) for n in (3, 2, 4)]
    return prompts, answers, by_hand([p[:, 1] for p in prompts], [a[:, 1] for a in answers])


def test_arrays_of_vllm(tmp_path, rng):
    prompts, answers, wanted = prompts_and_answers(rng)
    arrays = {f"prompt_routed_experts_{i}": prompt for i, prompt in enumerate(prompts)}
    arrays |= {f"routed_experts_{i}": answer for i, answer in enumerate(answers)}
    np.savez(tmp_path / "v.npz", **arrays)
    assert phases_in(tmp_path / "v.npz") == wanted
    # two completions of one prompt, which counts once; a prompt that was cached counts nowhere
    names = ("prompt_routed_experts", "routed_experts_0", "routed_experts_1")
    np.savez(tmp_path / "v.npz", **dict(zip(names, (prompts[0], *answers[:2]))))
    two = by_hand([prompts[0][:, 1]], [answer[:, 1] for answer in answers[:2]])
    assert phases_in(tmp_path / "v.npz") == two
    np.savez(tmp_path / "v.npz", **dict(zip(names, (0 * prompts[0] - 1, *answers[:2]))))
    assert phases_in(tmp_path / "v.npz") == [[0] * E, two[1]]
    # where the prompt has no array of its own, nothing says where it ends
    np.save(tmp_path / "v.npy", np.concatenate([prompts[0], answers[0]]))
    assert not np.any(phases_in(tmp_path / "v.npy"))


def test_responses_of_vllm(tmp_path, rng):
    prompts, answers, wanted = prompts_and_answers(rng)
    whole = [np.concatenate(pair) for pair in zip(prompts, answers)]
    lines = [vllm_response(ids, n_prompt=n) for ids, n in zip(whole, LENGTHS)]
    path = write_lines(tmp_path / "v.jsonl", *lines)
    assert phases_in(path) == wanted
    lines[1]["usage"] = None
    lines[1]["prompt_token_ids"] = list(range(LENGTHS[1]))
    assert phases_in(write_lines(path, *lines)) == wanted
    # from a later position on
    lines[0] = vllm_response(whole[0][2:], n_prompt=LENGTHS[0], routed_experts_prompt_start=2)
    later = by_hand(
        [prompts[0][2:, 1], prompts[1][:, 1], prompts[2][:, 1]], [a[:, 1] for a in answers]
    )
    assert phases_in(write_lines(path, *lines)) == later
    # of vLLM 0.21, with a prompt alone among them
    lines = [
        {"prompt_routed_experts": p.tolist(), "choices": [{"routed_experts": as_npy(a)}]}
        for p, a in zip(prompts, answers)
    ]
    assert phases_in(write_lines(path, *lines)) == wanted
    lines[0]["choices"] = []
    alone = by_hand([p[:, 1] for p in prompts], [a[:, 1] for a in answers[1:]])
    assert phases_in(write_lines(path, *lines)) == alone
    # a response that says no length
    assert not np.any(phases_in(write_lines(path, vllm_response(whole[0]))))


def test_responses_of_sglang(tmp_path, rng):
    prompts, answers, wanted = prompts_and_answers(rng)
    whole = [np.concatenate(pair) for pair in zip(prompts, answers)]
    lines = [sglang_response(ids, n) for ids, n in zip(whole, LENGTHS)]
    path = write_lines(tmp_path / "s.jsonl", *lines)
    assert phases_in(path, n_chosen=K) == wanted
    write_lines(path, sglang_response(whole[0][3:], LENGTHS[0], routed_experts_start_len=3))
    later = by_hand([prompts[0][3:, 1]], [answers[0][:, 1]])
    assert phases_in(path, n_chosen=K) == later


@pytest.mark.parametrize("suffix", ["npz", "pt"])
def test_batches_of_verl(tmp_path, rng, suffix):
    """Prompts padded at the front, answers at the end; in one a tool has spoken."""
    prompts, answers, _ = prompts_and_answers(rng)
    batch = np.zeros((3, 9 + 5, *prompts[0].shape[1:]), np.int16)
    attention, response = np.zeros((3, 14), int), np.zeros((3, 5), int)
    for i, (prompt, answer) in enumerate(zip(prompts, answers)):
        batch[i, 9 - len(prompt) : 9 + len(answer)] = np.concatenate([prompt, answer])
        attention[i, 9 - len(prompt) : 9 + len(answer) + 1] = 1  # the last token never ran
        response[i, : len(answer) + 1] = 1
    response[2, 1:3] = 0
    arrays = {"routed_experts": batch, "attention_mask": attention, "response_mask": response}
    path = tmp_path / f"b.{suffix}"
    if suffix == "npz":
        np.savez(path, **arrays)
    else:
        torch = pytest.importorskip("torch")
        torch.save({name: torch.tensor(array) for name, array in arrays.items()}, path)
    said = answers[2][1:3]
    answers[2] = answers[2][[0, 3]]
    assert phases_in(path) == by_hand(
        [*(p[:, 1] for p in prompts), said[:, 1]], [a[:, 1] for a in answers]
    )
    np.savez(tmp_path / "c.npz", **{**arrays, "response_mask": np.ones((3, 15), int)})
    with pytest.raises(ValueError, match=r"response_mask is int64 of shape \(3, 15\); allowed is"):
        phases_in(tmp_path / "c.npz")


def test_responses_of_nemo_rl(tmp_path, rng):
    prompts, answers, wanted = prompts_and_answers(rng)
    lines = []
    for prompt, answer in zip(prompts, answers):
        message = {"routed_experts": envelope(np.concatenate([prompt, answer]))}
        message["prompt_token_ids"] = list(range(len(prompt)))
        message["generation_token_ids"] = list(range(len(answer)))
        lines.append({"choices": [{"message": message}]})
    path = write_lines(tmp_path / "r.jsonl", *lines)
    assert phases_in(path) == wanted
    lines[0]["choices"][0]["message"].pop("generation_token_ids")
    others = by_hand([p[:, 1] for p in prompts[1:]], [a[:, 1] for a in answers[1:]])
    assert phases_in(write_lines(path, *lines)) == others


# --- a model that runs ---


class Kept(RoutingRecorder):
    """A recorder that also keeps what each forward was called with and what was chosen."""

    def _count(self, running):
        _, choice, call = running.choices[0]
        mask = call.mask.ravel()
        self.forwards = getattr(self, "forwards", [])
        self.forwards.append((call.shape, choice.chosen[mask]))
        super()._count(running)


def kept(model):
    plain = record_routing(model)
    return Kept(model, plain.statistics, list(plain.listeners))


def prompts_of(torch, lengths=LENGTHS, n=9):
    """Prompts of these lengths, padded at the front."""
    ids = tiny_models.tokens()
    mask = (torch.arange(n) >= n - torch.tensor(lengths)[:, None]).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


@pytest.fixture(scope="module")
def mixtral(transformers):
    return tiny_models.build_family("mixtral")


@pytest.mark.parametrize(
    ("name", "more"),
    [("mixtral", {}), ("mixtral", {"num_beams": 2}), ("qwen3_next", {}), ("jamba", {})],
)
def test_generation_from_prompts_of_different_lengths(transformers, torch, name, more):
    model = tiny_models.build_family(name)
    with kept(model) as recorder:
        model.generate(**prompts_of(torch), **GENERATE, **more)
    (shape, prompt), *steps = recorder.forwards
    beams = more.get("num_beams", 1)
    assert shape == (3 * beams, 9) and {shape for shape, _ in steps} == {(3 * beams, 1)}
    assert len(prompt) == sum(LENGTHS) * beams and len(steps) == 5
    layer = next(iter(recorder.statistics.layers.values()))
    wanted = by_hand([prompt], [chosen for _, chosen in steps], tiny_models.N_EXPERTS)
    assert layer.phases.tolist() == wanted
    assert routing_report(recorder.statistics).layers[0].no_phase == 0


@pytest.mark.parametrize("name", ["mixtral", "gpt_oss"])
def test_a_static_cache_tells_phases_and_padding(transformers, torch, name):
    """`generate` gives the model masks of queries and keys then, of several kinds in GPT-OSS."""
    model = tiny_models.build_family(name)
    with record_routing(model) as recorder:
        for _ in range(2):
            model.generate(**prompts_of(torch), cache_implementation="static", **GENERATE)
    for layer in recorder.statistics.layers.values():
        assert layer.phases.sum(axis=1).tolist() == [2 * 2 * sum(LENGTHS), 2 * 2 * 15]
        assert layer.phases.sum() == layer.slots.sum()


def test_a_decoder_generates_and_its_encoder_has_no_phase(transformers):
    model = tiny_models.build_family("switch_transformers")
    with record_routing(model) as recorder:
        model.generate(input_ids=tiny_models.tokens(), **GENERATE)
    encoder, decoder = recorder.statistics.layers.values()
    assert not encoder.phases.any() and encoder.slots.any()
    assert decoder.phases.sum(axis=1).tolist() == [3, 15]  # it starts from one token


def test_chunks_of_a_prompt_are_unknown_unless_one_says_it(mixtral, torch):
    ids = tiny_models.tokens()
    with record_routing(mixtral) as recorder:
        mixtral.generate(input_ids=ids, prefill_chunk_size=4, **GENERATE)
    layer = recorder.statistics.layers[0]
    # chunks of 4, 4 and 1: a last one of one token looks like a step of decoding
    assert layer.phases.sum(axis=1).tolist() == [2 * 12, 2 * 3 * 6]
    assert routing_report(recorder.statistics).layers[0].no_phase == 2 * 12
    with kept(mixtral) as recorder:
        cache = None
        for start in (0, 4, 8):
            with recorder.labels(phase=0):
                given = {} if cache is None else {"past_key_values": cache}
                output = mixtral(input_ids=ids[:, start : start + 4], **given)
                cache = output.past_key_values
        mixtral(input_ids=ids[:, :1], past_key_values=cache)
    *prompt, step = [chosen for _, chosen in recorder.forwards]
    wanted = by_hand(prompt, [step], tiny_models.N_EXPERTS)
    assert recorder.statistics.layers[0].phases.tolist() == wanted


def test_a_forward_without_a_cache_is_unknown_unless_one_says_it(mixtral, torch):
    """As in training on prompts and their answers."""
    batch = prompts_of(torch)
    phase = (np.arange(9) >= 7).astype(int)[None] * np.ones((3, 1), int)
    phase[1] = -1
    with kept(mixtral) as recorder:
        mixtral(**batch, use_cache=False)
    layer = recorder.statistics.layers[0]
    assert not layer.phases.any() and layer.slots.sum() == 2 * sum(LENGTHS)
    with kept(mixtral) as recorder:
        mixtral(**batch, use_cache=False, phase=phase)
    (_, chosen), *_ = recorder.forwards
    label = phase.ravel()[batch["attention_mask"].numpy().ravel() > 0]
    wanted = by_hand([chosen[label == 0]], [chosen[label == 1]], tiny_models.N_EXPERTS)
    assert recorder.statistics.layers[0].phases.tolist() == wanted
    assert recorder.statistics.layers[0].phases.sum() < 2 * sum(LENGTHS)
    for wrong, message in (([0, 1], "phase has shape"), (2, "phase holds 2")):
        with record_routing(mixtral) as recorder, pytest.raises(ValueError, match=message):
            mixtral(**batch, phase=wrong)
