from collections import Counter

from data_pipelines.digit_scenes import DigitScenes
from sweeps.guidance_lambda import GuidanceLambda
from trainables.guided_training import GuidedTraining


def guided_by_seed(sweep: GuidanceLambda) -> Counter[int]:
    results = {r.result_id: r for r in sweep.results(DigitScenes())}
    return Counter(
        r.seed for r in results.values() if isinstance(r, GuidedTraining) and r.loss is not None
    )


def test_every_lambda_of_each_loss_and_layer_is_repeated_on_the_sample():
    assert guided_by_seed(GuidanceLambda()) == dict.fromkeys((0, 1, 2), 4 * 3 * 2)


def test_later_seeds_repeat_the_largest_lambda_alone_on_demand():
    assert guided_by_seed(GuidanceLambda(repeat="largest")) == {0: 24, 1: 4 * 2, 2: 4 * 2}


def test_lambda_zero_is_the_one_control_of_a_seed():
    results = list(GuidanceLambda(lambda_loc=(0.0,), seeds=(3,)).results(DigitScenes()))
    assert [r.loss for r in results if isinstance(r, GuidedTraining)] == [None]
