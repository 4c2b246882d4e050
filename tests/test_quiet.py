import os
import sys

import pytest

from pipeline.quiet import quiet


def chat():
    print("python says")
    print("python warns", file=sys.stderr)
    os.write(1, b"c++ says\n")
    os.write(2, b"c++ warns\n")


def test_nothing_is_heard_and_output_comes_back(capfd):
    with quiet():
        chat()
    assert capfd.readouterr() == ("", "")
    chat()
    heard = capfd.readouterr()
    assert "python says" in heard.out
    assert "c++ warns" in heard.err


def test_an_error_carries_what_was_said(capfd):
    def fail():
        with quiet():
            chat()
            raise ValueError("it broke")

    with pytest.raises(ValueError, match="it broke") as caught:
        fail()
    [note] = caught.value.__notes__
    assert "c++ warns" in note
    assert "python warns" in note
    assert capfd.readouterr() == ("", "")


def test_descriptors_do_not_leak():
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with quiet():
            chat()
    assert len(os.listdir("/proc/self/fd")) == before
