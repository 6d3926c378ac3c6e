"""A real ONNX model of the bundle's graph contract, small and untrained: seeded random weights, made in no time."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, parser

_ENCODER = """
<ir_version: 10, opset_import: ["" : 21]>
encoder (int64[batch, source] source_ids, int64[batch] source_lengths)
    => (float[batch, source, hidden] encoder_states, float[batch, source, key] attention_keys,
        float[batch, size] initial_decoder_state_0, float[batch, size] initial_decoder_state_1) {
    embedded = Gather(embedding, source_ids)
    time_major = Transpose<perm = [1, 0, 2]>(embedded)
    lengths = Cast<to = 6>(source_lengths)
    states, last = GRU<hidden_size = HALF, direction = "bidirectional", linear_before_reset = 1>(
        time_major, encoder_input, encoder_recurrent, encoder_bias, lengths)
    by_sentence = Transpose<perm = [2, 0, 1, 3]>(states)
    encoder_states = Reshape(by_sentence, join_states)
    attention_keys = MatMul(encoder_states, key_weights)
    last_by_sentence = Transpose<perm = [1, 0, 2]>(last)
    summary = Reshape(last_by_sentence, join_last)
    bridge_0 = MatMul(summary, bridge_weights_0)
    initial_decoder_state_0 = Tanh(bridge_0)
    bridge_1 = MatMul(summary, bridge_weights_1)
    initial_decoder_state_1 = Tanh(bridge_1)
}
"""

_CELL = """
    state_N = Gather(decoder_state_N, state_rows)
    gates_N = MatMul(INPUT, input_weights_N)
    recurrent_gates_N = MatMul(state_N, recurrent_weights_N)
    update_x_N, reset_x_N, candidate_x_N = Split<axis = 2, num_outputs = 3>(gates_N)
    update_h_N, reset_h_N, candidate_h_N = Split<axis = 2, num_outputs = 3>(recurrent_gates_N)
    update_sum_N = Add(update_x_N, update_h_N)
    update_N = Sigmoid(update_sum_N)
    reset_sum_N = Add(reset_x_N, reset_h_N)
    reset_N = Sigmoid(reset_sum_N)
    kept_N = Mul(reset_N, candidate_h_N)
    candidate_sum_N = Add(candidate_x_N, kept_N)
    candidate_N = Tanh(candidate_sum_N)
    difference_N = Sub(state_N, candidate_N)
    part_N = Mul(update_N, difference_N)
    next_decoder_state_N = Add(candidate_N, part_N)
"""

_STEP = (
    """
<ir_version: 10, opset_import: ["" : 21]>
decoder_step (int64[batch, beam] previous_token_ids,
        float[rows, size] decoder_state_0, float[rows, size] decoder_state_1, int64[batch, beam] state_rows,
        float[batch, source, hidden] encoder_states, float[batch, source, key] attention_keys,
        int64[batch] source_lengths, int64[1] candidates,
        bool[batch, beam, 1] attention_replaced, float[batch, beam, source] given_attention_weights)
    => (int64[batch, beam, k] candidate_token_ids, float[batch, beam, k] candidate_log_probabilities,
        float[batch, beam, vocabulary] log_probabilities, float[batch, beam, source] attention_scores,
        float[batch, beam, source] attention_weights, float[batch, beam, key] attention_query,
        float[batch, beam, hidden] context,EMISSION_OUTPUT
        float[batch, beam, size] next_decoder_state_0, float[batch, beam, size] next_decoder_state_1) {
    embedded = Gather(embedding, previous_token_ids)
"""
    + _CELL.replace("_N", "_0").replace("INPUT", "embedded")
    + _CELL.replace("_N", "_1").replace("INPUT", "next_decoder_state_0")
    + """
    attention_query = MatMul(next_decoder_state_1, query_weights)
    keys_transposed = Transpose<perm = [0, 2, 1]>(attention_keys)
    attention_scores = MatMul(attention_query, keys_transposed)
    shape = Shape<start = 1, end = 2>(encoder_states)
    source_size = Squeeze(shape)
    positions = Range(zero, source_size, one)
    lengths = Unsqueeze(source_lengths, after)
    real = Less(positions, lengths)
    masked = Where(real, attention_scores, minus_infinity)
    own_weights = Softmax<axis = -1>(masked)
    attention_weights = Where(attention_replaced, given_attention_weights, own_weights)
    context = MatMul(attention_weights, encoder_states)
    both = Concat<axis = 2>(next_decoder_state_1, context)
    logits = MatMul(both, readout)
    biased = Add(logits, readout_bias)EMISSION
    log_probabilities = LogSoftmax<axis = -1>(biased)
    candidate_log_probabilities, candidate_token_ids = TopK(log_probabilities, candidates)
}
"""
)

_EMISSION = """
    read_out_of_read = Gather(readout_by_token, previous_token_ids)
    of_state, of_context = Split<axis = 2, num_outputs = 2>(read_out_of_read)
    by_state = Mul(of_state, state_1)
    logit_of_state = ReduceSum(by_state, last_axis)
    states_transposed = Transpose<perm = [0, 2, 1]>(encoder_states)
    logits_of_context = MatMul(of_context, states_transposed)
    emission_scores = Add(logits_of_context, logit_of_state)"""


@dataclass(frozen=True)
class TinyModel:
    """Sizes of the model; ``key`` and ``hidden`` as in the graph contract, decoder states have size ``hidden``.

    With ``emission``, the step has emission scores (without the bias of each token, which no posterior depends on).
    """

    vocabulary: int
    hidden: int = 32
    key: int = 16
    seed: int = 20
    emission: bool = False

    def write(self, folder: Path) -> None:
        """Write ``encoder.onnx`` and ``decoder_step.onnx``."""
        hidden, half, random = self.hidden, self.hidden // 2, np.random.default_rng(self.seed)

        def weights(*shape: int, scale: float = 2.0) -> np.ndarray:
            return np.asarray(random.standard_normal(shape) * scale / np.sqrt(shape[-2]), np.float32)

        embedding = weights(self.vocabulary, hidden, scale=np.sqrt(self.vocabulary))
        bias = np.zeros(self.vocabulary, np.float32)
        bias[:3], bias[3] = -1e4, 2.5  # never pad, unk or bos; the end of sentence often enough
        encoder = {
            "embedding": embedding,
            "encoder_input": weights(2, 3 * half, hidden),
            "encoder_recurrent": weights(2, 3 * half, half),
            "encoder_bias": np.zeros((2, 6 * half), np.float32),
            "key_weights": weights(hidden, self.key, scale=0.7),
            "bridge_weights_0": weights(hidden, hidden),
            "bridge_weights_1": weights(hidden, hidden),
            "join_states": np.array([0, 0, hidden], np.int64),
            "join_last": np.array([0, hidden], np.int64),
        }
        step = {"embedding": embedding, "readout": weights(2 * hidden, self.vocabulary, scale=3.0)}
        for layer in (0, 1):
            step[f"input_weights_{layer}"] = weights(hidden, 3 * hidden)
            step[f"recurrent_weights_{layer}"] = weights(hidden, 3 * hidden)
        step |= {
            "query_weights": weights(hidden, self.key, scale=0.7),
            "readout_bias": bias,
            "minus_infinity": np.array(-np.inf, np.float32),
            "zero": np.array(0, np.int64),
            "one": np.array(1, np.int64),
            "after": np.array([1, 2], np.int64),
            "attention_replaced": np.zeros((1, 1, 1), bool),  # a default makes the input optional
            "given_attention_weights": np.zeros((1, 1, 1), np.float32),
        }
        _write(folder / "encoder.onnx", _ENCODER.replace("HALF", str(half)), encoder)
        step_text = _STEP.replace("EMISSION_OUTPUT", "float[batch, beam, source] emission_scores," * self.emission)
        step_text = step_text.replace("EMISSION", _EMISSION * self.emission)
        if self.emission:
            step |= {"readout_by_token": step["readout"].T.copy(), "last_axis": np.array([2], np.int64)}
        _write(folder / "decoder_step.onnx", step_text, step)


def _write(file: Path, text: str, weights: dict[str, np.ndarray]) -> None:
    model = parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    onnx.checker.check_model(model)
    onnx.save(model, file)
