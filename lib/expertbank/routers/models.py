"""A causal language model of transformers and batches of one's own texts, from what is on disk."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from expertbank._checks import as_count
from expertbank._files import check_input, one_line, reading


def load_model(name: str | os.PathLike) -> Any:
    """A causal language model, in evaluation mode, from a folder in transformers' format or under a
    name that transformers has on this machine already.

    Nothing is fetched, no code of the folder is run, and only safetensors are read: no pickle.
    Raises ValueError where that gives no model.

    >>> from expertbank.shipped.manifest import data_folder
    >>> load_model(data_folder() / "router-model").config.num_local_experts
    16
    """
    from transformers import AutoModelForCausalLM

    return _loaded(AutoModelForCausalLM, name, use_safetensors=True).eval()


def text_batches(
    name: str | os.PathLike,
    paths: Sequence[str | os.PathLike],
    length: int = 128,
    size: int = 8,
    most: int = 256,
) -> Iterator[dict[str, Any]]:
    """Batches `input_ids` and `attention_mask` (size, L) of the model's tokenizer, padded at the
    end, from files with a text a line; only the first `most` texts, cut to `length` tokens.

    Raises ValueError where there is no tokenizer, a file is not UTF-8 or no line has two tokens.

    >>> from expertbank.shipped.manifest import data_folder
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.NamedTemporaryFile(suffix=".txt") as file:
    ...     _ = Path(file.name).write_text("Hapo mwanzo kulikuwako Neno\\n\\nNeno\\n")
    ...     [batch] = text_batches(data_folder() / "router-model", [file.name], length=4)
    >>> batch["input_ids"].shape, batch["attention_mask"].sum(dim=1).tolist()
    (torch.Size([2, 4]), [4, 3])
    """
    import torch
    from transformers import AutoTokenizer

    as_count(length, "length", 2)
    as_count(size, "size")
    as_count(most, "most")
    tokenizer = _loaded(AutoTokenizer, name)
    rows = []
    for line in _lines(paths):
        tokens = tokenizer(line)["input_ids"][:length]
        if len(tokens) > 1:
            rows.append(torch.tensor(tokens))
        if len(rows) == most:
            break
    if not rows:
        raise ValueError("the files have no line of two tokens; allowed is a text a line")
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        mask = [torch.ones_like(row) for row in part]
        pad = torch.nn.utils.rnn.pad_sequence
        yield {
            "input_ids": pad(part, batch_first=True),
            "attention_mask": pad(mask, batch_first=True),
        }


def _lines(paths: Sequence[str | os.PathLike]) -> Iterator[str]:
    for path in paths:
        check_input(path)
        with reading(path), open(path, encoding="utf-8") as file:
            yield from (line.strip() for line in file if line.strip())


def _loaded(kind: Any, name: str | os.PathLike, **more: Any) -> Any:
    from transformers.utils import logging

    # a bar of half a second, which would stay behind in a notebook
    was_shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return kind.from_pretrained(
            os.fspath(name), local_files_only=True, trust_remote_code=False, **more
        )
    except Exception as error:
        raise ValueError(
            f"{name} holds nothing that transformers reads ({one_line(error, 160)}); allowed is a "
            "folder with config.json, safetensors and a tokenizer"
        ) from error
    finally:
        if was_shown:
            logging.enable_progress_bar()
