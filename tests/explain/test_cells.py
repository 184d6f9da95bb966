import torch
from torch import nn

from dogs_accel.explain.cells import Places, scale_to_unit, upsample


def test_maps_that_tile_the_image_are_drawn_as_torch_does():
    maps = torch.rand(2, 7, 7)
    own = upsample(maps, Places.even((7, 7), 100), 100)
    torchs = nn.functional.interpolate(maps[:, None], size=(100, 100), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(own, torchs)


def test_each_map_is_scaled_by_itself():
    scaled = scale_to_unit(torch.stack([torch.tensor([[1.0, 3.0], [2.0, 5.0]]), torch.full((2, 2), 4.0)]))
    assert scaled.tolist() == [[[0.0, 0.5], [0.25, 1.0]], [[0.0, 0.0], [0.0, 0.0]]]
