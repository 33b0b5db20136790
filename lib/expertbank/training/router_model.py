"""The mixture of experts that ships: a small Mixtral in transformers' format, trained on the
parallel New Testaments of the testbed.

Real routers are needed where a chapter or a test asks what a trained router does, and no public
model is small enough to ship. Training is one run on one thread; a checkpoint every few steps lets
a killed run go on where it stopped, to the same numbers.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from tqdm import tqdm
from transformers import MixtralConfig, MixtralForCausalLM, PreTrainedTokenizerFast

from expertbank._checks import ABOVE_0, as_count, as_number
from expertbank._files import write_atomically
from expertbank.routers.loss_tables import loss_table
from expertbank.routers.models import load_model
from expertbank.routers.regret import FIT_PRICES, fitted_weights
from expertbank.shipped.manifest import check_free, seal
from expertbank.shipped.router_model import LOSSES, ROUTING, save_routing, save_tables
from expertbank.training.corpus import COMMIT, CORPUS_SHA256, MIXES, Mix, load_mix
from expertbank.training.resumable import provenance, resumed
from expertbank.training.testbed_model import batches

CHECKPOINT = "checkpoint.safetensors"
SAVED_EVERY = 50  # steps: half a minute
WEIGHTS = "model.safetensors"
# held-out texts of each language: those of the loss tables, of these the judged ones, and those
# whose routing ships
N_ROWS, N_JUDGED, N_ROUTED = 48, 8, 64


@dataclass(frozen=True)
class ModelRecipe:
    """Everything that determines the model: its sizes, its texts, its schedule, its seed."""

    mix: str = "latin"
    vocabulary: int = 2048
    sequence_length: int = 64
    width: int = 128
    layers: int = 3
    heads: int = 4
    key_value_heads: int = 2
    n_experts: int = 16
    n_chosen: int = 2
    expert_width: int = 64
    balance_weight: float = 0.02
    n_sequences: int = 32
    steps: int = 2800
    learning_rate: float = 1e-2
    weight_decay: float = 0.1
    seed: int = 0

    def __post_init__(self):
        if self.mix not in MIXES:
            raise ValueError(f"mix is {self.mix!r}; allowed are {tuple(MIXES)}")
        for name in ("layers", "heads", "key_value_heads", "n_experts", "expert_width", "steps"):
            as_count(getattr(self, name), name)
        as_count(self.n_chosen, "n_chosen", at_most=self.n_experts)
        as_count(self.seed, "seed", at_least=0)
        as_number(self.learning_rate, "learning_rate", ABOVE_0, 1)
        as_number(self.balance_weight, "balance_weight", 0, 1)
        n_domains = len(MIXES[self.mix])
        if as_count(self.n_sequences, "n_sequences") % n_domains:
            raise ValueError(
                f"n_sequences is {self.n_sequences}; allowed are multiples of {n_domains}, "
                "as many of each language"
            )


def train_router_model(
    folder: str | os.PathLike,
    recipe: ModelRecipe | None = None,
    root: str | os.PathLike | None = None,
    download: bool = False,
    device: str = "cpu",
) -> None:
    """Train the model of a recipe and write it into `folder` as transformers saves it: weights in
    16 bits, configuration, tokenizer; a manifest says how well it does.

    A killed run goes on from its last checkpoint in `<folder>.partial`, to the same numbers. Raises
    FileExistsError where `folder` holds something, ValueError where the partial run has another
    recipe or another run is at work on it.

    >>> train_router_model("router-model", download=True)  # ten minutes  # doctest: +SKIP
    """
    check_free(folder, "a router model")
    recipe = ModelRecipe() if recipe is None else recipe
    mix = load_mix(
        recipe.mix,
        root,
        download,
        vocabulary=recipe.vocabulary,
        sequence_length=recipe.sequence_length,
    )
    manifest = _manifest(recipe, mix, device)
    with resumed(folder, manifest, "a router model") as (partial, whole):
        model = trained_model(recipe, mix.train, partial / CHECKPOINT, device)
        whole.mkdir()
        names = save_model(model, mix, whole)
        # what ships is judged: its weights have 16 bits
        judged = load_model(whole)
        manifest["held_out_loss"] = round(held_out_loss(judged, mix.held_out), 4)
        manifest["parameters"] = model.num_parameters()
        save_tables(whole, tables_of(judged, mix.held_out))
        manifest["tables"] = counted_texts(len(mix.languages))
        save_routing(whole, routing_of(judged, mix.held_out))
        seal(whole, manifest, [*names, LOSSES, ROUTING])


def build_model(recipe: ModelRecipe) -> MixtralForCausalLM:
    """The untrained model of a recipe, its weights drawn with the recipe's seed.

    >>> build_model(ModelRecipe(vocabulary=300, width=32, n_experts=4)).config.num_hidden_layers
    3
    """
    torch.manual_seed(recipe.seed)
    # the fastest way to compute experts on a CPU, which not every version lists
    fast: dict[str, Any] = {"experts_implementation": "grouped_mm"}
    config = MixtralConfig(
        **fast,
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.width,
        intermediate_size=recipe.expert_width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.key_value_heads,
        num_local_experts=recipe.n_experts,
        num_experts_per_tok=recipe.n_chosen,
        max_position_embeddings=4 * recipe.sequence_length,
        router_aux_loss_coef=recipe.balance_weight,
        output_router_logits=True,
        tie_word_embeddings=True,
        # the corpus has no marks of begin and end
        bos_token_id=None,
        eos_token_id=None,
    )
    return MixtralForCausalLM(config)


def trained_model(
    recipe: ModelRecipe, sequences: np.ndarray, checkpoint: Path, device: str = "cpu"
) -> MixtralForCausalLM:
    """The model of a recipe, trained on sequences (D, S, L) of D languages; goes on from the file
    `checkpoint` where it is there, and keeps it up to date.

    >>> import tempfile
    >>> tiny = ModelRecipe(vocabulary=40, width=16, n_experts=4, n_sequences=8, steps=2)
    >>> sequences = np.random.default_rng(0).integers(0, 40, (8, 3, 12))
    >>> with tempfile.TemporaryDirectory() as home:
    ...     model = trained_model(tiny, sequences, Path(home, "checkpoint.safetensors"))
    >>> model.training
    False
    """
    model: Any = build_model(recipe)
    model.to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=recipe.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=recipe.weight_decay,
    )
    # one thread: the same sums in the same order on every machine
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _train(model, optimizer, recipe, sequences, checkpoint, device)
    finally:
        torch.set_num_threads(threads)
    return model.eval().cpu()


def _train(
    model: MixtralForCausalLM,
    optimizer: torch.optim.Optimizer,
    recipe: ModelRecipe,
    sequences: np.ndarray,
    checkpoint: Path,
    device: str,
) -> None:
    parameters = dict(model.named_parameters())
    done = _resume(parameters, optimizer, checkpoint) if checkpoint.exists() else 0
    steps = batches(sequences, recipe.n_sequences, np.random.default_rng([recipe.seed, 1]))
    for _ in range(done):
        next(steps)
    model.train()
    progress = tqdm(range(done, recipe.steps), total=recipe.steps, initial=done, desc="steps")
    for step in progress:
        tokens, _ = next(steps)
        tokens = tokens.to(device)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _rate_share(step, recipe.steps)
        loss = model(input_ids=tokens, labels=tokens).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % SAVED_EVERY == 0 or step + 1 == recipe.steps:
            content = save(_state(parameters, optimizer, step + 1))
            write_atomically(checkpoint, lambda file, content=content: file.write(content))
            progress.set_postfix(loss=f"{loss.item():.3f}")


def _rate_share(step: int, steps: int) -> float:
    """Of the learning rate: a linear start over a twentieth of the steps, then a cosine down to a
    twentieth."""
    begin = max(1, steps // 20)
    if step < begin:
        return (step + 1) / begin
    done = (step - begin) / max(1, steps - begin)
    return 0.525 + 0.475 * float(np.cos(np.pi * done))


def _state(
    parameters: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer, done: int
) -> dict[str, torch.Tensor]:
    """Everything that the next step depends on, by name: safetensors, so nothing is pickled."""
    tensors = {"done": torch.tensor(done)}
    for name, parameter in parameters.items():
        tensors[f"weight.{name}"] = parameter.detach().contiguous()
        for key, value in optimizer.state[parameter].items():
            tensors[f"{key}.{name}"] = value.contiguous()
    return tensors


def _resume(
    parameters: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer, checkpoint: Path
) -> int:
    """Put a checkpoint into model and optimizer; how many steps were done."""
    tensors = load_file(checkpoint)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"weight.{name}"])
            for key in ("step", "exp_avg", "exp_avg_sq"):
                value = tensors[f"{key}.{name}"]
                on = "cpu" if key == "step" else parameter.device
                optimizer.state[parameter][key] = value.to(on)
    return int(tensors["done"])


# --- the files ---


def save_model(model: MixtralForCausalLM, mix: Mix, folder: Path) -> list[str]:
    """Write weights in 16 bits, configuration and tokenizer as transformers reads them; the names
    of the files.

    >>> save_model(model, load_mix("latin"), Path("router-model"))  # doctest: +SKIP
    ['config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json']
    """
    model = model.half()
    # to be read as it was trained, in 32 bits: halves are slow on a CPU
    model.config.dtype = torch.float32
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    _write_plainly(folder / "config.json")
    PreTrainedTokenizerFast(tokenizer_object=mix.tokenizer).save_pretrained(folder)
    return sorted(path.name for path in folder.iterdir())


def _write_plainly(path: Path) -> None:
    """A configuration without the version of transformers, which the manifest states."""
    config = json.loads(path.read_bytes()) | {"dtype": "float32"}
    config.pop("transformers_version", None)
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


@torch.no_grad()
def held_out_loss(model: Any, sequences: np.ndarray) -> float:
    """Mean cross-entropy of the next token in nats, over sequences (D, S, L).

    >>> model = build_model(ModelRecipe(vocabulary=300, width=32, n_experts=4))
    >>> sequences = np.random.default_rng(0).integers(0, 300, (2, 30, 5))
    >>> round(held_out_loss(model, sequences), 1)  # log 300, of guesses
    5.7
    """
    total = 0.0
    rows = torch.from_numpy(sequences.reshape(-1, sequences.shape[2]).astype(np.int64))
    for part in rows.split(64):
        logits = model(input_ids=part).logits[:, :-1].float()
        losses = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), part[:, 1:].flatten(), reduction="sum"
        )
        total += losses.item()
    return total / rows[:, 1:].numel()


def tables_of(
    model: Any, sequences: np.ndarray, n_rows: int = N_ROWS, n_judged: int = N_JUDGED
) -> dict[str, np.ndarray]:
    """What ships of the loss tables of held-out sequences (D, S, L), every layer: `n_judged` of
    `n_rows` sequences of each language, with gates fitted on the others.

    `layers` of arrays are stacked: losses (layers, N, E), exact and estimated by one backward pass,
    features, what the router chose, and weights (layers, K, F + 1, E) of gates at K prices.

    >>> model = build_model(ModelRecipe(vocabulary=40, width=16, n_experts=4, layers=1))
    >>> sequences = np.random.default_rng(0).integers(0, 40, (2, 4, 8))
    >>> tables_of(model, sequences, n_rows=4, n_judged=2)["losses"].shape
    (1, 28, 4)
    """
    n_domains, n_sequences, _ = sequences.shape
    spread = np.linspace(0, n_sequences - 1, n_rows).round().astype(int)
    is_judged = np.arange(n_rows) % (n_rows // n_judged) == 0
    judged = _as_batches(sequences[:, spread[is_judged]])
    others = _as_batches(sequences[:, spread[~is_judged]])
    layers = []
    for layer in range(model.config.num_hidden_layers):
        exact = loss_table(model, judged, layer)
        fitted_on = loss_table(model, others, layer)
        linear = loss_table(model, judged, layer, method="linear")
        names = ("losses", "features", "chosen", "weights", "probabilities", "loss", "sequence")
        arrays = {name: getattr(exact, name)[:] for name in names}
        arrays["estimate"] = linear.losses[:]
        arrays["gates"] = np.stack(fitted_weights(fitted_on.features[:], fitted_on.losses[:]))
        layers.append(arrays)
    stacked = {name: np.stack([arrays[name] for arrays in layers]) for name in layers[0]}
    # the same in every layer
    shared = {name: stacked.pop(name)[0] for name in ("loss", "sequence")}
    language = shared["sequence"] % n_domains
    return stacked | shared | {"language": language, "lam": np.array(FIT_PRICES)}


def counted_texts(n_languages: int) -> dict[str, int]:
    """How many texts the shipped arrays are of.

    >>> counted_texts(8)["fitted_sequences"]
    320
    """
    return {
        "judged_sequences": N_JUDGED * n_languages,
        "fitted_sequences": (N_ROWS - N_JUDGED) * n_languages,
        "routed_sequences": N_ROUTED * n_languages,
    }


def routing_of(
    model: Any, sequences: np.ndarray, n_routed: int = N_ROUTED
) -> dict[str, np.ndarray]:
    """What the routers choose on the last `n_routed` held-out sequences of each language of
    (D, S, L), all layers, as `read_routing` takes it.

    >>> model = build_model(ModelRecipe(vocabulary=40, width=16, n_experts=4, layers=1))
    >>> sequences = np.random.default_rng(0).integers(0, 40, (2, 4, 8))
    >>> routing_of(model, sequences, n_routed=3)["chosen"].shape
    (1, 48, 2)
    """
    rows = sequences[:, -n_routed:].reshape(-1, sequences.shape[2])
    n_texts, length = rows.shape
    chosen, weights = _choices(model, rows)
    sequence = np.repeat(np.arange(n_texts), length)
    return {
        "chosen": chosen.astype(np.int8),
        "weights": weights.astype(np.float16),
        "layer": np.arange(len(chosen)),
        "n_experts": np.array(model.config.num_local_experts),
        "domain": (sequence // (n_texts // len(sequences))).astype(np.int8),
        "sequence": sequence.astype(np.int16),
        "position": np.tile(np.arange(length, dtype=np.int16), n_texts),
        "token": rows.ravel().astype(np.int16),
    }


@torch.no_grad()
def _choices(model: Any, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Experts and weights, (layers, N, k) both, that the experts of a model are called with."""
    called: list[list[tuple[torch.Tensor, torch.Tensor]]] = []
    handles = []
    for block in model.model.layers:
        seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        called.append(seen)
        handles.append(
            block.mlp.experts.register_forward_pre_hook(
                lambda _, given, seen=seen: seen.append((given[1], given[2]))
            )
        )
    for part in torch.from_numpy(rows.astype(np.int64)).split(64):
        model(input_ids=part)
    for handle in handles:
        handle.remove()
    chosen, weights = (
        torch.stack([torch.cat([call[i] for call in seen]) for seen in called]).numpy()
        for i in (0, 1)
    )
    return chosen, weights


def _as_batches(sequences: np.ndarray, size: int = 16) -> list[dict[str, torch.Tensor]]:
    """Sequences (D, S, L) as batches, their languages in turn."""
    rows = sequences.transpose(1, 0, 2).reshape(-1, sequences.shape[2]).astype(np.int64)
    return [{"input_ids": part} for part in torch.from_numpy(rows).split(size)]


def _manifest(recipe: ModelRecipe, mix: Mix, device: str) -> dict:
    return {
        "title": "A small Mixtral trained on eight languages of one script",
        "recipe": asdict(recipe),
        "data": {
            "languages": list(mix.languages),
            "vocabulary": mix.vocabulary,
            "train_sequences": mix.train.shape[1],
            "held_out_sequences": mix.held_out.shape[1],
            "sequence_length": mix.train.shape[2],
        },
        "corpus": {
            "commit": COMMIT,
            "sha256": {name: CORPUS_SHA256[name] for name in mix.languages},
        },
        **provenance("numpy", "torch", "tokenizers", "transformers", device=device),
        "source": "bible-corpus (Christodouloupoulos & Steedman 2015), CC0 1.0; "
        "this model: this project, CC0 1.0",
    }
