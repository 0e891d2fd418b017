// Turns the first half of each head against the second, in place, by the angles of its row.
#include "simt.cuh"

namespace {
struct RopeArgs {
  // [rows][heads][dim]
  void *x;
  // [rows][dim / 2]
  const float *cos;
  const float *sin;
  int64_t pairs;
  int32_t heads;
  int32_t half;
};

template <typename T> DEVICE void rope(const RopeArgs &args) {
  const int64_t i = (int64_t)simt::block_x() * simt::threads() + simt::thread();
  if (i >= args.pairs) return;
  const int d = i % args.half;
  const int64_t head = i / args.half, angle = head / args.heads * args.half + d;
  T *low = (T *)args.x + head * 2 * args.half + d, *high = low + args.half;
  const float a = to_float(*low), b = to_float(*high), cos = args.cos[angle], sin = args.sin[angle];
  *low = from_float<T>(fmaf(a, cos, -(b * sin)));
  *high = from_float<T>(fmaf(b, cos, a * sin));
}
} // namespace

KERNEL(rope_f32, 256, 4, RopeArgs, rope<float>)
KERNEL(rope_f16, 256, 4, RopeArgs, rope<f16_t>)
KERNEL(rope_bf16, 256, 4, RopeArgs, rope<bf16_t>)
