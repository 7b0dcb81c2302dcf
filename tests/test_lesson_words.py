"""The lesson Words: attention weights beside torch's own, and where words point."""

import pytest
import tiny
import torch
from torch.nn.functional import scaled_dot_product_attention

from pipelines.errors import RequestError
from pipelines.laboratory.mixture import Mixture
from pipelines.lessons import plane, postcards, words
from pipelines.lessons.attention import AttentionWatch, weights


@pytest.fixture(scope="module")
def seen(session_engine):
    return words.look(session_engine.registry, postcards.PROMPT)


def test_rows_of_attention_sum_to_one(seen):
    assert len(seen.layers) == 4 and seen.evaluations == words.MOST_STEPS
    for layer in seen.layers.values():
        assert (layer >= 0).all()
        torch.testing.assert_close(layer.sum(-1), torch.ones(layer.shape[:2]))
    assert seen.tokens[1:4] == ("a", "red", "car")
    for layer, side in ((next(iter(seen.layers)), 8), ("mid_block.attentions.0."
                                                      "transformer_blocks.0.attn2", 4)):
        assert seen.maps(layer, 1).shape == (len(seen.tokens), side, side)
    assert seen.maps(words.ALL, 3).shape == (len(seen.tokens), 8, 8)


@pytest.mark.parametrize("mask", [None, "bool", "float"])
def test_weights_times_values_are_what_torch_gives(mask):
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 1, 6, 8), torch.randn(2, 1, 5, 8), torch.randn(2, 1, 5, 8)
    given = {None: None, "bool": torch.ones(2, 1, 1, 5, dtype=torch.bool),
             "float": torch.zeros(2, 1, 1, 5)}[mask]
    if mask:
        given[..., -1] = False if mask == "bool" else -1e9
    torch.testing.assert_close(
        weights(query, key, given) @ value[:, 0],
        scaled_dot_product_attention(query, key, value, attn_mask=given)[:, 0])


def test_the_shared_model_is_left_as_it_was(session_engine):
    def state(unet):
        return {name: (type(getattr(module, "processor", None)), id(getattr(
            module, "processor", None)), dict(module._forward_hooks),
            dict(module._forward_pre_hooks)) for name, module in unet.named_modules()}

    with session_engine.registry.borrow(postcards.MODEL) as (model, _):
        unet = model.pipe.unet
        inputs = torch.randn(1, 4, 16, 16), 500, torch.randn(1, 32, 128)
        before = state(unet)
        with torch.no_grad():
            plain = unet(*inputs).sample
            with AttentionWatch(unet) as watch:
                watched = unet(*inputs).sample
            assert torch.equal(plain, watched) and len(watch.layers) == 4
            assert state(unet) == before
            with pytest.raises(KeyError), AttentionWatch(unet):
                raise KeyError("whatever ends it early")
        assert state(unet) == before


def test_a_transformer_is_looked_at_too():
    pipe = tiny.build("pixart_sigma")
    pipe.set_progress_bar_config(disable=True)
    with AttentionWatch(pipe.transformer) as watch:
        pipe("a red car", num_inference_steps=2, height=16, width=16, output_type="latent",
             use_resolution_binning=False)
    assert watch.layers
    for layer in watch.layers.values():
        assert len(layer) == 2
        torch.testing.assert_close(layer[0].sum(-1), torch.ones(layer[0].shape[:2]))


def test_what_has_no_cross_attention_is_refused(session_engine):
    with pytest.raises(RequestError, match="no tokenizer"):
        words.look(session_engine.registry, "a car", "exact-latents")
    joint = tiny.build("sd3")
    joint.set_progress_bar_config(disable=True)
    with pytest.raises(RequestError, match="SD3Transformer2DModel: no layer"), \
            AttentionWatch(joint.transformer):
        joint("a car", num_inference_steps=1, height=16, width=16, output_type="latent")
    with pytest.raises(RequestError, match="received .* tokens, accepted at most 32"):
        words.look(session_engine.registry, "a dragonfly " * 20)


def test_red_points_at_the_red_thing_in_the_last_layer_and_not_in_all(session_engine):
    found = words.pointing(session_engine.registry, "colour", words.TIMESTEP)
    last = found["up_blocks.1.attentions.1.transformer_blocks.0.attn2"]
    assert last.hits > 0.85 > 0.6 > last.other_hits > last.area
    assert last.mass > last.other_mass + 0.15
    assert any(where.hits < where.other_hits + 0.1 for where in found.values())
    assert words.question(session_engine.registry).grade().right == 1


def test_a_map_that_is_the_mask_always_points_at_it(session_engine):
    """And one that is bright elsewhere never does."""
    masks = torch.zeros(2, 64, 64)
    masks[:, 16:32, 8:40] = 1
    inside = torch.nn.functional.avg_pool2d(masks[:, None], 8).flatten(1)
    maps = torch.stack([1 - inside, inside, 1 - inside, 1 - inside], 2)
    where = words.pointing_of(maps, [["", "red", "car", ""]] * 2, [{"red"}] * 2, masks)
    assert (where.hits, where.mass, where.other_hits, where.other_mass) == (1, 1, 0, 0)
    assert where.area == 8 / 64


def test_a_perfect_network_is_an_attention_over_components():
    three, (signal, noise) = Mixture.three(), (0.7, 0.5)
    x = plane.noise_points(20)
    shares = words.shares(three, x, signal, noise)
    torch.testing.assert_close(shares.sum(1), torch.ones(20, dtype=torch.float64))
    values = torch.stack([three.given([k]).x0(x, signal, noise) for k in range(3)], 1)
    torch.testing.assert_close((shares[..., None] * values).sum(1), three.x0(x, signal, noise))
    variance = signal**2 * three.deviations[0]**2 + noise**2
    scores = (three.weights.log() + x @ (signal * three.means / variance).T
              - (signal * three.means).square().sum(1) / (2 * variance))
    torch.testing.assert_close(shares, scores.softmax(1))


def test_neighbours_of_a_word_are_its_synonyms(session_engine):
    rows = {token: near for token, _, near in words.neighbours(session_engine.registry,
                                                               "a red car at night")}
    assert rows["car"].startswith("automobile") and "midnight" in rows["night"]
