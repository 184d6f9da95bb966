"""The same recipes as people write them with other tools, each a function from a workload to a loader.

They draw at random by their own means, and their pixels differ from the published ones as each says. An epoch gives
every image once, on the workload's device. A tool that has no such transform is left out for the recipes that need it.
"""

import importlib.util
import os
import random
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import io, transforms
from torchvision.transforms import v2

from dogs_accel.throughput.candidates import AnyLoader, Candidate, Workload
from pipelines import Recipe
from pipelines.decoding.dali import shut_down

_IDLE_LOOK_SECONDS = 0.002
_IDLE_CPU_SECONDS = 0.0005


class Images(Dataset):
    """Files and a function that makes each a float tensor (3, H, W); every label is 0."""

    def __init__(self, paths, load):
        self.paths = paths
        self.load = load

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return self.load(self.paths[index]), 0


class WorkerLoader:
    """A DataLoader with persistent workers, whose batches end on the device."""

    def __init__(self, workload, load, worker_init_fn=None):
        self._device = workload.device
        self._batches = None
        self._loader = DataLoader(
            Images(workload.paths, load),
            workload.batch_size,
            shuffle=True,
            num_workers=workload.num_threads,
            pin_memory=workload.on_gpu,
            persistent_workers=True,
            worker_init_fn=worker_init_fn,
        )

    def __iter__(self):
        self._batches = iter(self._loader)
        for images, labels in self._batches:
            yield images.to(self._device, non_blocking=True), labels.to(self._device, non_blocking=True)

    def close(self):
        """End the workers."""
        # DataLoader ends them when its last reference goes, which an abandoned iterator would keep.
        if self._batches is not None:
            self._batches._shutdown_workers()
        self._loader = self._batches = None


def on_pixels(recipe, classes):
    """List the steps of a recipe up to the normalisation, by the transform classes of torchvision's v1 or v2."""
    jitter = classes.ColorJitter(recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue)
    late = [jitter] if recipe.jitters else []
    rotation = [classes.RandomRotation(recipe.rotation_deg)] if recipe.rotation_deg else []
    late = [*late, *rotation] if recipe.rotation_after_jitter else [*rotation, *late]
    return [
        *([] if recipe.resize is None else [classes.Resize(recipe.resize)]),
        _crop(recipe, classes),
        *([classes.RandomHorizontalFlip(recipe.flip)] if recipe.flip else []),
        *([classes.RandAugment(*recipe.randaugment)] if recipe.randaugment else []),
        *late,
        *([classes.RandomGrayscale(recipe.grayscale)] if recipe.grayscale else []),
    ]


def _crop(recipe, classes):
    if recipe.random_area is not None:
        return classes.RandomResizedCrop(recipe.crop, recipe.random_area, recipe.random_ratio)
    if recipe.random_crop:
        return classes.RandomCrop(recipe.crop, recipe.padding, fill=recipe.fill)
    return classes.CenterCrop(recipe.crop)


class PublishedTransform:
    """PIL and torchvision's v1 transform classes."""

    def __init__(self, recipe):
        self.transform = transforms.Compose(
            [
                *on_pixels(recipe, transforms),
                transforms.ToTensor(),
                transforms.Normalize(recipe.mean, recipe.std),
                *([transforms.RandomErasing(recipe.erasing)] if recipe.erasing else []),
            ]
        )

    def __call__(self, path):
        return self.transform(Image.open(path).convert("RGB"))


def published(workload):
    """PIL, torchvision v1 and a DataLoader, as the published experiment has them: the pixels of the reference."""
    return WorkerLoader(workload, PublishedTransform(workload.recipe))


class TensorTransform:
    """torchvision's own decoder and its v2 transforms on uint8 tensors."""

    def __init__(self, recipe):
        self.transform = v2.Compose(
            [
                *on_pixels(recipe, v2),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(recipe.mean, recipe.std),
                *([v2.RandomErasing(recipe.erasing)] if recipe.erasing else []),
            ]
        )

    def __call__(self, path):
        return self.transform(io.decode_jpeg(io.read_file(path), mode=io.ImageReadMode.RGB))


def torchvision_v2(workload):
    """torchvision v2: decode_jpeg and transforms.v2 on uint8 tensors, in a DataLoader.

    Its pixels differ from the published ones by a level here and there (evaluation recipe, 64 photos: 0.03 on average,
    1 at most): antialiased resampling with torch's fixed-point weights instead of Pillow's, and colour jitter that
    rounds at other places.
    """
    return WorkerLoader(workload, TensorTransform(workload.recipe))


def _one_opencv_thread(worker):
    import cv2

    cv2.setNumThreads(0)


class OpenCVTransform:
    """cv2 and NumPy."""

    def __init__(self, recipe):
        self.recipe = recipe
        # One multiplication and one subtraction a pixel, in float32.
        self.scale = (1 / (255 * np.array(recipe.std))).astype(np.float32)
        self.shift = (np.array(recipe.mean) / np.array(recipe.std)).astype(np.float32)

    def __call__(self, path):
        import cv2

        recipe = self.recipe
        image = cv2.cvtColor(cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        if recipe.resize is not None:
            height, width = recipe.resized(*image.shape[:2])
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        image = self._crop(image)
        if random.random() < recipe.flip:
            image = cv2.flip(image, 1)
        late = [self._jitter] if recipe.jitters else []
        rotation = [self._rotate] if recipe.rotation_deg else []
        for step in [*late, *rotation] if recipe.rotation_after_jitter else [*rotation, *late]:
            image = step(image)
        if random.random() < recipe.grayscale:
            image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        pixels = image.astype(np.float32) * self.scale - self.shift
        if random.random() < recipe.erasing:
            top, left, tall, wide = self._box(*pixels.shape[:2], recipe.erasing_area, recipe.erasing_ratio)
            pixels[top : top + tall, left : left + wide] = 0
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))

    def _crop(self, image):
        import cv2

        size, padding = self.recipe.crop, self.recipe.padding
        if padding:
            image = cv2.copyMakeBorder(
                image, padding, padding, padding, padding, cv2.BORDER_CONSTANT, value=self.recipe.fill
            )
        height, width = image.shape[:2]
        if self.recipe.random_area is None:
            top, left = (height - size) // 2, (width - size) // 2
            if self.recipe.random_crop:
                top, left = random.randint(0, height - size), random.randint(0, width - size)
            return image[top : top + size, left : left + size]
        top, left, tall, wide = self._box(height, width, self.recipe.random_area, self.recipe.random_ratio)
        return cv2.resize(image[top : top + tall, left : left + wide], (size, size), interpolation=cv2.INTER_LINEAR)

    def _box(self, height, width, area_bounds, ratio_bounds):
        area = height * width * random.uniform(*area_bounds)
        ratio = np.exp(random.uniform(*np.log(ratio_bounds)))
        tall, wide = (min(round(side), most) for side, most in ((np.sqrt(area / ratio), height),
                                                                (np.sqrt(area * ratio), width)))  # fmt: skip
        return random.randint(0, height - tall), random.randint(0, width - wide), tall, wide

    def _rotate(self, image):
        import cv2

        height, width = image.shape[:2]
        angle_deg = random.uniform(-self.recipe.rotation_deg, self.recipe.rotation_deg)
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle_deg, 1)
        return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_NEAREST)

    def _jitter(self, image):
        import cv2

        def factor(width):
            return 1 + random.uniform(-width, width)

        brightness, contrast, saturation = map(
            factor, (self.recipe.brightness, self.recipe.contrast, self.recipe.saturation)
        )
        image = cv2.convertScaleAbs(image, alpha=brightness)
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        table = np.arange(256) * contrast + (1 - contrast) * cv2.mean(grey)[0]
        image = cv2.LUT(image, np.clip(table, 0, 255).astype(np.uint8))
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        image = cv2.addWeighted(image, saturation, grey, 1 - saturation, 0)
        if not self.recipe.hue:
            return image
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
        hsv[..., 0] += np.uint8(int(255 * random.uniform(-self.recipe.hue, self.recipe.hue)) % 256)
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


def opencv(workload):
    """OpenCV: imdecode, resize, warpAffine and NumPy in a DataLoader, one cv2 thread a worker.

    Its pixels differ from the published ones by far more (evaluation recipe, 64 photos: 2.6 levels on average, 40 at
    the 99.9th percentile): INTER_LINEAR does not antialias, so a photo that shrinks is aliased, and images are turned
    by EXIF. The order of the jitter is fixed, and a crop that does not fit is cut instead of drawn again.
    """
    return WorkerLoader(workload, OpenCVTransform(workload.recipe), _one_opencv_thread)


class DaliAsDocumented:
    """DALI's file reader, its own random numbers, and the iterator for PyTorch."""

    def __init__(self, workload):
        from nvidia.dali.plugin.base_iterator import LastBatchPolicy
        from nvidia.dali.plugin.pytorch import DALIClassificationIterator

        self._workload = workload
        self._ran = False
        self._pipeline = self._build(workload)
        self._iterator = DALIClassificationIterator(
            self._pipeline, reader_name="Reader", last_batch_policy=LastBatchPolicy.PARTIAL
        )

    @staticmethod
    def _build(workload):
        from nvidia.dali import pipeline_def

        pipeline = pipeline_def(documented_graph, enable_conditionals=workload.recipe.randaugment is not None)(
            workload,
            batch_size=workload.batch_size,
            num_threads=workload.num_threads,
            device_id=torch.device(workload.device).index or 0 if workload.on_gpu else None,
            seed=12,
        )
        pipeline.build()
        return pipeline

    def __iter__(self):
        if self._ran:
            self._iterator.reset()
        self._ran = True
        for [batch] in self._iterator:
            yield batch["data"], batch["label"]
        self._wait_until_idle()

    def _wait_until_idle(self):
        """Wait for the batches of the next epoch that the reader runs on to, so that their work counts somewhere."""
        self._workload.finish()
        used = float("inf")
        while used > _IDLE_CPU_SECONDS:
            before = time.process_time()
            time.sleep(_IDLE_LOOK_SECONDS)
            used = time.process_time() - before

    def close(self):
        """End DALI's threads."""
        self._iterator = None
        shut_down(self._pipeline)


def documented_graph(workload):
    """Build the graph of DALI's ResNet-50 example, with the recipe's further steps by the operators named for them."""
    import nvidia.dali.fn as fn
    import nvidia.dali.types as types
    from nvidia.dali.auto_aug.rand_augment import rand_augment

    recipe, device = workload.recipe, "gpu" if workload.on_gpu else "cpu"
    decoder = "mixed" if workload.on_gpu else "cpu"
    files, labels = fn.readers.file(
        files=list(workload.paths), labels=[0] * len(workload.paths), random_shuffle=True, name="Reader"
    )
    if recipe.random_area is None:
        images = fn.decoders.image(files, device=decoder, output_type=types.RGB)
        size = {"resize_shorter": recipe.resize} if isinstance(recipe.resize, int) else {"size": list(recipe.resize)}
        images = fn.resize(images, interp_type=types.INTERP_TRIANGULAR, **size)
    else:
        images = fn.decoders.image_random_crop(
            files, device=decoder, output_type=types.RGB, random_area=list(recipe.random_area),
            random_aspect_ratio=list(recipe.random_ratio), num_attempts=100,
        )  # fmt: skip
        images = fn.resize(images, size=[recipe.crop, recipe.crop], interp_type=types.INTERP_TRIANGULAR)
    if recipe.randaugment:
        images = rand_augment(images, n=recipe.randaugment[0], m=recipe.randaugment[1], shape=[recipe.crop] * 2)
    if recipe.rotation_deg and not recipe.rotation_after_jitter:
        images = _rotate(images, recipe)
    if recipe.jitters:
        widths = {name: getattr(recipe, name) for name in ("brightness", "contrast", "saturation")}
        factors = {name: fn.random.uniform(range=[1 - width, 1 + width]) for name, width in widths.items() if width}
        if recipe.hue:
            factors["hue"] = fn.random.uniform(range=[-360 * recipe.hue, 360 * recipe.hue])
        images = fn.color_twist(images, **factors)
    if recipe.rotation_deg and recipe.rotation_after_jitter:
        images = _rotate(images, recipe)
    images = fn.crop_mirror_normalize(
        images,
        dtype=types.FLOAT,
        output_layout="CHW",
        crop=(recipe.crop, recipe.crop),
        mean=[255 * mean for mean in recipe.mean],
        std=[255 * std for std in recipe.std],
        mirror=fn.random.coin_flip(probability=recipe.flip),
    )
    if recipe.erasing:
        images = _erase(images, recipe)
    return images, labels.gpu() if device == "gpu" else labels


def _rotate(images, recipe):
    import nvidia.dali.fn as fn

    angle_deg = fn.random.uniform(range=[-recipe.rotation_deg, recipe.rotation_deg])
    return fn.rotate(images, angle=angle_deg, keep_size=True, fill_value=0)


def _erase(images, recipe):
    import nvidia.dali.fn as fn
    import nvidia.dali.math as dmath

    area = fn.random.uniform(range=list(recipe.erasing_area))
    ratio = dmath.exp(fn.random.uniform(range=np.log(recipe.erasing_ratio).tolist()))
    sides = fn.stack(dmath.sqrt(area * ratio), dmath.sqrt(area / ratio))
    erased = fn.random.coin_flip(probability=recipe.erasing)
    anchor = fn.random.uniform(range=[0, 1], shape=[2])
    return fn.erase(images, anchor=anchor * (1 - dmath.min(sides, 1)), shape=sides * erased, axis_names="HW",
                    normalized=True, fill_value=0)  # fmt: skip


def dali_as_documented(workload):
    """DALI as its ResNet-50 example has it: readers.file, image_random_crop, color_twist, DALIClassificationIterator.

    Its pixels differ from the published ones. Evaluation recipe, 64 photos: 0.16 levels on average, 1 at most, since
    INTERP_TRIANGULAR rounds unlike Pillow's bilinear. Training: the random crop is cut from the photo and not from its
    squash to 256 px (other shapes, one resampling instead of two), rotation interpolates, and contrast turns around
    half of the range instead of the image's mean grey. Images are turned by EXIF. From the second epoch on its reader
    repeats some images and leaves out others.
    """
    return DaliAsDocumented(workload)


class TimmTransform:
    """PIL and the transform that timm's create_transform makes of the same settings."""

    def __init__(self, recipe):
        from timm.data import create_transform

        training = {"crop_pct": None if recipe.is_random else recipe.crop / recipe.resize}
        if recipe.is_random:
            randaugment = recipe.randaugment and f"rand-m{recipe.randaugment[1]}-n{recipe.randaugment[0]}"
            training = {
                "scale": recipe.random_area, "ratio": recipe.random_ratio, "hflip": recipe.flip,
                "re_prob": recipe.erasing, "color_jitter": None, "auto_augment": randaugment,
            }  # fmt: skip
        self.transform = create_transform(
            (3, recipe.crop, recipe.crop),
            is_training=recipe.is_random,
            interpolation=recipe.interpolation,
            mean=recipe.mean,
            std=recipe.std,
            **training,
        )

    def __call__(self, path):
        return self.transform(Image.open(path).convert("RGB"))


def timm_loader(workload):
    """timm's transform in a DataLoader, which is what its create_loader makes where there is no GPU.

    Its pixels differ from the published ones: crops are drawn with other roundings, and its RandAugment has 15
    operations, whose strengths are its own.
    """
    return WorkerLoader(workload, TimmTransform(workload.recipe))


def _is_of_timm(recipe):
    """Say whether timm has the steps: a crop of random area straight from the photo, or shorter side and crop."""
    if not recipe.is_random:
        return isinstance(recipe.resize, int)
    return recipe.resize is None and recipe.random_area is not None and not (recipe.jitters or recipe.rotation_deg)


class AlbumentationsTransform:
    """cv2's decoder and an albumentations pipeline."""

    def __init__(self, recipe):
        # It asks a server for its latest version when it is imported.
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        import albumentations

        self.transform = albumentations.Compose(self._steps(recipe, albumentations))

    @staticmethod
    def _steps(recipe, library):
        import cv2

        resize = []
        if isinstance(recipe.resize, int):
            resize = [library.SmallestMaxSize(recipe.resize)]
        elif recipe.resize is not None:
            resize = [library.Resize(*recipe.resize)]
        sides = (recipe.crop, recipe.crop)
        if recipe.random_area is not None:
            crop = library.RandomResizedCrop(sides, recipe.random_area, recipe.random_ratio)
        else:
            crop = (library.RandomCrop if recipe.random_crop else library.CenterCrop)(*sides)
        late = [
            library.ColorJitter(recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue, p=1)
        ] if recipe.jitters else []  # fmt: skip
        rotation = [
            library.Rotate(recipe.rotation_deg, interpolation=cv2.INTER_NEAREST, p=1)
        ] if recipe.rotation_deg else []  # fmt: skip
        return [
            *resize,
            *([library.Pad(recipe.padding, fill=recipe.fill)] if recipe.padding else []),
            crop,
            *([library.HorizontalFlip(p=recipe.flip)] if recipe.flip else []),
            *([*late, *rotation] if recipe.rotation_after_jitter else [*rotation, *late]),
            *([library.ToGray(p=recipe.grayscale)] if recipe.grayscale else []),
            library.Normalize(recipe.mean, recipe.std),
            *([library.Erasing(recipe.erasing_area, recipe.erasing_ratio, p=recipe.erasing)] if recipe.erasing else []),
            library.ToTensorV2(),
        ]

    def __call__(self, path):
        import cv2

        image = cv2.cvtColor(cv2.imread(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        return self.transform(image=image)["image"]


def albumentations_loader(workload):
    """albumentations in a DataLoader, one cv2 thread a worker.

    Its pixels differ from the published ones as OpenCV's do, by which it resizes (evaluation recipe, 64 photos: 2.6
    levels on average, 39 at the 99.9th percentile), and images are turned by EXIF. It has no RandAugment.
    """
    return WorkerLoader(workload, AlbumentationsTransform(workload.recipe), _one_opencv_thread)


class KorniaImage:
    """torchvision's decoder and what kornia does before images have one size: a float tensor (3, H, W) in [0, 1]."""

    def __init__(self, recipe):
        from kornia import augmentation

        sides = (recipe.crop, recipe.crop)
        resize = []
        if isinstance(recipe.resize, int):
            resize = [augmentation.Resize(recipe.resize, side="short"), augmentation.CenterCrop(sides)]
        elif recipe.resize is not None:
            resize = [augmentation.Resize(recipe.resize)]
        elif recipe.random_area is not None:
            resize = [augmentation.RandomResizedCrop(sides, recipe.random_area, recipe.random_ratio)]
        self.transform = augmentation.ImageSequential(*resize)

    def __call__(self, path):
        image = io.decode_jpeg(io.read_file(path), mode=io.ImageReadMode.RGB)
        return self.transform(image[None].float() / 255)[0]


class KorniaLoader(WorkerLoader):
    """A DataLoader whose batches kornia augments on the device."""

    def __init__(self, workload):
        super().__init__(workload, KorniaImage(workload.recipe))
        self._augmentation = self._augmentation_of(workload.recipe).to(workload.device)

    @staticmethod
    def _augmentation_of(recipe):
        from kornia import augmentation
        from kornia.augmentation.auto import RandAugment

        sides, crop = (recipe.crop, recipe.crop), []
        if isinstance(recipe.resize, tuple):
            if recipe.random_area is not None:
                crop = [augmentation.RandomResizedCrop(sides, recipe.random_area, recipe.random_ratio)]
            elif recipe.random_crop:
                crop = [augmentation.RandomCrop(sides, recipe.padding, fill=[level / 255 for level in recipe.fill])]
            else:
                crop = [augmentation.CenterCrop(sides)]
        late = [
            augmentation.ColorJiggle(recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue)
        ] if recipe.jitters else []  # fmt: skip
        rotation = [
            augmentation.RandomRotation(recipe.rotation_deg, resample="nearest", p=1)
        ] if recipe.rotation_deg else []  # fmt: skip
        return augmentation.ImageSequential(
            *crop,
            *([augmentation.RandomHorizontalFlip(p=recipe.flip)] if recipe.flip else []),
            *([RandAugment(*recipe.randaugment)] if recipe.randaugment else []),
            *([*late, *rotation] if recipe.rotation_after_jitter else [*rotation, *late]),
            *([augmentation.RandomGrayscale(p=recipe.grayscale)] if recipe.grayscale else []),
            augmentation.Normalize(recipe.mean, recipe.std),
            *([augmentation.RandomErasing(recipe.erasing_area, recipe.erasing_ratio, p=recipe.erasing)]
              if recipe.erasing else []),
        )  # fmt: skip

    def __iter__(self):
        for images, labels in super().__iter__():
            yield self._augmentation(images), labels


def kornia_loader(workload):
    """kornia on batches on the device, after a DataLoader that decodes and brings the images to one size.

    Its pixels differ from the published ones (evaluation recipe, 64 photos: 3.0 levels on average, 44 at the 99.9th
    percentile): it does not antialias unless told to, aligns corners, and computes in float32 throughout. Its
    RandAugment has other operations than torchvision's. A photo of its own size can be cropped only by itself, so a
    random crop after a resize to the shorter side is left out.
    """
    return KorniaLoader(workload)


def _is_of_kornia(recipe):
    """Say whether every image has one size before what kornia does on batches."""
    is_random_crop = recipe.random_crop or recipe.random_area is not None
    return isinstance(recipe.resize, tuple) or (isinstance(recipe.resize, int) != is_random_crop)


class Rival(NamedTuple):
    """A tool."""

    make: Callable[[Workload], AnyLoader]
    packages: tuple[str, ...] = ()
    """What it needs beside torchvision."""
    can: Callable[[Recipe], bool] = lambda recipe: True
    """Whether it has what a recipe asks for."""


RIVALS = {
    "published: PIL, torchvision, DataLoader": Rival(published),
    "torchvision v2, DataLoader": Rival(torchvision_v2),
    "OpenCV, DataLoader": Rival(opencv, ("cv2",), lambda recipe: recipe.randaugment is None),
    "timm, DataLoader": Rival(timm_loader, ("timm",), _is_of_timm),
    "albumentations, DataLoader": Rival(
        albumentations_loader, ("albumentations",), lambda recipe: recipe.randaugment is None
    ),
    "kornia on batches, DataLoader": Rival(kornia_loader, ("kornia",), _is_of_kornia),
    "DALI as documented": Rival(
        dali_as_documented, ("nvidia.dali",), lambda recipe: not (recipe.random_crop or recipe.grayscale)
    ),
}
PUBLISHED = "published: PIL, torchvision, DataLoader"


def _is_installed(package):
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # not even the package that it is part of
        return False


def rivals(recipe):
    """Return (candidates that can do a recipe, names of those left out because their package is not installed)."""
    able = {name: rival for name, rival in RIVALS.items() if rival.can(recipe)}
    absent = [name for name, rival in able.items() if not all(map(_is_installed, rival.packages))]
    return [Candidate(name, rival.make) for name, rival in able.items() if name not in absent], absent
