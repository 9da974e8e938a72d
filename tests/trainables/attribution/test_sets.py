"""Named sets of methods, and the choice of methods for a network."""

from __future__ import annotations

import pytest

import trainables.attribution  # noqa: F401  registers
from trainables.attribution.gradient import InputXGradient
from trainables.attribution.sets import AS_RUN, SETS, choose, corrected, idsds_as_run, with_defaults
from trainables.models.bagnet import SmallBagNet
from trainables.models.bcos_resnet import SmallBcosResNet
from trainables.models.small_resnet import SmallResNet
from trainables.models.timm_vit import SmallViT

PLAIN = SmallResNet(width=2)


@pytest.mark.parametrize("name", SETS)
def test_a_set_has_the_23_methods_of_the_paper(name):
    keys = [method.key for method in SETS[name]()]
    assert len(set(keys)) == len(keys) == 23


def test_the_set_is_visible_in_every_key_of_what_was_run():
    assert all(AS_RUN in method.key for method in idsds_as_run())
    assert not any(AS_RUN in method.key for method in corrected())
    assert not {m.key for m in idsds_as_run()} & {m.key for m in corrected()}


def test_every_method_of_a_set_suits_a_network_of_the_paper():
    kinds = (PLAIN, SmallBcosResNet(width=2), SmallBagNet(width=2), SmallViT())
    for methods in (idsds_as_run(), corrected()):
        suited = {m.key for kind in kinds for m in choose_suiting(methods, kind)}
        assert suited == {m.key for m in methods}


def choose_suiting(methods, network):
    for method in methods:
        try:
            method.check(network)
        except ValueError:
            continue
        yield method


def test_the_plain_network_has_the_19_of_the_tables():
    chosen = choose(["idsds_as_run"], PLAIN)
    assert len(chosen.methods) == 19
    assert {key.split("_idsds")[0].split("_nearest")[0] for key in chosen.refused} >= {"bcos"}
    assert all(reason and "\n" not in reason for reason in chosen.refused.values())


def test_all_are_those_that_need_nothing_told():
    assert InputXGradient() in with_defaults()
    chosen = choose(["all"], PLAIN)
    assert {m.key for m in chosen.methods} | set(chosen.refused) == {m.key for m in with_defaults()}


def test_a_method_of_its_own_name_must_suit_and_is_taken_once():
    with pytest.raises(ValueError, match="B-cos"):
        choose(["bcos"], PLAIN)
    chosen = choose(["input_x_gradient", "input_x_gradient", "all"], PLAIN)
    assert [m.key for m in chosen.methods].count("input_x_gradient") == 1


def test_fields_may_be_adapted_but_not_those_of_a_set():
    def fewer(method):
        return type(method)(masks=7) if method.name == "rise" else method

    assert "rise_n7" in {m.key for m in choose(["rise"], PLAIN, fewer).methods}
    assert not any("n7" in m.key for m in choose(["idsds_as_run"], PLAIN, fewer).methods)
