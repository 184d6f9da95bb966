"""Models and work that run out of memory as a GPU's would."""

import torch

from dogs_accel.models.build import build_model


def out_of_memory(message="CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ..."):
    return torch.OutOfMemoryError(message)


def failing():
    raise out_of_memory()


def limited_model(in_training, in_evaluation):
    """Make build_model give models with room for so many images."""

    def build(*arguments):
        built = build_model(*arguments)

        def refuse(module, inputs):
            if len(inputs[0]) > (in_training if module.training else in_evaluation):
                failing()

        built.model.register_forward_pre_hook(refuse)
        return built

    return build
