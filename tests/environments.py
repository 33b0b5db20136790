"""Listen to models of other versions, and with packages that the project does not need: in an
environment of its own each, `make environments`, outside of the default suite.

    python tests/environments.py            makes all below build/environments and runs them
    python tests/environments.py old        what runs inside of the first
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = REPOSITORY / "build" / "environments"
# what each has beyond, or in place of, the packages of the environment that makes it
ENVIRONMENTS = {
    "old": ["transformers==5.0.0", "tokenizers==0.22.1", "huggingface-hub<2"],
    "between": ["transformers==5.12.1", "tokenizers==0.22.2", "huggingface-hub<2"],
    "newest": ["transformers==5.24.0"],
    "more": ["accelerate==1.15.0", "peft==0.21.2"],
}
# families of 5.0.0 whose routers put out a softmax in place of logits, and some that do not
OLD_FAMILIES = (
    "mixtral", "olmoe", "qwen2_moe", "qwen3_moe", "qwen3_next", "deepseek_v3", "glm4_moe", "dots1",
    "gpt_oss", "minimax", "ernie4_5_moe", "jamba", "lfm2_moe",
)  # fmt: skip
# whose blocks are of another make there: refused by a sentence that names the module
OLD_REFUSED = ("granitemoe", "phimoe", "switch_transformers")
# likewise in 5.12.1, beside two whose own code fails on the tiny models and one that is not built
BETWEEN_REFUSED = {
    "aria", "granitemoe", "granitemoehybrid", "granitemoeshared", "longcat_flash",
    "switch_transformers",
}  # fmt: skip
BETWEEN_FAILS = {"dbrx", "diffusion_gemma", "doge"}
# families of 5.24.0 that the table does not have, by form
NEW_FAMILIES = {"hy_v4_vl", "inkling2_loop", "lara_mini"}


def make(name: str) -> Path:
    """The interpreter of an environment, made where it is not there."""
    folder = FOLDER / name
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        packages = next(folder.glob("lib/python*/site-packages"))
        own = sysconfig.get_path("purelib")
        (packages / "zz_own.pth").write_text(f"{own}\n{REPOSITORY / 'lib'}\n")
        words = [python, "-m", "pip", "install", "--quiet", "--no-deps", *ENVIRONMENTS[name]]
        subprocess.run(words, check=True)
    return python


def old() -> None:
    """Every family that 5.0.0 can build is counted right, and its probabilities are no softmax of a
    softmax."""
    import numpy as np
    import tiny_models
    import torch
    import transformers

    from expertbank.routers.hooks import record_routing

    assert transformers.__version__ == "5.0.0", transformers.__version__
    for name in OLD_FAMILIES:
        model = tiny_models.build_family(name)
        seen: list = []

        def keep(module, given, seen=seen):
            seen.append(given[1:3])

        for path, module in model.named_modules():
            if path.endswith(".experts"):
                module.register_forward_pre_hook(keep)
        with record_routing(model, n_domains=2, n_positions=32) as recorder:
            recorder(**tiny_models.inputs_of(name), domain=[0, 1, 0])
        counted = list(recorder.statistics.layers.values())
        assert counted, name
        for layer, (chosen, _) in zip(counted, seen):
            expected = torch.bincount(chosen.flatten(), minlength=8)
            assert layer.slots.tolist() == expected.tolist(), name
            entropy = layer.probability_entropy / layer.probable
            if name in ("deepseek_v3", "glm4_moe", "dots1", "lfm2_moe"):
                continue  # sigmoids, which are flat
            assert entropy < 0.8 * np.log(8), f"{name}: {entropy:.2f} looks like two softmaxes"
        with record_routing(model, n_positions=32) as recorder, torch.no_grad():
            model.generate(input_ids=tiny_models.tokens(), max_new_tokens=4, do_sample=False)
        layer = next(iter(recorder.statistics.layers.values()))
        assert layer.sequences == 3, name
        print(f"{name}: {len(counted)} layers, {int(layer.tokens)} tokens of 3 sequences")

    for name in OLD_REFUSED:
        try:
            with record_routing(tiny_models.build_family(name)) as recorder:
                recorder(**tiny_models.inputs_of(name))
        except ValueError as error:
            print(f"{name} is refused: {str(error)[:90]}")
        else:
            raise AssertionError(f"{name} was neither counted right nor refused")


def listened(name: str) -> str:
    """What became of one forward of a family by whose call of its experts it is heard: right,
    refused, fails (without a recorder too), or else wrong."""
    import tiny_models
    import torch

    from expertbank.routers.hooks import record_routing

    inputs = tiny_models.inputs_of(name)
    try:
        model = tiny_models.build_family(name)
        with torch.no_grad():
            model(**inputs)
    except Exception:  # whatever that version does not like about the sizes
        return "fails"
    seen: list = []

    def keep(module, given, keywords):
        seen.append([*given, *keywords.values()])

    for path, module in model.named_modules():
        if path.endswith(".experts"):
            module.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        with record_routing(model) as recorder:
            recorder(**inputs)
    except ValueError as error:
        print(f"{name} is refused: {str(error)[:90]}")
        return "refused"
    counted = list(recorder.statistics.layers.values())
    called = [given[1] for given in seen if len(given) > 2]
    size = recorder.statistics.n_experts
    slots = [torch.bincount(chosen.flatten(), minlength=size).tolist() for chosen in called]
    right = bool(counted) and slots == [layer.slots.tolist() for layer in counted]
    return "right" if right else "wrong"


def between() -> None:
    """Every family of 5.12.1 is counted right or refused by name."""
    import importlib.util

    import transformers

    from expertbank.routers.families import MODEL_FAMILIES

    assert transformers.__version__ == "5.12.1", transformers.__version__
    found: dict[str, set[str]] = {}
    for family in MODEL_FAMILIES:
        is_there = importlib.util.find_spec(f"transformers.models.{family.name}")
        if is_there and (family.choice is None or family.name in BETWEEN_REFUSED | BETWEEN_FAILS):
            found.setdefault(listened(family.name), set()).add(family.name)
    assert found["refused"] == BETWEEN_REFUSED, found
    assert found["fails"] == BETWEEN_FAILS, found
    assert "wrong" not in found, found
    print("right:", len(found["right"]), sorted(found["right"]))


def newest() -> None:
    """The tests of families and of listening hold in 5.24.0, and new families are heard by form."""
    import transformers

    from expertbank.routers.families import families_of

    assert transformers.__version__ == "5.24.0", transformers.__version__
    by_form = {name for name, how, _ in families_of() if how == "by form"}
    assert by_form == NEW_FAMILIES, by_form
    for name in sorted(by_form):
        assert listened(name) == "right", name
        print(f"{name}: right, by form")
    tests = [REPOSITORY / "tests" / "routers" / f"test_{of}.py" for of in ("families", "listening")]
    left_out = "not of_the_installed_transformers"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", left_out]
    subprocess.run([*command, *tests], cwd=REPOSITORY, check=True)


def more() -> None:
    """A whole Trainer with its callback, PEFT, and parameters that accelerate offloads."""
    import accelerate
    import peft
    import tiny_models
    import torch
    import transformers

    from expertbank.routers.callback import RoutingCallback
    from expertbank.routers.hooks import record_routing

    texts = [
        {"input_ids": row, "labels": row, "domain": i % 2}
        for i, row in enumerate(tiny_models.tokens(16, 9))
    ]
    with tempfile.TemporaryDirectory() as folder:
        callback = RoutingCallback(n_domains=2)
        arguments = transformers.TrainingArguments(
            output_dir=folder, max_steps=4, logging_steps=2, per_device_train_batch_size=4,
            remove_unused_columns=False, report_to=[], use_cpu=True, save_strategy="no",
            gradient_checkpointing=True, disable_tqdm=True,
        )  # fmt: skip
        model = tiny_models.build_family("mixtral")
        trainer = transformers.Trainer(model, arguments, train_dataset=texts, callbacks=[callback])
        callback.report_first(trainer)
        trainer.train()
        logs = [log for log in trainer.state.log_history if "routing/dead" in log]
        assert len(logs) >= 2 and "routing/domain_excess" in logs[0], trainer.state.log_history
        assert callback.statistics.layers[0].tokens == 4 * 4 * 9
        print("Trainer:", {name: value for name, value in logs[0].items() if "routing" in name})

    inputs = {"input_ids": tiny_models.tokens()}
    plain = tiny_models.build_family("mixtral")
    with record_routing(plain) as recorder:
        recorder(**inputs)
    expected = {name: layer.slots for name, layer in recorder.statistics.layers.items()}
    config = peft.LoraConfig(target_modules=["q_proj"], modules_to_save=["gate"])
    wrapped = peft.get_peft_model(tiny_models.build_family("mixtral"), config)
    with record_routing(wrapped) as recorder:
        recorder(**inputs)
        with torch.no_grad():
            wrapped.generate(**inputs, max_new_tokens=3, do_sample=False)
    for name, layer in recorder.statistics.layers.items():
        assert layer.tokens == 27 + 3 * 11 and layer.sequences == 6, name
        assert layer.probable == layer.tokens, "the gate that PEFT wraps was not read"
    assert set(recorder.statistics.layers) == set(expected)
    assert set(recorder.statistics.heard.values()) == {"verified"}
    print("PEFT:", sorted(recorder.statistics.layers))

    offloaded = accelerate.cpu_offload(tiny_models.build_family("mixtral"), "cpu")
    assert next(offloaded.parameters()).device.type == "meta"
    with record_routing(offloaded) as recorder:
        recorder(**inputs)
    for name, layer in recorder.statistics.layers.items():
        assert (layer.slots == expected[name]).all()
    print("offloaded:", sorted(recorder.statistics.layers))


def main() -> None:
    """Run one inside of its environment, or all in theirs."""
    if len(sys.argv) > 1:
        sys.path.insert(0, str(REPOSITORY / "tests" / "routers"))
        {"old": old, "between": between, "newest": newest, "more": more}[sys.argv[1]]()
        return
    for name in ENVIRONMENTS:
        subprocess.run([make(name), __file__, name], check=True)


if __name__ == "__main__":
    main()
