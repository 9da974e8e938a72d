"""Noise is a function of seed, image id, sample and purpose, and of nothing else."""

from __future__ import annotations

import torch

from trainables.noise import generator, normal

IMAGES = torch.zeros(3, 2, 5, 4)


def test_a_row_depends_on_its_own_image_and_sample_alone():
    together = normal(IMAGES, 7, ["a", "b", "a"], [0, 0, 1], "test")
    assert together.shape == (3, 2, 5, 4)
    for row, (name, sample) in enumerate([("a", 0), ("b", 0), ("a", 1)]):
        assert torch.equal(normal(IMAGES[:1], 7, [name], [sample], "test")[0], together[row])


def test_each_argument_changes_it():
    def draw(seed: int = 0, name: str = "a", sample: int = 0, purpose: str = "p") -> float:
        return float(normal(IMAGES, seed, [name], [sample], purpose)[0, 0, 0, 0])

    draws = {draw(), draw(seed=1), draw(name="b"), draw(sample=1), draw(purpose="q"), draw(seed=-1)}
    assert len(draws) == 6
    # the parts do not run into each other
    assert draw(seed=1, name="1") != draw(seed=11, name="")
    assert draw(name="a1", sample=1) != draw(name="a", sample=11)


def test_it_is_the_same_on_every_machine():
    first = torch.rand(3, generator=generator(0, "image", 0, "test"))
    known = torch.tensor([0.5269803, 0.1699201, 0.5444725])
    torch.testing.assert_close(first, known, rtol=0, atol=1e-6)


def test_the_global_generator_is_not_touched():
    before = torch.get_rng_state()
    normal(IMAGES, 0, ["a"], [0], "test")
    assert torch.equal(torch.get_rng_state(), before)


def test_it_is_standard_normal_in_the_type_of_the_images():
    like = torch.zeros(1, 3, 100, 100, dtype=torch.float64)
    drawn = normal(like, 3, ["a"], [0], "test")
    assert drawn.dtype == torch.float64
    assert abs(drawn.mean()) < 4 / 30_000**0.5
    assert abs(drawn.square().mean() - 1) < 4 * (2 / 30_000) ** 0.5
    assert torch.equal(drawn.float(), normal(like.float(), 3, ["a"], [0], "test"))


def test_no_rows_are_an_empty_tensor():
    assert normal(IMAGES, 0, [], [], "test").shape == (0, 2, 5, 4)
