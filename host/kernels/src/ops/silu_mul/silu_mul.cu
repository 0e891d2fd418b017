// silu(gate) * up, element by element.
#include "simt.cuh"

namespace {
struct SiluMulArgs {
  const void *gate;
  const void *up;
  void *out;
  int64_t elements;
};

template <typename T> DEVICE void silu_mul(const SiluMulArgs &args) {
  const int64_t i = (int64_t)simt::block_x() * simt::threads() + simt::thread();
  if (i >= args.elements) return;
  const float gate = to_float(((const T *)args.gate)[i]), up = to_float(((const T *)args.up)[i]);
  ((T *)args.out)[i] = from_float<T>(gate / (1.0f + expf(-gate)) * up);
}
} // namespace

KERNEL(silu_mul_f32, 256, 4, SiluMulArgs, silu_mul<float>)
KERNEL(silu_mul_f16, 256, 4, SiluMulArgs, silu_mul<f16_t>)
KERNEL(silu_mul_bf16, 256, 4, SiluMulArgs, silu_mul<bf16_t>)
