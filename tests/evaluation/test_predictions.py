import numpy as np
import torch

from dogs_accel.evaluation.predictions import Predictions, predict


def test_predictions_survive_the_file(predictions, tmp_path):
    again = Predictions.load(predictions.save(tmp_path / "test_logits.npz"))
    np.testing.assert_array_equal(again.logits, predictions.logits)
    np.testing.assert_array_equal(again.labels, predictions.labels)
    np.testing.assert_array_equal(again.ids, predictions.ids)


class _Mean(torch.nn.Module):
    def forward(self, images):
        return images.mean(dim=(2, 3))


def test_predict_keeps_ids_with_their_logits(dogs_root):
    from dogs_accel.datasets import open_dataset
    from pipelines import EVAL, make_loader

    data = open_dataset(dogs_root)
    index = data.split("test")
    loader = make_loader([data.paths[i] for i in index], data.labels[index], EVAL.at(32), batch_size=4, device="cpu")
    with loader:
        predictions = predict(_Mean(), loader, [data.ids[i] for i in index])
    assert predictions.ids.tolist() == [data.ids[i] for i in index]
    assert predictions.labels.tolist() == data.labels[index].tolist()
    assert predictions.logits.shape == (len(index), 3)
