// Every operator schema of the library, in one place. Kernels register themselves from cpu/ and cuda/;
// shapes, dtypes and definitions are in README.md.

#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(dogs_accel, m) {
  m.def(
      "augment(Tensor images, Tensor index, Tensor params, int size, float[] mean, float[] std, str interpolation, "
      "ScalarType dtype, int num_threads=0, int[] fill=[0, 0, 0]) -> Tensor");
  m.def(
      "augment_ragged(Tensor[] images, Tensor resized, Tensor params, int size, float[] mean, float[] std, "
      "str interpolation, ScalarType dtype, int num_threads=0, int[] fill=[0, 0, 0]) -> Tensor");
  m.def(
      "calibration_bins(Tensor logits, Tensor labels, int bins) -> "
      "(Tensor confidence, Tensor prediction, Tensor count, Tensor confidence_sum, Tensor correct, "
      "Tensor bad_row)");
  m.def(
      "class_calibration_bins(Tensor logits, Tensor labels, int bins) -> "
      "(Tensor count, Tensor probability_sum, Tensor positives, Tensor squared_error, Tensor bad_row)");
  m.def("image_stats(Tensor[] images) -> Tensor");
  m.def("image_sums(Tensor[] images) -> Tensor");
  m.def("squash(Tensor[] images, int height, int width, str interpolation, int num_threads=0) -> Tensor");
  m.def("stats_of_sums(Tensor sums) -> Tensor");
  m.def("limit_instruction_set(str name) -> str");
}
