// Causal attention over paged keys and values, prompts and single tokens alike, on tensor cores. A warp
// takes sixteen pairs of a row and a head: the heads of a group, which share their keys and values, for
// as many rows as there is room.
//
// Keys and values go from memory to the tensor cores without a stop in shared memory. That works because
// a sum may count its terms in any order that both sides agree on: lanes take eight dimensions in a run
// of a key, and four positions in a run of a value, sixteen bytes and eight at a time.
#include "attention.cuh"

namespace {
// The pair of a row and a head that a lane works on.
struct Pair {
  int row, head, position;
  bool valid;
};

DEVICE Pair pair_at(const AttentionSpan &span, int index, int kv_head, int group) {
  Pair pair;
  pair.row = index / group;
  pair.head = kv_head * group + index % group;
  pair.position = span.context_len - span.rows + pair.row;
  pair.valid = pair.row < span.rows;
  return pair;
}

template <typename T, int DIM> DEVICE void attend(const AttentionArgs &args) {
  const int lane = simt::thread() % 32, warp = simt::thread() / 32;
  const int group_lane = lane / 4, inner = lane % 4;
  const int index = simt::block_x() * ATTENTION_WARPS + warp;
  if (index >= args.item_count) return;
  const AttentionItem item = args.items[index];
  const AttentionSpan span = args.spans[item.span];
  const int kv_head = simt::block_y(), group = args.heads / args.kv_heads;
  const int32_t *table = args.tables + span.table;

  Pair pairs[2];
  UNROLL for (int half = 0; half < 2; half++)
    pairs[half] = pair_at(span, item.first + group_lane + half * 8, kv_head, group);
  // Positions that the tile as a whole attends to.
  const int last_row =
      (item.first + ATTENTION_TILE - 1) / group < span.rows
          ? (item.first + ATTENTION_TILE - 1) / group
          : span.rows - 1;
  const int base = span.context_len - span.rows;
  const int tile_first = attention_first(base + item.first / group, args.window);
  const int tile_end = base + last_row + 1;

  // Of each pair's query, eight dimensions per lane and 32 dimensions; four of the last sixteen.
  const int CHUNKS = DIM / 32;
  const bool HAS_TAIL = DIM % 32 != 0;
  uint32_t query[CHUNKS + 1][2][4];
  UNROLL for (int half = 0; half < 2; half++) {
    const Pair &pair = pairs[half];
    const T *q =
        (const T *)args.q + ((int64_t)(span.row_start + pair.row) * args.heads + pair.head) * DIM;
    UNROLL for (int c = 0; c < CHUNKS; c++) {
      Bytes16 words = {};
      if (pair.valid) words = *(const Bytes16 *)(q + c * 32 + inner * 8);
      UNROLL for (int i = 0; i < 4; i++) query[c][half][i] = words.word[i];
    }
    Bytes8 tail = {};
    if (HAS_TAIL && pair.valid) tail = *(const Bytes8 *)(q + CHUNKS * 32 + inner * 4);
    UNROLL for (int i = 0; i < 2; i++) query[CHUNKS][half][i] = tail.word[i];
  }

  float *totals = (float *)simt::shared() + simt::thread();
  const int STRIDE = ATTENTION_WARPS * 32;
  Softmax total[2] = {{-INFINITY, 0.0f}, {-INFINITY, 0.0f}};
  const bool finishes = span.part_first < 0;

  for (int split = item.split_first; split < item.split_first + item.splits; split++) {
    const int split_begin = split * ATTENTION_SPLIT;
    const int first = tile_first > split_begin ? tile_first : split_begin;
    const int end = tile_end < split_begin + ATTENTION_SPLIT ? tile_end : split_begin + ATTENTION_SPLIT;
    Softmax part[2] = {{-INFINITY, 0.0f}, {-INFINITY, 0.0f}};
    float sums[DIM / 8][4];
    UNROLL for (int n = 0; n < DIM / 8; n++) UNROLL for (int i = 0; i < 4; i++) sums[n][i] = 0.0f;

    for (int at = first / ATTENTION_STEP * ATTENTION_STEP; at < end; at += ATTENTION_STEP) {
      const int offset = at % args.block_tokens;
      const int64_t page =
          attention_page(table[at / args.block_tokens], kv_head, args.kv_heads, args.block_tokens, DIM);
      const T *keys = (const T *)args.keys + page + (int64_t)offset * DIM;
      const T *values = (const T *)args.values + page + offset;

      // Scores: of tile j, column n is position 4(n / 2) + n % 2 + 2j, so that a lane ends up with
      // those of positions 4 inner to 4 inner + 3.
      float scores[2][4] = {};
      UNROLL for (int j = 0; j < 2; j++) {
        const T *key = keys + (group_lane / 2 * 4 + group_lane % 2 + 2 * j) * DIM;
        UNROLL for (int c = 0; c < CHUNKS; c++) {
          const Bytes16 words = *(const Bytes16 *)(key + c * 32 + inner * 8);
          UNROLL for (int i = 0; i < 4; i += 2) {
            const uint32_t left[4] = {query[c][0][i], query[c][1][i], query[c][0][i + 1],
                                      query[c][1][i + 1]};
            simt::Mma<T>::run(scores[j], left, words.word[i], words.word[i + 1]);
          }
        }
        if (HAS_TAIL) {
          const Bytes8 words = *(const Bytes8 *)(key + CHUNKS * 32 + inner * 4);
          const uint32_t left[4] = {query[CHUNKS][0][0], query[CHUNKS][1][0], query[CHUNKS][0][1],
                                    query[CHUNKS][1][1]};
          simt::Mma<T>::run(scores[j], left, words.word[0], words.word[1]);
        }
      }

      float factor[2];
      bool grew = false;
      UNROLL for (int half = 0; half < 2; half++) {
        const int position = pairs[half].position;
        const int lowest = attention_first(position, args.window);
        float largest = -INFINITY;
        UNROLL for (int j = 0; j < 2; j++) UNROLL for (int i = 0; i < 2; i++) {
          const int key = at + inner * 4 + 2 * j + i;
          float &score = scores[j][half * 2 + i];
          score = pairs[half].valid && key >= lowest && key <= position
                      ? attention_score(score, args.scale, args.softcap)
                      : -INFINITY;
          largest = fmaxf(largest, score);
        }
        largest = max_lanes(largest, 4);
        const float before = part[half].largest;
        grew |= largest > before;
        part[half].largest = fmaxf(before, largest);
        factor[half] = largest > before ? simt::exp2(before - part[half].largest) : 1.0f;
        // Where all is masked so far, any finite number does.
        const float around = part[half].largest == -INFINITY ? 0.0f : part[half].largest;
        float sum = 0.0f;
        UNROLL for (int j = 0; j < 2; j++) UNROLL for (int i = 0; i < 2; i++) {
          float &score = scores[j][half * 2 + i];
          score = simt::exp2(score - around);
          sum += score;
        }
        part[half].sum = fmaf(part[half].sum, factor[half], sum);
      }
      if (simt::any(grew)) {
        UNROLL for (int n = 0; n < DIM / 8; n++) UNROLL for (int i = 0; i < 4; i++)
          sums[n][i] *= factor[i / 2];
      }

      const uint32_t weights[4] = {
          pack2<T>(scores[0][0], scores[0][1]), pack2<T>(scores[0][2], scores[0][3]),
          pack2<T>(scores[1][0], scores[1][1]), pack2<T>(scores[1][2], scores[1][3])};
      // What lies beyond the tile's positions may be anything, and zero times anything may not be zero.
      uint32_t mask[2] = {0xffffffffu, 0xffffffffu};
      if (at < tile_first || at + ATTENTION_STEP > tile_end) {
        UNROLL for (int j = 0; j < 2; j++) UNROLL for (int i = 0; i < 2; i++) {
          const int key = at + inner * 4 + 2 * j + i;
          if (key < tile_first || key >= tile_end) mask[j] &= i == 0 ? 0xffff0000u : 0x0000ffffu;
        }
      }
      UNROLL for (int n = 0; n < DIM / 8; n++) {
        const Bytes8 words =
            *(const Bytes8 *)(values + (int64_t)(n * 8 + group_lane) * args.block_tokens + inner * 4);
        simt::Mma<T>::run(sums[n], weights, words.word[0] & mask[0], words.word[1] & mask[1]);
      }
    }

    UNROLL for (int half = 0; half < 2; half++) part[half].sum = sum_lanes(part[half].sum, 4);
    if (!finishes) {
      UNROLL for (int half = 0; half < 2; half++) {
        const Pair &pair = pairs[half];
        if (!pair.valid) continue;
        const int64_t slot = span.part_first + (int64_t)pair.row * span.splits + split - span.split_first;
        const int64_t target = slot * args.heads + pair.head;
        if (inner == 0) {
          args.part_sums[target * 2] = part[half].largest;
          args.part_sums[target * 2 + 1] = part[half].sum;
        }
        UNROLL for (int n = 0; n < DIM / 8; n++) UNROLL for (int i = 0; i < 2; i++)
          args.parts[target * DIM + n * 8 + inner * 2 + i] = sums[n][half * 2 + i];
      }
      continue;
    }
    float of_total[2], of_part[2];
    UNROLL for (int half = 0; half < 2; half++)
      attention_fold(total[half], part[half], of_total[half], of_part[half]);
    const bool is_first = split == item.split_first;
    const bool is_last = split == item.split_first + item.splits - 1;
    UNROLL for (int n = 0; n < DIM / 8; n++) UNROLL for (int i = 0; i < 4; i++) {
      float *kept = totals + (n * 4 + i) * STRIDE;
      const float before = is_first ? 0.0f : *kept;
      sums[n][i] = fmaf(before, of_total[i / 2], sums[n][i] * of_part[i / 2]);
      if (!is_last) *kept = sums[n][i];
    }
    if (is_last) {
      UNROLL for (int half = 0; half < 2; half++) {
        const Pair &pair = pairs[half];
        if (!pair.valid) continue;
        T *out = (T *)args.out +
                 ((int64_t)(span.row_start + pair.row) * args.heads + pair.head) * DIM;
        UNROLL for (int n = 0; n < DIM / 8; n++) {
          const uint32_t word = pack2<T>(sums[n][half * 2] / total[half].sum,
                                         sums[n][half * 2 + 1] / total[half].sum);
          *(uint32_t *)(out + n * 8 + inner * 2) = word;
        }
      }
    }
  }
}

// Folds the parts of a row, a block per row and head.
template <typename T> DEVICE void merge(const AttentionArgs &args) {
  const AttentionMerge item = args.merges[simt::block_x()];
  const int head = simt::block_y();
  for (int d = simt::thread(); d < args.dim; d += simt::threads()) {
    Softmax total = {-INFINITY, 0.0f};
    float sum = 0.0f;
    for (int split = 0; split < item.splits; split++) {
      const int64_t source = (int64_t)(item.part_first + split) * args.heads + head;
      const Softmax part = {args.part_sums[source * 2], args.part_sums[source * 2 + 1]};
      float of_total, of_part;
      attention_fold(total, part, of_total, of_part);
      sum = fmaf(sum, of_total, args.parts[source * args.dim + d] * of_part);
    }
    T *out = (T *)args.out + ((int64_t)item.row * args.heads + head) * args.dim;
    out[d] = from_float<T>(sum / total.sum);
  }
}
} // namespace

#define ATTEND(type, dim, blocks) \
  KERNEL(paged_attention_##type##_##dim, 128, blocks, AttentionArgs, attend<type##_t, dim>)
#define ATTEND_DIMS(type)  \
  ATTEND(type, 64, 4)      \
  ATTEND(type, 80, 4)      \
  ATTEND(type, 96, 3)      \
  ATTEND(type, 128, 3)     \
  ATTEND(type, 256, 2)
ATTEND_DIMS(f16)
ATTEND_DIMS(bf16)
KERNEL(attention_merge_f32, 128, 8, AttentionArgs, merge<float>)
KERNEL(attention_merge_f16, 128, 8, AttentionArgs, merge<f16_t>)
KERNEL(attention_merge_bf16, 128, 8, AttentionArgs, merge<bf16_t>)
