// h = x Aᵀ, for single rows (decode) and for tiles of sixteen rows (prefill).
//
// A sum is split in one way whatever the launch holds: among the lanes and warps of one block, by input.
// So a row has the same bits in any company; the two kernels differ from each other in rounding.
#include "lora.cuh"

namespace {
const int WARPS = 4;

// One row against LORA_ROW_RANKS ranks. All warps share the inputs; the weight is read once, by
// nobody else, with five loads of sixteen bytes in flight per thread.
template <typename T> DEVICE void shrink_row(const LoraArgs &args) {
  const LoraItem item = args.items[simt::block_x()];
  const LoraEntry entry = args.entries[item.entry];
  const int width = args.width, lane = simt::thread() % 32, warp = simt::thread() / 32;
  const int64_t padded = lora_padded(width);
  const bool aligned = width % 8 == 0;
  const T *x = (const T *)args.x + (int64_t)item.row * width;
  const T *a = (const T *)entry.a + item.rank_first * padded;
  int ranks = entry.rank - item.rank_first;
  if (ranks > LORA_ROW_RANKS) ranks = LORA_ROW_RANKS;

  float sums[LORA_ROW_RANKS] = {};
  for (int i = simt::thread() * 8; i < width; i += WARPS * 32 * 8) {
    float left[8], right[LORA_ROW_RANKS][8];
    load8(left, x + i, aligned, width - i);
    UNROLL for (int r = 0; r < LORA_ROW_RANKS; r++)
      if (r < ranks) load8(right[r], a + r * padded + i, true, 8);
    UNROLL for (int r = 0; r < LORA_ROW_RANKS; r++)
      if (r < ranks) UNROLL for (int j = 0; j < 8; j++) sums[r] = fmaf(left[j], right[r][j], sums[r]);
  }
  float *parts = (float *)simt::shared();
  UNROLL for (int r = 0; r < LORA_ROW_RANKS; r++) {
    float sum = sum_lanes(sums[r]);
    if (lane == 0) parts[warp * LORA_ROW_RANKS + r] = sum;
  }
  simt::sync_block();
  const int r = simt::thread();
  if (r < ranks) {
    float sum = 0.0f;
    for (int w = 0; w < WARPS; w++) sum += parts[w * LORA_ROW_RANKS + r];
    args.hidden[item.hidden + item.rank_first + r] = sum;
  }
}

const int TILE_WARPS = 8;

// Up to sixteen rows against up to LORA_TILE_RANKS ranks on tensor cores. A lane takes eight inputs of
// a run at a time, as two steps of a product whose inputs are counted in another order on both sides.
template <typename T> DEVICE void shrink_tile(const LoraArgs &args) {
  const LoraItem item = args.items[simt::block_x()];
  const LoraEntry entry = args.entries[item.entry];
  const int width = args.width, lane = simt::thread() % 32, warp = simt::thread() / 32;
  const int group = lane / 4, inner = lane % 4;
  const int64_t padded = lora_padded(width);
  const bool aligned = width % 8 == 0;
  const T *x = (const T *)args.x + (int64_t)item.row * width;
  const T *a = (const T *)entry.a + item.rank_first * padded;
  int ranks = entry.rank - item.rank_first;
  if (ranks > LORA_TILE_RANKS) ranks = LORA_TILE_RANKS;
  const bool low = group < item.rows, high = group + 8 < item.rows;

  float sums[LORA_TILE_RANKS / 8][4] = {};
  for (int64_t i = warp * 32; i < width; i += TILE_WARPS * 32) {
    const int64_t at = i + inner * 8;
    const int count = at < width ? (int)(width - at) : 0;
    const Bytes16 zero = {};
    Bytes16 top = low && count > 0 ? load_words(x + group * (int64_t)width + at, aligned, count) : zero;
    Bytes16 bottom =
        high && count > 0 ? load_words(x + (group + 8) * (int64_t)width + at, aligned, count) : zero;
    const uint32_t first[4] = {top.word[0], bottom.word[0], top.word[1], bottom.word[1]};
    const uint32_t second[4] = {top.word[2], bottom.word[2], top.word[3], bottom.word[3]};
    UNROLL for (int n = 0; n < LORA_TILE_RANKS / 8; n++) {
      if (n * 8 >= ranks) break;
      const int r = n * 8 + group;
      const Bytes16 weight =
          r < ranks && count > 0 ? *(const Bytes16 *)(a + r * padded + at) : zero;
      simt::Mma<T>::run(sums[n], first, weight.word[0], weight.word[1]);
      simt::Mma<T>::run(sums[n], second, weight.word[2], weight.word[3]);
    }
  }
  // [warp][row][rank], added up in order of warps.
  float *parts = (float *)simt::shared();
  UNROLL for (int n = 0; n < LORA_TILE_RANKS / 8; n++)
    UNROLL for (int i = 0; i < 4; i++) {
      const int row = group + i / 2 * 8, r = n * 8 + inner * 2 + i % 2;
      parts[(warp * LORA_TILE_ROWS + row) * LORA_TILE_RANKS + r] = sums[n][i];
    }
  simt::sync_block();
  for (int i = simt::thread(); i < item.rows * ranks; i += TILE_WARPS * 32) {
    const int row = i / ranks, r = i % ranks;
    float sum = 0.0f;
    for (int w = 0; w < TILE_WARPS; w++)
      sum += parts[(w * LORA_TILE_ROWS + row) * LORA_TILE_RANKS + r];
    args.hidden[item.hidden + (int64_t)row * entry.rank + item.rank_first + r] = sum;
  }
}
} // namespace

KERNEL(lora_shrink_row_f32, 128, 4, LoraArgs, shrink_row<float>)
KERNEL(lora_shrink_row_f16, 128, 6, LoraArgs, shrink_row<f16_t>)
KERNEL(lora_shrink_row_bf16, 128, 6, LoraArgs, shrink_row<bf16_t>)
KERNEL(lora_shrink_tile_f16, 256, 2, LoraArgs, shrink_tile<f16_t>)
KERNEL(lora_shrink_tile_bf16, 256, 2, LoraArgs, shrink_tile<bf16_t>)
