from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from mmengine.dataset import BaseDataset, ConcatDataset, DefaultSampler, InfiniteSampler
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import DataLoader

from visionattn.detection.batches import AspectRatioBatches
from visionattn.engine.sampler import batches_from, make_repeatable

WIDE = np.random.default_rng(0).random(37) < 0.6


class Sizes(BaseDataset):
    """37 images, of which some are wide; a sample is its index and a random number."""

    def load_data_list(self):
        return [{"height": 480, "width": 640 if wide else 360} for wide in WIDE]

    def prepare_data(self, idx):
        return idx, int(np.random.randint(1 << 30))


def batches(sampler, **options):
    return list(AspectRatioBatches(sampler, 4, **options))


@pytest.mark.parametrize("drop_last", [False, True])
def test_every_image_once_and_of_one_kind(drop_last):
    sampler = DefaultSampler(Sizes(), shuffle=True, seed=1)
    found = batches(sampler, drop_last=drop_last)
    assert len(found) == len(AspectRatioBatches(sampler, 4, drop_last)) == (9 if drop_last else 10)
    numbers = [index for batch in found for index in batch]
    assert len(set(numbers)) == len(numbers)
    assert set(numbers) <= set(range(37))
    assert len(numbers) == (36 if drop_last else 37)
    mixed = [batch for batch in found if len({bool(WIDE[index]) for index in batch}) > 1]
    assert len(mixed) <= 1
    assert sum(len(batch) == 4 for batch in found) >= 9


def test_order_is_the_sampler_s():
    sampler = InfiniteSampler(Sizes(), shuffle=True, seed=3)
    order = list(islice(InfiniteSampler(Sizes(), shuffle=True, seed=3), 400))
    found = list(islice(AspectRatioBatches(sampler, 4), 60))
    for kind in (True, False):
        mine = [index for batch in found for index in batch if WIDE[index] == kind]
        assert mine == [index for index in order if WIDE[index] == kind][: len(mine)]
        assert len(mine) > 40


def test_data_sets_put_together():
    both = ConcatDataset([Sizes(), Sizes()])
    found = batches(DefaultSampler(both, shuffle=True, seed=0))
    assert sorted(index for batch in found for index in batch) == list(range(74))


@pytest.mark.parametrize("endless", [True, False])
def test_run_that_goes_on_has_the_batches_it_would_have_had(endless):
    def loader():
        sampler = (InfiniteSampler if endless else DefaultSampler)(Sizes(), shuffle=True, seed=5)
        built = DATA_SAMPLERS.build(
            {"type": "visionattn.AspectRatioBatches"}, default_args={"sampler": sampler, "batch_size": 4}
        )
        made = DataLoader(sampler.dataset, batch_sampler=built, collate_fn=list)
        make_repeatable(made, seed=7)
        return made

    whole = list(islice(batches_from(loader(), 0), 25))
    later = list(islice(batches_from(loader(), 13), 12))
    assert later == whole[13:]


def test_data_set_that_does_not_say():
    class Silent(Sizes):
        def load_data_list(self):
            return [{"img_path": "a"}]

    with pytest.raises(ValueError, match="Silent does not say how large its images are"):
        batches(DefaultSampler(Silent()))
