"""How many channels go, and where: multiples, ratios by name, and the least important anywhere."""

import keras
import numpy as np
import pytest
from zoo import conv, equal, network, residual, width

from pipeline.errors import UserError
from pipeline.export.compress import prune_channels

layers = keras.layers


def test_counts_are_multiples_and_never_none():
    model = network(lambda x: conv(20, name="b")(conv(6, name="a")(x)))
    widths = {
        (ratio, multiple): [width(prune_channels(model, ratio, multiple=multiple), name) for name in ("stem", "a", "b")]
        for ratio, multiple in [(0.5, 8), (0.3, 8), (0.99, 8), (0.5, 1), (0.99, 1), (0.3, 4), (0.0, 8)]
    }
    assert widths == {
        (0.5, 8): [8, 6, 8],
        (0.3, 8): [8, 6, 16],
        (0.99, 8): [8, 6, 8],
        (0.5, 1): [8, 3, 10],
        (0.99, 1): [1, 1, 1],
        (0.3, 4): [12, 4, 16],
        (0.0, 8): [16, 6, 20],
    }


def test_ratios_by_name_leave_other_layers_alone():
    model = network(lambda x: conv(16, name="b")(conv(16, name="a")(x)))
    pruned = equal(model, {"a": 0.75, "b": 0.5}, multiple=4)
    assert [width(pruned, name) for name in ("stem", "a", "b")] == [16, 4, 8]


def test_global_scope_takes_the_least_important_wherever_they_are():
    model = network(lambda x: conv(16, name="b")(conv(16, name="a")(x)))
    for name, important in (("stem", 8), ("a", 4), ("b", 12)):
        kernel, bias = model.get_layer(name).get_weights()
        # Scores are relative to the mean of the layer: the unimportant ones lie far below it in every layer.
        kernel = np.ones_like(kernel)
        kernel[..., important:] *= 1e-3
        model.get_layer(name).set_weights([kernel, bias])
    pruned = equal(model, 0.5, multiple=1, scope="global")
    assert [width(pruned, name) for name in ("stem", "a", "b")] == [8, 4, 12]


@pytest.mark.parametrize(
    ("body", "ratio", "options", "message"),
    [
        (residual, 1.2, {}, "a pruning ratio of 1.2 must be at least 0 and less than 1"),
        (residual, -0.1, {}, "a pruning ratio of -0.1 must be at least 0"),
        (residual, 1.0, {}, "a pruning ratio of 1 would leave no channels; it must be at least 0 and less than 1"),
        (residual, {"stem": 1.0}, {}, "a pruning ratio of 1 for 'stem' would leave no channels"),
        (residual, {"stam": 0.5}, {}, "no layer 'stam' makes channels; did you mean 'stem'?"),
        (residual, {"logits": 0.5}, {}, "the layer 'logits' cannot be pruned: it is an output of the model"),
        (residual, {"stem": 0.5, "branch": 0.25}, {}, "'stem' and 'branch' share their channels; give both the same"),
        (residual, 0.5, {"importance": "l3"}, "importance 'l3' is unknown; give one of l1, l2, geometric_median, bat"),
        (residual, 0.5, {"scope": "all"}, "scope 'all' is unknown; give 'layer' or 'global'"),
        (residual, 0.5, {"multiple": 0}, "multiple is 0; give a number of channels of at least 1"),
        (lambda x: layers.Lambda(lambda y: y, name="secret")(x), 0.5, {}, "'secret' .Lambda. holds Python code"),
    ],
)
def test_bad_input_is_answered_in_one_sentence(body, ratio, options, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")) as caught:
        prune_channels(network(body), ratio, **options)
    assert "\n" not in str(caught.value)
