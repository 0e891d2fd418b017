// y = x Wᵀ + b for a few rows of x and a weight of eight-bit blocks: 32 inputs share a scale, as GGML's
// Q8_0 has it. The weight is read once for all rows and widened in registers; x is not rounded.
//
// A warp takes four outputs. Lanes take sixteen inputs at a time and add up at the end: the order of a sum
// depends on the width alone, not on the rows.
#include "simt.cuh"

namespace {
const int WARPS = 4;
const int OUTPUTS = 4;

struct GemvQ8Args {
  // [rows][inputs]
  const void *x;
  // [outputs][blocks][32]
  const int8_t *quants;
  // [outputs][blocks], f16
  const f16_t *scales;
  // [outputs] floats, or null
  const float *bias;
  // [rows][outputs]
  void *y;
  int32_t rows;
  int32_t inputs;
  int32_t outputs;
  int32_t blocks;
};

// Four quants as floats, exactly: a byte in the mantissa of 2^23, less 2^23 and the offset.
DEVICE void widen(float (&out)[4], uint32_t word) {
  word ^= 0x80808080u;
  UNROLL for (int i = 0; i < 4; i++)
    out[i] = bits_to_float(0x4b000000u | (word >> (8 * i) & 0xffu)) - 8388736.0f;
}

template <typename T, int ROWS> DEVICE void gemv(const GemvQ8Args &args) {
  const int lane = simt::thread() % 32, warp = simt::thread() / 32;
  const int first = (simt::block_x() * WARPS + warp) * OUTPUTS;
  if (first >= args.outputs) return;
  const int64_t padded = (int64_t)args.blocks * 32;
  const bool whole = args.inputs % 8 == 0;
  const T *x = (const T *)args.x;

  float sums[ROWS][OUTPUTS] = {};
  for (int at = lane * 16; at < padded; at += 32 * 16) {
    Bytes16 quants[OUTPUTS];
    float scales[OUTPUTS];
    UNROLL for (int o = 0; o < OUTPUTS; o++) {
      // Beyond the last output, the last one once more: nothing is written for it.
      const int64_t output = first + o < args.outputs ? first + o : args.outputs - 1;
      quants[o] = *(const Bytes16 *)(args.quants + output * padded + at);
      scales[o] = to_float(args.scales[output * args.blocks + at / 32]);
    }
    UNROLL for (int half = 0; half < 2; half++) {
      const int input = at + half * 8;
      float values[ROWS][8];
      UNROLL for (int r = 0; r < ROWS; r++) {
        if (r < args.rows && input < args.inputs) {
          const bool all = whole && input + 8 <= args.inputs;
          load8(values[r], x + (int64_t)r * args.inputs + input, all, args.inputs - input);
        } else {
          UNROLL for (int i = 0; i < 8; i++) values[r][i] = 0.0f;
        }
      }
      UNROLL for (int o = 0; o < OUTPUTS; o++) {
        float low[4], high[4];
        widen(low, quants[o].word[half * 2]);
        widen(high, quants[o].word[half * 2 + 1]);
        UNROLL for (int r = 0; r < ROWS; r++) {
          float part = 0.0f;
          UNROLL for (int i = 0; i < 4; i++) part = fmaf(values[r][i], low[i], part);
          UNROLL for (int i = 0; i < 4; i++) part = fmaf(values[r][4 + i], high[i], part);
          sums[r][o] = fmaf(part, scales[o], sums[r][o]);
        }
      }
    }
  }
  UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int o = 0; o < OUTPUTS; o++) {
    const float sum = sum_lanes(sums[r][o]);
    const int output = first + o;
    if (lane == 0 && r < args.rows && output < args.outputs) {
      const float bias = args.bias ? args.bias[output] : 0.0f;
      ((T *)args.y)[(int64_t)r * args.outputs + output] = from_float<T>(sum + bias);
    }
  }
}

// The weight as T, [outputs][inputs], to `y`: for products of many rows.
template <typename T> DEVICE void widen_all(const GemvQ8Args &args) {
  const int64_t i = (int64_t)simt::block_x() * simt::threads() + simt::thread();
  if (i >= (int64_t)args.outputs * args.inputs) return;
  const int64_t output = i / args.inputs, input = i % args.inputs;
  const float scale = to_float(args.scales[output * args.blocks + input / 32]);
  ((T *)args.y)[i] = from_float<T>(args.quants[output * args.blocks * 32 + input] * scale);
}
} // namespace

#define GEMV(type, T)                                             \
  KERNEL(gemv_q8_1_##type, 128, 4, GemvQ8Args, gemv<T, 1>)        \
  KERNEL(gemv_q8_2_##type, 128, 4, GemvQ8Args, gemv<T, 2>)        \
  KERNEL(gemv_q8_4_##type, 128, 3, GemvQ8Args, gemv<T, 4>)        \
  KERNEL(gemv_q8_8_##type, 128, 3, GemvQ8Args, gemv<T, 8>)        \
  KERNEL(widen_q8_##type, 256, 4, GemvQ8Args, widen_all<T>)
GEMV(f32, float)
GEMV(f16, f16_t)
GEMV(bf16, bf16_t)
