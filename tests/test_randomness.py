"""Generators depend on the seed and the image only."""

from __future__ import annotations

import subprocess
import sys

from detpipe.randomness import generator_for


def test_a_name_that_is_no_utf8_has_a_generator():
    numbers = {name: generator_for(3, name).random() for name in ("caf\udce9", "caf\udce8", "café")}
    assert len(set(numbers.values())) == 3
    assert generator_for(3, "caf\udce9").random() == numbers["caf\udce9"]


def test_generator_is_the_same_in_another_process():
    here = generator_for(7, "image 4").integers(2**62)
    code = "from detpipe.randomness import generator_for as g; print(g(7, 'image 4').integers(2**62))"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(there) == here
    assert generator_for(8, "image 4").integers(2**62) != here
    assert generator_for(7, "image 5").integers(2**62) != here
