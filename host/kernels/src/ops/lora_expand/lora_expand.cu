// y += scale * h Bᵀ, for single rows (decode) and for tiles of sixteen rows (prefill). Rows of no item
// are not touched. As in shrink, the order of a sum depends on the rank alone.
#include "../lora_shrink/lora.cuh"

namespace {
// LORA_EXPAND_OUTPUTS outputs of one row. As many lanes share an output as its rank has eights, so that
// a warp reads one run of memory whatever the rank.
template <typename T> DEVICE void expand_row(const LoraArgs &args) {
  const LoraItem item = args.items[simt::block_y()];
  const LoraEntry entry = args.entries[item.entry];
  const int rank = entry.rank, width = args.width;
  const int64_t padded = lora_padded(rank);
  T *y = (T *)args.x + (int64_t)item.row * width;
  const T *b = (const T *)entry.b;

  // The states, padded as `b` is.
  float *hidden = (float *)simt::shared();
  for (int i = simt::thread(); i < padded; i += simt::threads())
    hidden[i] = i < rank ? args.hidden[item.hidden + i] : 0.0f;
  simt::sync_block();

  int lanes = 1;
  while (lanes < 32 && lanes * 8 < rank) lanes *= 2;
  const int lane = simt::thread() % lanes, stride = simt::threads() / lanes;
  const int first = simt::block_x() * LORA_EXPAND_OUTPUTS;
  for (int i = simt::thread() / lanes; i < LORA_EXPAND_OUTPUTS; i += stride) {
    const int output = first + i;
    float sum = 0.0f;
    if (output < width) {
      for (int r = lane * 8; r < padded; r += lanes * 8) {
        float weight[8], state[8];
        load8(weight, b + output * padded + r, true, 8);
        load8(state, hidden + r, true, 8);
        UNROLL for (int j = 0; j < 8; j++) sum = fmaf(state[j], weight[j], sum);
      }
    }
    sum = sum_lanes(sum, lanes);
    if (lane == 0 && output < width)
      y[output] = from_float<T>(fmaf(sum, entry.scale, to_float(y[output])));
  }
}

const int TILE_WARPS = 4;
const int WARP_OUTPUTS = LORA_EXPAND_OUTPUTS / TILE_WARPS;

// LORA_EXPAND_OUTPUTS outputs of up to sixteen rows on tensor cores. A state goes in as the sum of two
// halves-width numbers, so that it loses nothing that `y` could hold.
template <typename T> DEVICE void expand_tile(const LoraArgs &args) {
  const LoraItem item = args.items[simt::block_y()];
  const LoraEntry entry = args.entries[item.entry];
  const int rank = entry.rank, width = args.width;
  const int lane = simt::thread() % 32, warp = simt::thread() / 32;
  const int group = lane / 4, inner = lane % 4;
  const int64_t padded = lora_padded(rank);
  T *y = (T *)args.x + (int64_t)item.row * width;
  const T *b = (const T *)entry.b;
  const float *hidden = args.hidden + item.hidden;
  const int first = simt::block_x() * LORA_EXPAND_OUTPUTS + warp * WARP_OUTPUTS;

  float sums[WARP_OUTPUTS / 8][4] = {};
  for (int i = 0; i < rank; i += 32) {
    const int at = i + inner * 8;
    // Of rows `group` and `group + 8`, eight states each: the numbers, and what their rounding lost.
    uint32_t states[2][4], rests[2][4];
    UNROLL for (int half = 0; half < 2; half++) {
      const int row = group + half * 8;
      UNROLL for (int j = 0; j < 4; j++) {
        float pair[2], rest[2];
        UNROLL for (int k = 0; k < 2; k++) {
          const int r = at + 2 * j + k;
          pair[k] = row < item.rows && r < rank ? hidden[(int64_t)row * rank + r] : 0.0f;
          rest[k] = pair[k] - to_float(from_float<T>(pair[k]));
        }
        states[half][j] = pack2<T>(pair[0], pair[1]);
        rests[half][j] = pack2<T>(rest[0], rest[1]);
      }
    }
    UNROLL for (int n = 0; n < WARP_OUTPUTS / 8; n++) {
      const int output = first + n * 8 + group;
      const Bytes16 zero = {};
      const Bytes16 weight =
          output < width && at < rank ? *(const Bytes16 *)(b + output * padded + at) : zero;
      UNROLL for (int j = 0; j < 4; j += 2) {
        const uint32_t state[4] = {states[0][j], states[1][j], states[0][j + 1], states[1][j + 1]};
        const uint32_t rest[4] = {rests[0][j], rests[1][j], rests[0][j + 1], rests[1][j + 1]};
        simt::Mma<T>::run(sums[n], state, weight.word[j], weight.word[j + 1]);
        simt::Mma<T>::run(sums[n], rest, weight.word[j], weight.word[j + 1]);
      }
    }
  }
  UNROLL for (int n = 0; n < WARP_OUTPUTS / 8; n++)
    UNROLL for (int i = 0; i < 4; i++) {
      const int row = group + i / 2 * 8, output = first + n * 8 + inner * 2 + i % 2;
      if (row < item.rows && output < width) {
        T *target = y + (int64_t)row * width + output;
        *target = from_float<T>(fmaf(sums[n][i], entry.scale, to_float(*target)));
      }
    }
}
} // namespace

KERNEL(lora_expand_row_f32, 128, 4, LoraArgs, expand_row<float>)
KERNEL(lora_expand_row_f16, 128, 8, LoraArgs, expand_row<f16_t>)
KERNEL(lora_expand_row_bf16, 128, 8, LoraArgs, expand_row<bf16_t>)
KERNEL(lora_expand_tile_f16, 128, 3, LoraArgs, expand_tile<f16_t>)
KERNEL(lora_expand_tile_bf16, 128, 3, LoraArgs, expand_tile<bf16_t>)
