"""A plain network that learns small photographs in ten epochs, by how it begins (airbench94, arXiv 2404.00498)."""

import keras
import numpy as np
from pydantic import PositiveInt

from pipeline.models.blocks import conv, conv_norm, image_input
from pipeline.models.heads import dense_logits
from pipeline.models.stages import mark, require_stride
from pipeline.registry import MODELS

# Rows: sum, horizontal and vertical difference; grey, red against blue, green against both.
_HAAR = np.array([[1, 1], [1, -1]]) / np.sqrt(2)
_COLOURS = np.array([[1, 1, 1], [1, 0, -1], [-1, 2, -1]]) / np.sqrt([[3], [2], [6]])
# The deviation of these components of 2x2 patches, [vertical][horizontal][colour], pixels in [-1, 1], measured on 3,000
# training images of CIFAR-10. Their principal components have the same deviations within 1.5 %, so that this basis
# whitens them as well, and needs no images.
_DEVIATIONS = np.array(
    [[[1.614, 0.4569, 0.2067], [0.2971, 0.0311, 0.0193]], [[0.3214, 0.0375, 0.0224], [0.1185, 0.0071, 0.0054]]]
)
_NOISE = 1.25e-4  # variance added to each, section 3.2 (5e-4 where the pixels' deviation is 1 and not 0.5)


@MODELS.register(
    airbench94={"widths": (64, 256, 256)},
    airbench95={"widths": (128, 384, 384)},
    airbench_tiny={"widths": (32, 40, 32)},
)
def airbench(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    *,
    widths: tuple[PositiveInt, ...],
) -> keras.Model:
    """Six 3x3 convolutions behind a layer that whitens patches (arXiv 2404.00498, section 3 and figure 2).

    The first convolution begins as a whitening of 2x2 patches and its negative, the others hand their input on. A ninth
    of the features reaches the classifier, which would not settle at the others' learning rate. The paper computes the
    whitening from the training images, freezes it, and crops where this pads; airbench95 is of its repository,
    github.com/KellerJordan/cifar10-airbench.
    """
    require_stride(input_shape, 2 ** len(widths), "airbench")
    inputs, x = image_input(input_shape)
    whitening = whiten_patches(input_shape[2])
    x = conv(x, whitening.shape[-1], 2, bias=True, activation="gelu", name="whiten")
    for level, width in enumerate(widths, 1):
        # The paper pools before it normalises; in this order the normalisation folds into the kernel.
        x = conv_norm(x, width, 3, activation=None, scale=False, name=f"stage{level}_1")
        x = keras.layers.MaxPooling2D(2, name=f"stage{level}_pool")(x)
        x = keras.layers.Activation("gelu", name=f"stage{level}_1_gelu")(x)
        x = conv_norm(x, width, 3, activation="gelu", scale=False, name=f"stage{level}_2")
        x = mark(x, 2**level)
    x = keras.layers.GlobalMaxPooling2D(name="pool")(x)
    x = keras.layers.Rescaling(1 / 9, name="scale")(x)
    model = keras.Model(inputs, dense_logits(x, num_classes), name="airbench")
    model.get_layer("whiten_conv").kernel.assign(whitening)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D) and layer.name.startswith("stage"):
            layer.kernel.assign(_hand_on(layer.kernel.shape))
    return model


def whiten_patches(channels: int) -> np.ndarray:
    """Return kernels that make the components of natural 2x2 patches equally large, and their negatives.

    Float32 (2, 2, channels, 8 * channels). Three channels are red, green and blue; others are taken for grey.
    """
    colours = _COLOURS if channels == 3 else np.eye(channels)
    deviations = _DEVIATIONS if channels == 3 else _DEVIATIONS[..., :1] / np.sqrt(3)
    scaled = np.einsum("iy,jx,kc,ijk->yxcijk", _HAAR, _HAAR, colours, 1 / np.sqrt(deviations**2 + _NOISE))
    kernels = scaled.reshape(2, 2, channels, 4 * channels)
    return np.concatenate([kernels, -kernels], axis=-1).astype(np.float32)


def _hand_on(shape: tuple[int, ...]) -> np.ndarray:
    """Draw a kernel (3, 3, I, O) whose first outputs are the inputs, unchanged."""
    kernel, same = np.array(keras.initializers.HeNormal()(shape)), min(shape[2:])
    kernel[..., :same] = 0
    kernel[1, 1, range(same), range(same)] = 1
    return kernel
