// limit_instruction_set, with which tests and benchmarks compare the instruction sets on one machine.

#include "instruction_sets.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <atomic>
#include <string>

#include "../checks/common.h"

namespace dogs_accel {
namespace {

constexpr const char* names[] = {"baseline", "avx2", "avx512"};

InstructionSet best_of_cpu() {
#if defined(DOGS_ACCEL_X86_DISPATCH)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    return InstructionSet::avx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return InstructionSet::avx2;
  }
#endif
  return InstructionSet::baseline;
}

std::atomic<InstructionSet> limit{InstructionSet::avx512};

std::string limit_instruction_set(const std::string& name) {
  const auto* found = std::find(std::begin(names), std::end(names), name);
  check(found != std::end(names), "name: got '", name, "', expected 'baseline', 'avx2' or 'avx512'");
  limit = static_cast<InstructionSet>(found - std::begin(names));
  return names[static_cast<int>(instruction_set())];
}

}  // namespace

InstructionSet instruction_set() { return std::min(best_of_cpu(), limit.load(std::memory_order_relaxed)); }

}  // namespace dogs_accel

STABLE_TORCH_LIBRARY_IMPL(dogs_accel, CompositeExplicitAutograd, m) {
  m.impl("limit_instruction_set", TORCH_BOX(&dogs_accel::limit_instruction_set));
}
