import pytest
import torch
from torch import nn

from training.models.interface import Encoded, GivenAttention, Stepped, TranslationModel
from training.models.recurrence import BidirectionalLayer, gru_step
from training.models.registry import build_model

VOCABULARY = 30
SIZES = {"architecture": "aed", "embedding": 12, "hidden": 16, "key": 8}


@pytest.fixture(params=[{}, {"encoder_layers": 1, "decoder_layers": 3}, {"tied_embeddings": False}], ids=str)
def model(request: pytest.FixtureRequest) -> TranslationModel:
    torch.manual_seed(1)
    return build_model(SIZES | request.param, VOCABULARY).eval()


def sources(*lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(4, VOCABULARY, (len(lengths), max(lengths)))
    return ids, torch.tensor(lengths)


def test_one_written_out_step_is_what_torch_computes() -> None:
    cell = nn.GRU(6, 5, batch_first=True)
    inputs, state = torch.randn(3, 1, 6), torch.rand(3, 5) * 2 - 1
    expected, _ = cell(inputs, state[None])
    torch.testing.assert_close(gru_step(cell, inputs[:, 0], state), expected[:, 0])


def test_a_bidirectional_layer_is_what_torch_computes_on_packed_sequences() -> None:
    layer = BidirectionalLayer(6, 10)
    twin = nn.GRU(6, 5, bidirectional=True, batch_first=True)
    for suffix, reader in (("", layer.forward_reader), ("_reverse", layer.backward_reader)):
        for name, value in reader.named_parameters():
            twin.get_parameter(name + suffix).data.copy_(value.data)
    inputs, lengths = torch.randn(4, 7, 6), torch.tensor([7, 3, 1, 5])
    packed = nn.utils.rnn.pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = nn.utils.rnn.pad_packed_sequence(twin(packed)[0], batch_first=True)
    states, final = layer(inputs, lengths)
    torch.testing.assert_close(states, expected)
    torch.testing.assert_close(final, torch.cat(list(twin(packed)[1]), dim=-1))


def test_padding_does_not_leak_into_a_sentence(model: TranslationModel) -> None:
    ids, lengths = sources(9, 4)
    alone = model.encode(ids[1:, :4], lengths[1:])
    padded = model.encode(ids, lengths)
    for name, tensor in alone.encoder_side.items():
        torch.testing.assert_close(padded.encoder_side[name][1:, :4], tensor)
    for name, tensor in alone.initial_state.items():
        torch.testing.assert_close(padded.initial_state[name][1:], tensor)


def test_steps_give_the_log_probabilities_of_teacher_forcing(model: TranslationModel) -> None:
    ids, lengths = sources(6, 3)
    target_input_ids = torch.randint(4, VOCABULARY, (2, 5))
    expected = torch.log_softmax(model(ids, lengths, target_input_ids).logits, dim=-1)
    encoded = model.encode(ids, lengths)
    state = {name: tensor[:, None] for name, tensor in encoded.initial_state.items()}
    for time in range(5):
        stepped = model.step(target_input_ids[:, time : time + 1], state, encoded)
        torch.testing.assert_close(stepped.log_probabilities[:, 0], expected[:, time])
        state = stepped.state


def test_attention_is_a_distribution_over_the_sentence_and_its_scores_are_inner_products(
    model: TranslationModel,
) -> None:
    ids, lengths = sources(6, 3)
    encoded = model.encode(ids, lengths)
    stepped = _first_step(model, encoded)
    assert stepped.attention_weights is not None and stepped.attention_scores is not None
    assert stepped.attention_query is not None and stepped.context is not None
    torch.testing.assert_close(stepped.attention_weights.sum(-1), torch.ones(2, 3))
    assert (stepped.attention_weights[1, :, 3:] == 0).all()
    scores = stepped.attention_query @ encoded.encoder_side["attention_keys"].transpose(1, 2)
    torch.testing.assert_close(stepped.attention_scores, scores)
    torch.testing.assert_close(stepped.context, stepped.attention_weights @ encoded.encoder_side["encoder_states"])


def test_teacher_forcing_attends_as_the_steps_do(model: TranslationModel) -> None:
    ids, lengths = sources(6, 3)
    target_input_ids = torch.full((2, 1), 2)
    weights = model(ids, lengths, target_input_ids).attention_weights
    own = _first_step(model, model.encode(ids, lengths)).attention_weights
    assert own is not None
    torch.testing.assert_close(weights, own[:, :1])


def test_given_attention_is_used_where_it_replaces_and_nowhere_else(model: TranslationModel) -> None:
    encoded = model.encode(*sources(6, 3))
    own = _first_step(model, encoded)
    weights = torch.zeros(2, 3, 6)
    weights[..., 1] = 1.0
    replaced = torch.tensor([True, False, True]).expand(2, 3)[..., None]
    stepped = _first_step(model, encoded, GivenAttention(replaced, weights))
    assert own.context is not None and stepped.context is not None
    expected = encoded.encoder_side["encoder_states"][:, [1]].expand(-1, 3, -1)
    torch.testing.assert_close(stepped.context, torch.where(replaced, expected, own.context))
    torch.testing.assert_close(stepped.attention_scores, own.attention_scores)
    assert not torch.allclose(stepped.log_probabilities[:, 0], own.log_probabilities[:, 0])
    assert torch.equal(stepped.log_probabilities[:, 1], own.log_probabilities[:, 1])


def test_emission_scores_are_logits_under_attention_to_one_position_alone(model: TranslationModel) -> None:
    encoded = model.encode(*sources(6, 3))
    before = _first_step(model, encoded)
    emitted = torch.tensor([[5, 6, 7], [8, 9, 5]])
    scores = model.step(emitted, before.state, encoded).emission_scores
    assert scores is not None
    gaps = []
    for position in range(6):
        weights = torch.zeros(2, 3, 6)
        weights[..., position] = 1.0
        told = _first_step(model, encoded, GivenAttention(torch.ones(2, 3, 1, dtype=torch.bool), weights))
        chosen = told.log_probabilities.gather(-1, torch.stack([emitted, emitted.roll(1, 1)], -1))
        gaps.append((chosen, position))
    others = model.step(emitted.roll(1, 1), before.state, encoded).emission_scores
    assert others is not None
    for chosen, position in gaps:  # the difference of two logits is that of their log-probabilities
        torch.testing.assert_close(
            (scores - others)[..., position], chosen[..., 0] - chosen[..., 1], atol=1e-5, rtol=1e-4
        )


def test_a_step_leaves_no_tensor_behind(model: TranslationModel) -> None:
    before = set(vars(model))
    _first_step(model, model.encode(*sources(5)))
    assert set(vars(model)) == before


def test_the_state_has_the_declared_names_and_sizes(model: TranslationModel) -> None:
    encoded = model.encode(*sources(5, 2))
    declared = {tensor.name: tensor.size for tensor in model.state}
    assert {name: tensor.shape[-1] for name, tensor in encoded.initial_state.items()} == declared
    assert {name: tensor.shape[-1] for name, tensor in _first_step(model, encoded).state.items()} == declared


def test_states_stay_within_one_so_that_fixed_scales_can_hold_them(model: TranslationModel) -> None:
    encoded = model.encode(*sources(20))
    for parameter in model.parameters():
        parameter.data *= 20
    for tensor in _first_step(model, encoded).state.values():
        assert tensor.abs().max() <= 1


def test_tied_embeddings_share_one_table() -> None:
    tied = sum(parameter.numel() for parameter in build_model(SIZES, VOCABULARY).parameters())
    untied = sum(p.numel() for p in build_model(SIZES | {"tied_embeddings": False}, VOCABULARY).parameters())
    assert untied - tied == 2 * VOCABULARY * SIZES["embedding"]  # type: ignore[operator]


def _first_step(model: TranslationModel, encoded: Encoded, given: GivenAttention | None = None) -> Stepped:
    beam = 3
    state = {name: tensor[:, None].expand(-1, beam, -1) for name, tensor in encoded.initial_state.items()}
    previous = torch.full((len(encoded.source_lengths), beam), 2)
    return model.step(previous, state, encoded, given)
