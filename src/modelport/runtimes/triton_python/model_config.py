"""What ``auto_complete_config`` reads and fills in."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from modelport.dtypes import DATATYPE_BY_CONFIG_NAME
from modelport.specs import (
    DynamicBatching,
    ModelInput,
    ModelOutput,
    TransactionPolicy,
)
from modelport.specs import ModelConfig as Config

__all__ = ["ModelConfig", "completed"]


class ModelConfig:
    """A model's configuration on its way to being complete.

    What is configured already stands: a setter may fill in, and repeat, but not contradict.
    """

    def __init__(self, config: Config) -> None:
        self._name = config.name
        self._fields: dict[str, Any] = _as_json(config)

    def as_dict(self) -> dict[str, Any]:
        """The configuration in Triton's JSON form, to read."""
        return self._fields

    def set_max_batch_size(self, max_batch_size: int) -> None:
        """Say how many rows the model takes at once; 0 for a model without batch dimension.

        Raises:
            ValueError: If more is configured than the model takes.
        """
        configured = self._fields["max_batch_size"]
        if configured > max_batch_size:
            raise ValueError(
                f"configuration specified max-batch {configured}, but the auto_complete_config "
                f"function of model '{self._name}' specifies max-batch {max_batch_size}"
            )
        self._fields["max_batch_size"] = max_batch_size

    def set_dynamic_batching(self) -> None:
        """Let the server put requests together.

        Raises:
            ValueError: If another scheduler is configured.
        """
        for other in ("sequence_batching", "ensemble_scheduling"):
            if other in self._fields:
                raise ValueError(
                    f"configuration specified scheduling_choice as '{other}', but the "
                    f"auto_complete_config function of model '{self._name}' asks for "
                    "'dynamic_batching'"
                )
        self._fields.setdefault("dynamic_batching", {})

    def add_input(self, input: Mapping[str, Any]) -> None:
        """Declare an input: ``name``, ``data_type``, ``dims`` and perhaps ``optional``.

        Raises:
            ValueError: If a key is missing or unknown, or another kind of input is configured.
        """
        self._add("input", input, ("name", "data_type", "dims", "optional"))

    def add_output(self, output: Mapping[str, Any]) -> None:
        """Declare an output: ``name``, ``data_type`` and ``dims``.

        Raises:
            ValueError: If a key is missing or unknown, or another kind of output is configured.
        """
        self._add("output", output, ("name", "data_type", "dims"))

    def set_model_transaction_policy(self, transaction_policy_dict: Mapping[str, Any]) -> None:
        """Say by ``decoupled`` whether a request may have any number of responses.

        Raises:
            ValueError: If a key is unknown, or the other is configured.
        """
        unknown = [key for key in transaction_policy_dict if key != "decoupled"]
        if unknown:
            raise ValueError(
                f"model transaction policy in the auto_complete_config function of model "
                f"'{self._name}' contains property other than 'decoupled': {unknown}"
            )
        wanted = bool(transaction_policy_dict.get("decoupled", False))
        policy = self._fields.setdefault("model_transaction_policy", {"decoupled": wanted})
        if policy["decoupled"] != wanted:
            raise ValueError(
                f"configuration specified decoupled as {policy['decoupled']}, but the "
                f"auto_complete_config function of model '{self._name}' specifies {wanted}"
            )

    def _add(self, section: str, tensor: Mapping[str, Any], keys: Sequence[str]) -> None:
        where = f"in the auto_complete_config function of model '{self._name}'"
        for key in tensor:
            if key not in keys:
                raise ValueError(
                    f"{section} '{tensor.get('name', '')}' {where} contains property '{key}', "
                    f"other than {', '.join(keys)}"
                )
        for key in keys[:3]:
            if key not in tensor:
                raise ValueError(
                    f"{section} '{tensor.get('name', '')}' {where} is missing '{key}' property"
                )
        if tensor["data_type"] not in DATATYPE_BY_CONFIG_NAME:
            raise ValueError(
                f"{section} '{tensor['name']}' {where} has data_type {tensor['data_type']!r}; "
                f"known are {', '.join(sorted(DATATYPE_BY_CONFIG_NAME))}"
            )
        added = {**tensor, "dims": [int(size) for size in tensor["dims"]]}
        for configured in self._fields[section]:
            if configured["name"] == added["name"]:
                self._agree(section, configured, added)
                return
        self._fields[section].append(added)

    def _agree(self, section: str, configured: dict[str, Any], added: dict[str, Any]) -> None:
        """Fill in what the configuration leaves open about a tensor; refuse what contradicts it."""
        for key, is_open in (
            ("data_type", configured["data_type"] == "TYPE_INVALID"),
            ("dims", not configured["dims"]),
        ):
            if is_open:
                configured[key] = added[key]
            elif configured[key] != added[key]:
                raise ValueError(
                    f"unable to load model '{self._name}', configuration expects {key} "
                    f"{configured[key]} for {section} '{added['name']}', model provides "
                    f"{added[key]}"
                )


def completed(config: Config, filled_in: ModelConfig) -> Config:
    """A configuration with what a model has filled in.

    Raises:
        ValueError: If the model has changed, in the dictionary, what only a configuration can say.
    """
    before, after = _as_json(config), filled_in.as_dict()
    for key in sorted(before.keys() | after.keys()):
        if key not in _TAKEN and before.get(key) != after.get(key):
            raise ValueError(
                f"auto_complete_config of model '{config.name}' changed '{key}', which only the "
                f"model's configuration file can say; it may fill in {', '.join(sorted(_TAKEN))}"
            )
    dynamic = config.dynamic_batching
    if dynamic is None and "dynamic_batching" in after:
        dynamic = DynamicBatching()
    policy = config.model_transaction_policy
    if policy is None and "model_transaction_policy" in after:
        policy = TransactionPolicy(**after["model_transaction_policy"])
    inputs = {tensor.name: tensor for tensor in config.input}
    outputs = {tensor.name: tensor for tensor in config.output}
    return dataclasses.replace(
        config,
        max_batch_size=after["max_batch_size"],
        input=tuple(
            dataclasses.replace(
                inputs.get(tensor["name"], _NEW_INPUT),
                name=tensor["name"],
                data_type=tensor["data_type"],
                dims=tuple(tensor["dims"]),
                optional=bool(tensor.get("optional", False)),
            )
            for tensor in after["input"]
        ),
        output=tuple(
            dataclasses.replace(
                outputs.get(tensor["name"], _NEW_OUTPUT),
                name=tensor["name"],
                data_type=tensor["data_type"],
                dims=tuple(tensor["dims"]),
            )
            for tensor in after["output"]
        ),
        dynamic_batching=dynamic,
        model_transaction_policy=policy,
    )


def _as_json(value: Any) -> Any:
    """A configuration as Triton's JSON has it: every scalar, and the messages that are there."""
    if dataclasses.is_dataclass(value):
        fields = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {
            _JSON_NAMES.get(name, name): _as_json(item) for name, item in fields if item is not None
        }
    if isinstance(value, tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    return value


_JSON_NAMES = {"is_global": "global"}
_TAKEN = frozenset(
    {"max_batch_size", "input", "output", "dynamic_batching", "model_transaction_policy"}
)
_NEW_INPUT = ModelInput()
_NEW_OUTPUT = ModelOutput()
