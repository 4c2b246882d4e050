import pytest

from pipeline.ops.heads import class_of, heads_of


def test_heads_are_read_from_the_names_of_their_classes():
    classes = [class_of("digit", str(d)) for d in range(10)] + [class_of("loop", value) for value in ("no", "a=b")]
    assert heads_of(classes) == {"digit": slice(0, 10), "loop": slice(10, 12)}


@pytest.mark.parametrize(
    "classes",
    [
        (),
        ("cat", "dog"),
        ("a=1", "a=2", "dog"),
        ("a=1", "b=1", "a=2", "b=2"),  # not side by side
        ("a=1", "a=2", "b=1"),  # nothing to choose from
    ],
)
def test_other_names_have_no_heads(classes):
    assert heads_of(classes) == {}
