"""Model configurations: pbtxt, JSON, YAML and protobuf messages ⇄ ``ModelConfig``, and their rules.

Reading is strict: a field that is not known is an error that names what was probably meant, never
skipped. What a reader gives has the right types and nothing more; ``merge`` adds what the model
file says, ``complete`` adds what may be left out, ``check`` says whether it makes sense and
``refuse_unsupported`` whether we do all that it asks for.

protobuf and YAML are imported when text in those forms is read or written, not before.
"""

from modelport.wire.model_config.completion import complete, merge
from modelport.wire.model_config.json import decode_dict, decode_json, encode_json
from modelport.wire.model_config.ovms import OvmsModel, decode_ovms, is_ovms
from modelport.wire.model_config.ovms_forms import hold_to_forms
from modelport.wire.model_config.pbtxt import decode_pbtxt, encode_pbtxt, from_proto, to_proto
from modelport.wire.model_config.support import left_out, refuse_unsupported, unsupported
from modelport.wire.model_config.validity import check, check_written, problems
from modelport.wire.model_config.yaml import decode_yaml

__all__ = [
    "OvmsModel",
    "check",
    "check_written",
    "complete",
    "decode_dict",
    "decode_json",
    "decode_ovms",
    "decode_pbtxt",
    "decode_yaml",
    "encode_json",
    "encode_pbtxt",
    "from_proto",
    "hold_to_forms",
    "is_ovms",
    "left_out",
    "merge",
    "problems",
    "refuse_unsupported",
    "to_proto",
    "unsupported",
]
