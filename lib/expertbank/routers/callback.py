"""Routing in the logs of transformers' Trainer: TensorBoard, wandb, and whatever else it reports
to."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from expertbank.routers.meter import RoutingMeter
from expertbank.routers.statistics import RouterStatistics


class RoutingCallback(TrainerCallback):
    """Adds the scalars of `RoutingMeter.collect` to a Trainer's logs, as `routing/dead` and so on::

        callback = RoutingCallback()
        trainer = Trainer(model, ..., callbacks=[callback])
        callback.report_first(trainer)
        trainer.train()

    The window of a log is what came since the one before. `n_domains`: room for a column `domain`
    of the batches; the Trainer keeps it with `remove_unused_columns=False`. `is_shared` adds up the
    ranks of a distributed run. Evaluation within training is counted too.

    >>> RoutingCallback(n_domains=2).statistics is None  # before training
    True
    """

    def __init__(self, *, n_domains: int = 0, is_shared: bool = False):
        self.n_domains = n_domains
        self.is_shared = is_shared
        self.statistics: RouterStatistics | None = None
        """all that was collected, once training began"""
        self._meter: RoutingMeter | None = None

    def report_first(self, trainer: Any) -> None:
        """Put this callback before those that report, so that they see its scalars: a Trainer puts
        its own first."""
        callbacks = trainer.callback_handler.callbacks
        callbacks.remove(self)
        callbacks.insert(0, self)

    def on_train_begin(self, args: Any, state: Any, control: Any, **inputs: Any) -> None:
        """Start to listen to the model."""
        self._meter = RoutingMeter(inputs["model"], n_domains=self.n_domains).__enter__()
        self.statistics = self._meter.statistics

    def on_log(self, args: Any, state: Any, control: Any, **inputs: Any) -> None:
        """Collect a window, and add its scalars to the log and to the state's history."""
        logs = inputs.get("logs")
        if self._meter is None or logs is None:
            return
        found = self._meter.collect(self.is_shared)
        self.statistics = self._meter.statistics
        scalars = {f"routing/{name}": value for name, value in found.items()}
        logs.update(scalars)
        if state.log_history:
            state.log_history[-1].update(scalars)

    def on_train_end(self, args: Any, state: Any, control: Any, **inputs: Any) -> None:
        """Stop listening."""
        if self._meter is not None:
            self._meter.collect(self.is_shared)
            self.statistics = self._meter.statistics
            self._meter.__exit__()
            self._meter = None
