#include "batch_memory.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <new>
#include <numeric>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace dogs_accel {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t page_size = int64_t{1} << 21;      // of the pages that large memory is asked for in
constexpr int64_t smallest_kept = int64_t{1} << 20;  // below, malloc does well
constexpr size_t most_free = 3;                      // a squashed batch, a finished one, and one of another size
constexpr int64_t most_free_bytes = int64_t{1} << 29;

struct Block {
  void* data;
  int64_t num_bytes;
};

Block new_block(int64_t num_bytes) {
  num_bytes = (num_bytes + page_size - 1) / page_size * page_size;
  void* const data = std::aligned_alloc(page_size, num_bytes);
  if (data == nullptr) {
    throw std::bad_alloc();
  }
#if defined(__linux__)
  madvise(data, num_bytes, MADV_HUGEPAGE);  // a hint
#endif
  return {data, num_bytes};
}

class FreeBlocks {
 public:
  Block take(int64_t num_bytes) {
    {
      const std::lock_guard lock(mutex_);
      const auto found = std::find_if(blocks_.begin(), blocks_.end(), [&](const Block& block) {
        return block.num_bytes >= num_bytes && block.num_bytes <= 2 * num_bytes + page_size;
      });
      if (found != blocks_.end()) {
        const Block block = *found;
        blocks_.erase(found);
        num_bytes_ -= block.num_bytes;
        return block;
      }
    }
    return new_block(num_bytes);
  }

  void give(const Block& block) {
    const std::lock_guard lock(mutex_);
    blocks_.insert(blocks_.begin(), block);
    num_bytes_ += block.num_bytes;
    while (blocks_.size() > most_free || num_bytes_ > most_free_bytes) {
      num_bytes_ -= blocks_.back().num_bytes;
      std::free(blocks_.back().data);
      blocks_.pop_back();
    }
  }

 private:
  std::mutex mutex_;
  std::vector<Block> blocks_;  // the last one given comes first
  int64_t num_bytes_ = 0;
};

// Never destroyed: a tensor may outlive every static object.
FreeBlocks& free_blocks() {
  static auto& blocks = *new FreeBlocks;
  return blocks;
}

int64_t element_size(ScalarType dtype) { return dtype == ScalarType::Byte ? 1 : dtype == ScalarType::Float ? 4 : 2; }

}  // namespace

Tensor new_batch(const std::vector<int64_t>& sizes, ScalarType dtype) {
  const int64_t num_bytes = std::accumulate(sizes.begin(), sizes.end(), element_size(dtype), std::multiplies<>());
  if (num_bytes < smallest_kept) {
    return torch::stable::empty(sizes, dtype);
  }
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t d = sizes.size() - 1; d > 0; --d) {
    strides[d - 1] = strides[d] * sizes[d];
  }
  const Block block = free_blocks().take(num_bytes);
  return torch::stable::from_blob(block.data, sizes, strides, torch::stable::Device(torch::headeronly::DeviceType::CPU),
                                  dtype, [block](void*) { free_blocks().give(block); });
}

}  // namespace dogs_accel
