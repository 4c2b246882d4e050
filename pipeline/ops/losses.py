"""Losses of one example each, from logits or probabilities, with keras.ops only."""

from collections.abc import Sequence
from typing import Any

from keras import ops

_TINY = 1e-7


def smooth(targets: Any, amount: float) -> Any:
    """Move `amount` of each target's mass evenly to all classes (Szegedy et al., arXiv 1512.00567).

    Args:
        targets: (..., K), each row summing to 1.
    """
    return targets * (1.0 - amount) + amount / targets.shape[-1]


def cross_entropy(
    targets: Any, logits: Any, *, class_weights: Sequence[float] | None = None, focal_gamma: float = 0.0
) -> Any:
    """Return the cross-entropy with hard or soft targets, (...).

    Args:
        targets: float (..., K); a row of zeros gives a loss of zero.
        logits: float (..., K).
        class_weights: K factors, one on each class's part of the sum.
        focal_gamma: how strongly classes that are already right are discounted, by (1 - p)^gamma
            (Lin et al., arXiv 1708.02002).
    """
    log_probabilities = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    parts = -targets * log_probabilities
    if focal_gamma:
        # The floor keeps the gradient of a power below 1 finite where p rounds to 1.
        parts = parts * ops.power(ops.maximum(1.0 - ops.exp(log_probabilities), _TINY), focal_gamma)
    if class_weights is not None:
        parts = parts * ops.convert_to_tensor(class_weights, "float32")
    return ops.sum(parts, axis=-1)


def divergence(teacher: Any, student: Any, temperature: float) -> Any:
    """Return T² KL(teacher || student) of the answers softened by a temperature T, averaged over pixels, float32 (B,).

    Hinton et al., arXiv 1503.02531: T² keeps the gradients of one size whatever T is.

    Args:
        teacher, student: logits (B, ..., K).
    """
    teacher = ops.log_softmax(ops.cast(teacher, "float32") / temperature)
    student = ops.log_softmax(ops.cast(student, "float32") / temperature)
    each = ops.sum(ops.exp(teacher) * (teacher - student), axis=-1)
    return temperature**2 * ops.mean(ops.reshape(each, (ops.shape(each)[0], -1)), axis=-1)


def dice_loss(targets: Any, probabilities: Any) -> Any:
    """Return 1 - the soft Dice coefficient, averaged over the classes present in each image's truth, (B,).

    V-Net, arXiv 1606.04797, with p and not p² in the denominator, as Keras has it. Classes that are absent from an
    image have nothing to overlap with and are left out; an image without any class gives zero.

    Args:
        targets: one-hot float (B, H, W, K); pixels that do not count are zero.
        probabilities: float (B, H, W, K), zero at the same pixels.
    """
    overlap = ops.sum(targets * probabilities, axis=(1, 2))
    truth = ops.sum(targets, axis=(1, 2))
    total = truth + ops.sum(probabilities, axis=(1, 2))
    present = ops.cast(truth > 0, "float32")
    loss = (1.0 - 2.0 * overlap / ops.maximum(total, _TINY)) * present
    return ops.sum(loss, axis=-1) / ops.maximum(ops.sum(present, axis=-1), 1.0)
