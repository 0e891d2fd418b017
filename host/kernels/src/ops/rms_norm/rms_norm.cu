// The norm of each row, optionally of the row added to a running sum, which is kept. A block per row.
#include "simt.cuh"

namespace {
const int WARPS = 8;

struct RmsNormArgs {
  // [rows][width], as `out`; the running sum likewise, or null.
  const void *x;
  void *sum;
  const void *weight;
  void *out;
  int32_t width;
  float eps;
};

template <typename T> DEVICE void rms_norm(const RmsNormArgs &args) {
  const int width = args.width;
  const int64_t row = (int64_t)simt::block_x() * width;
  const bool whole = width % 8 == 0;
  const T *x = (const T *)args.x + row, *weight = (const T *)args.weight;
  T *kept = (T *)args.sum + row, *out = (T *)args.out + row;
  float squares = 0.0f;
  for (int i = simt::thread() * 8; i < width; i += WARPS * 32 * 8) {
    float value[8], before[8];
    load8(value, x + i, whole, width - i);
    if (args.sum) {
      load8(before, kept + i, whole, width - i);
      UNROLL for (int j = 0; j < 8; j++) {
        // As it is kept, so that what follows can be had from the sum alone.
        const T sum = from_float<T>(before[j] + value[j]);
        if (i + j < width) kept[i + j] = sum;
        value[j] = to_float(sum);
      }
    }
    UNROLL for (int j = 0; j < 8; j++) squares = fmaf(value[j], value[j], squares);
  }
  float *parts = (float *)simt::shared();
  squares = sum_lanes(squares);
  if (simt::thread() % 32 == 0) parts[simt::thread() / 32] = squares;
  simt::sync_block();
  float total = 0.0f;
  for (int w = 0; w < WARPS; w++) total += parts[w];
  const float scale = 1.0f / sqrtf(total / width + args.eps);
  const T *source = args.sum ? kept : x;
  for (int i = simt::thread() * 8; i < width; i += WARPS * 32 * 8) {
    float value[8], factor[8];
    load8(value, source + i, whole, width - i);
    load8(factor, weight + i, whole, width - i);
    UNROLL for (int j = 0; j < 8; j++)
      if (i + j < width) out[i + j] = from_float<T>(value[j] * scale * factor[j]);
  }
}
} // namespace

KERNEL(rms_norm_f32, 256, 4, RmsNormArgs, rms_norm<float>)
KERNEL(rms_norm_f16, 256, 4, RmsNormArgs, rms_norm<f16_t>)
KERNEL(rms_norm_bf16, 256, 4, RmsNormArgs, rms_norm<bf16_t>)
