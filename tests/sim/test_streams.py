from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastune.sim.model.streams import Streams


def test_a_stream_starts_anew_each_time_it_is_asked_for():
    streams = Streams(1)
    assert streams.rng("init", 5).random(3).tolist() == streams.rng("init", 5).random(3).tolist()


@pytest.mark.parametrize(
    ("seed", "purpose", "entity"),
    [(2, "init", (5,)), (1, "queue", (5,)), (1, "init", (6,)), (1, "init", ()), (1, "init", (5, 0))],
)
def test_seed_purpose_and_entity_all_make_another_stream(seed, purpose, entity):
    assert Streams(seed).rng(purpose, *entity).random() != Streams(1).rng("init", 5).random()


def test_the_draws_of_one_entity_do_not_depend_on_those_of_others():
    streams = Streams(1)
    alone = streams.rng("init", 5).random()
    for instance in range(5):
        streams.rng("init", instance).random(100)
    assert streams.rng("init", 5).random() == alone


@pytest.mark.parametrize("hash_seed", ["0", "12345"])
def test_streams_do_not_depend_on_the_hash_seed_of_the_interpreter(hash_seed):
    code = "from elastune.sim.model.streams import Streams; print(Streams(7).rng('init', 3).random())"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert float(printed.stdout) == Streams(7).rng("init", 3).random()


def test_streams_give_the_values_they_always_gave():
    assert Streams(0).rng("draw").permutation(6).tolist() == [0, 3, 2, 1, 4, 5]
    assert Streams(0).rng("init", 0).random() == 0.29818425358008693


@given(st.integers(0, 2**70), st.lists(st.integers(0, 2**40), max_size=3))
def test_a_stream_is_the_one_of_numpy_for_the_list_of_its_numbers(seed, entity):
    words = np.frombuffer(hashlib.blake2s(b"draw", digest_size=16).digest(), dtype="<u4").tolist()
    expected = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *words, *entity])))
    assert Streams(seed).rng("draw", *entity).random() == expected.random()
