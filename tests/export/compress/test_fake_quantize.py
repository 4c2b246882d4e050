import numpy as np
import pytest

from pipeline.export.compress.fake_quantize import FakeQuantize, QuantizedConv2D, QuantizedDense


def test_a_range_is_cut_into_256_levels_that_hold_zero():
    values = np.array([-3.0, -1.0, 0.0, 0.5, 1.004, 254.4, 254.6, 300.0], "float32")
    rounded = FakeQuantize(fixed=(0.0, 255.0))(values)
    np.testing.assert_array_equal(rounded, [0, 0, 0, 1, 1, 254, 255, 255])


@pytest.mark.parametrize(("bits", "levels"), [(8, 127), (4, 7)])
def test_kernels_are_rounded_symmetrically_per_output_channel(bits, levels):
    layer = QuantizedConv2D(2, (1, 5), bits=bits)
    layer.build((None, 1, 5, 1))
    kernel = np.zeros((1, 5, 1, 2), "float32")
    kernel[0, :, 0, 0] = [levels, -levels, 0.4, 0.6, -1.4]
    kernel[..., 1] = kernel[..., 0] / 100
    layer.kernel.assign(kernel)
    expected = np.array([levels, -levels, 0, 1, -1])
    np.testing.assert_allclose(layer.rounded_kernel()[0, :, 0, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(layer.rounded_kernel()[0, :, 0, 1], expected / 100, rtol=1e-6)


def test_a_channel_of_zeros_stays_zero():
    layer = QuantizedConv2D(3, 1)
    layer.build((None, 4, 4, 2))
    layer.kernel.assign(layer.kernel * [1.0, 0.0, 1.0])
    assert not np.asarray(layer.rounded_kernel())[..., 1].any()
    assert np.isfinite(layer.rounded_kernel()).all()


def test_a_dense_kernel_has_one_scale():
    layer = QuantizedDense(2)
    layer.build((None, 2))
    layer.kernel.assign([[127.0, 1.2], [0.4, -0.3]])
    np.testing.assert_allclose(layer.rounded_kernel(), [[127, 1], [0, 0]], atol=1e-4)


def test_ranges_move_by_the_momentum_and_hold_zero():
    layer = FakeQuantize(momentum=0.9)
    layer(np.array([1.0, 2.0], "float32"), training=True)
    assert layer.range == (0.0, 2.0)
    layer(np.array([-1.0, 4.0], "float32"), training=True)
    np.testing.assert_allclose(layer.range, (-0.1, 2.2), rtol=1e-6)
    layer(np.array([-9.0, 9.0], "float32"), training=False)
    np.testing.assert_allclose(layer.range, (-0.1, 2.2), rtol=1e-6)


def test_places_of_one_range_cover_each_other():
    layer = FakeQuantize(slots=2)
    layer(np.array([-1.0, 1.0], "float32"), slot=0, training=True)
    layer(np.array([0.0, 3.0], "float32"), slot=1, training=True)
    assert layer.range == (-1.0, 3.0)


def test_what_was_never_seen_passes():
    values = np.array([0.123, -4.56], "float32")
    np.testing.assert_array_equal(FakeQuantize()(values), values)
