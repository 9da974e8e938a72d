"""Student and teacher: who learns, who follows, and what of them a checkpoint holds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainables.models.bcos_layers import BcosLinear
from trainables.models.bcos_resnet import SmallBcosResNet
from trainables.models.small_resnet import SmallResNet
from trainables.ssl.byol import Byol
from trainables.ssl.dino import Dino
from trainables.ssl.moco_v2 import MocoV2
from trainables.ssl.moco_v3 import MocoV3
from trainables.ssl.schooling import Schooling

METHODS = (
    MocoV2(queue=8, channels=5),
    Byol(hidden=6, channels=5),
    Dino(hidden=6, bottleneck=5, prototypes=7, local_views=1),
    MocoV3(hidden=6, channels=5),
)
NETWORKS = (SmallResNet(width=4), SmallBcosResNet(width=4))


def schooled(method, network, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = network.build(2)
        schooling = Schooling(method, model, 10).train()
    generator = torch.Generator().manual_seed(seed)
    sizes = [16 if n < 2 else 8 for n in range(len(method.views))]
    pictures = [torch.randint(0, 256, (4, 3, s, s), generator=generator) for s in sizes]
    return schooling, [model.encode(p.byte()) for p in pictures]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.name)
@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_the_student_learns_and_the_teacher_gets_no_gradient(method, network):
    schooling, views = schooled(method, network)
    schooling(views, 2).backward()
    assert all(p.grad is None for p in schooling.teacher.parameters())
    unused = {
        f"network.{name}"
        for name, _ in schooling.student.network.named_parameters()
        if name.startswith("fc.")
    }
    for name, parameter in schooling.student.named_parameters():
        learns = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        # a constant that is added to all logits of a contrast, or before a norm, cannot matter
        idle = name in unused or name.endswith(".bias") or not parameter.requires_grad
        assert learns or idle, name


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_the_teacher_starts_as_the_student_and_follows_by_its_momentum(method):
    schooling, _ = schooled(method, NETWORKS[0])
    pairs = list(zip(schooling.teacher.parameters(), schooling.student.parameters(), strict=True))
    assert all(torch.equal(slow, fast) for slow, fast in pairs)
    with torch.no_grad():
        for _, fast in pairs:
            fast += torch.randn(fast.shape, generator=torch.Generator().manual_seed(1))
    for step in range(3):
        before = [slow.clone() for slow, _ in pairs]
        schooling.follow()
        m = method.momentum_at(step / 10)
        for (slow, fast), old in zip(pairs, before, strict=True):
            torch.testing.assert_close(slow, m * old + (1 - m) * fast)
    assert int(schooling.steps) == 3


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_heads_of_bcos_networks_are_bcos(method):
    schooling, _ = schooled(method, NETWORKS[1])
    for head in (schooling.student.head, schooling.predictor):
        kinds = {type(part) for part in head.modules()}
        assert not kinds & {nn.Linear, nn.ReLU, nn.GELU, nn.BatchNorm1d}
    assert any(isinstance(part, BcosLinear) for part in schooling.student.head.modules())
    plain, _ = schooled(method, NETWORKS[0])
    assert not any(isinstance(part, BcosLinear) for part in plain.modules())


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_a_state_dict_holds_all_that_a_step_depends_on(method):
    schooling, views = schooled(method, NETWORKS[0])
    optimizer = torch.optim.SGD([p for p in schooling.parameters() if p.requires_grad], lr=0.1)

    def steps(of, by, times):
        losses = []
        for _ in range(times):
            by.zero_grad()
            loss = of(views, 2)
            loss.backward()
            by.step()
            of.follow()
            losses.append(loss.item())
        return losses

    steps(schooling, optimizer, 2)
    kept = {name: tensor.clone() for name, tensor in schooling.state_dict().items()}
    expected = steps(schooling, optimizer, 2)
    other, _ = schooled(method, NETWORKS[0], seed=5)
    other.load_state_dict(kept)
    again = torch.optim.SGD([p for p in other.parameters() if p.requires_grad], lr=0.1)
    assert steps(other, again, 2) == expected


def test_what_is_kept_is_the_bare_network():
    for method, whose in zip(METHODS, ("student", "student", "teacher", "student"), strict=True):
        schooling, _ = schooled(method, NETWORKS[0])
        assert schooling.kept is getattr(schooling, whose)
        expected = NETWORKS[0].build(2).module.state_dict().keys()
        assert schooling.kept.network.state_dict().keys() == expected


def test_prototypes_do_not_learn_at_first():
    method = METHODS[2]
    schooling, _ = schooled(method, NETWORKS[0])
    (frozen,) = method.frozen(schooling.student.head, 1)
    assert frozen.shape == (7, 5)
    assert not list(method.frozen(schooling.student.head, 2))
