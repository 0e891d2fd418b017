// What the attention kernels share: the work of a step, where keys and values lie, and how parts of a
// softmax are put together.
//
// Positions are cut into splits of ATTENTION_SPLIT, counted from position zero. Each split is computed
// from scratch, in steps of sixteen positions, and splits are folded in order: inside a thread for
// prompts, by a kernel of its own where splits are spread over the device. A row so has the same bits
// however its prompt was cut, whatever else runs, and whichever way was taken.
#pragma once
#include "simt.cuh"

enum { ATTENTION_SPLIT = 256, ATTENTION_STEP = 16, ATTENTION_TILE = 16, ATTENTION_WARPS = 4 };

// Rows of one sequence: the last `rows` of `context_len` positions.
struct AttentionSpan {
  int32_t row_start;
  int32_t rows;
  int32_t context_len;
  // Where its blocks begin in the tables.
  int32_t table;
  // The first split that any row looks at, and how many there are.
  int32_t split_first;
  int32_t splits;
  // Where its parts begin, [rows][splits]; negative if each row is finished by one thread.
  int32_t part_first;
  int32_t unused;
};

// Sixteen pairs of a row and a head of one group, from pair `first` on, over some splits. In f32, one
// row.
struct AttentionItem {
  int32_t span;
  int32_t first;
  int32_t split_first;
  int32_t splits;
};

// A row whose parts are to be folded.
struct AttentionMerge {
  int32_t row;
  int32_t part_first;
  int32_t splits;
};

struct AttentionArgs {
  // [rows][heads][dim]
  const void *q;
  void *out;
  // [block][kv_head][token][dim] and [block][kv_head][dim][token]
  const void *keys;
  const void *values;
  const int32_t *tables;
  const AttentionSpan *spans;
  const AttentionItem *items;
  const AttentionMerge *merges;
  // [part][head][dim], and [part][head] of largest score and sum.
  float *parts;
  float *part_sums;
  int32_t item_count;
  int32_t heads;
  int32_t kv_heads;
  int32_t dim;
  int32_t block_tokens;
  // Positions a row looks back to, itself included; zero for all.
  int32_t window;
  float scale;
  // Bound that scores bend towards; zero for none.
  float softcap;
};

// Where a head of a block begins, in elements: the same for keys and values.
SHARED_CODE int64_t attention_page(int64_t block, int head, int kv_heads, int tokens, int dim) {
  return (block * kv_heads + head) * (int64_t)tokens * dim;
}

// First position that a row at `position` attends to.
SHARED_CODE int attention_first(int position, int window) {
  return window > 0 && position + 1 > window ? position + 1 - window : 0;
}

// A softmax so far: its largest score, in powers of two, and the sum of weights relative to it.
struct Softmax {
  float largest;
  float sum;
};

// Folds `part` into `total` and gives the factors of their two weighted sums.
DEVICE void attention_fold(Softmax &total, const Softmax &part, float &of_total, float &of_part) {
  if (part.largest == -INFINITY) {
    of_total = 1.0f;
    of_part = 0.0f;
    return;
  }
  const float largest = fmaxf(total.largest, part.largest);
  of_total = total.largest == -INFINITY ? 0.0f : simt::exp2(total.largest - largest);
  of_part = simt::exp2(part.largest - largest);
  total.sum = fmaf(total.sum, of_total, part.sum * of_part);
  total.largest = largest;
}

DEVICE float attention_score(float product, float scale, float softcap) {
  const float LOG2_E = 1.44269504f;
  const float score = product * scale;
  return (softcap > 0.0f ? softcap * tanhf(score / softcap) : score) * LOG2_E;
}
