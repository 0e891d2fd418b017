// Causal attention in f32, any width of heads and any size of blocks: a block of threads per row and
// group of heads. For comparison with the CPU, and for models that need it; half-width types are faster.
#include "attention.cuh"

namespace {
const int THREADS = 128;
const int HEADS = 4;
const int DIM_MAX = 256;
const int DIMS_EACH = DIM_MAX / THREADS;

// The block's largest value or sum; `scratch` holds a float per warp.
DEVICE float across_block(float value, bool largest, float *scratch) {
  value = largest ? max_lanes(value) : sum_lanes(value);
  simt::sync_block();
  if (simt::thread() % 32 == 0) scratch[simt::thread() / 32] = value;
  simt::sync_block();
  float result = scratch[0];
  for (int w = 1; w < THREADS / 32; w++)
    result = largest ? fmaxf(result, scratch[w]) : result + scratch[w];
  return result;
}

// Shared memory: [HEADS][dim] queries, [HEADS][ATTENTION_SPLIT] scores, a float per warp.
DEVICE void attend_f32(const AttentionArgs &args) {
  const AttentionItem item = args.items[simt::block_x()];
  const AttentionSpan span = args.spans[item.span];
  const int kv_head = simt::block_y(), group = args.heads / args.kv_heads, dim = args.dim;
  const int tokens = args.block_tokens, thread = simt::thread();
  const int32_t *table = args.tables + span.table;
  const int row = item.first, position = span.context_len - span.rows + row;
  const int row_first = attention_first(position, args.window);
  float *queries = (float *)simt::shared();
  float *scores = queries + HEADS * dim;
  float *scratch = scores + HEADS * ATTENTION_SPLIT;

  for (int head_first = 0; head_first < group; head_first += HEADS) {
    const int heads = group - head_first < HEADS ? group - head_first : HEADS;
    const int head = kv_head * group + head_first;
    const int64_t of_row = (int64_t)(span.row_start + row) * args.heads + head;
    simt::sync_block();
    for (int i = thread; i < heads * dim; i += THREADS)
      queries[i] = ((const float *)args.q)[of_row * dim + i];
    simt::sync_block();
    Softmax total[HEADS];
    float sums[HEADS][DIMS_EACH];
    UNROLL for (int h = 0; h < HEADS; h++) {
      total[h] = {-INFINITY, 0.0f};
      UNROLL for (int i = 0; i < DIMS_EACH; i++) sums[h][i] = 0.0f;
    }
    for (int split = item.split_first; split < item.split_first + item.splits; split++) {
      const int begin = split * ATTENTION_SPLIT;
      const int first = row_first > begin ? row_first : begin;
      const int end = position + 1 < begin + ATTENTION_SPLIT ? position + 1 : begin + ATTENTION_SPLIT;
      for (int key = first + thread; key < end; key += THREADS) {
        const float *source =
            (const float *)args.keys +
            attention_page(table[key / tokens], kv_head, args.kv_heads, tokens, dim) +
            (int64_t)(key % tokens) * dim;
        float products[HEADS] = {};
        for (int d = 0; d < dim; d++) {
          const float value = source[d];
          UNROLL for (int h = 0; h < HEADS; h++)
            if (h < heads) products[h] = fmaf(queries[h * dim + d], value, products[h]);
        }
        UNROLL for (int h = 0; h < HEADS; h++)
          if (h < heads)
            scores[h * ATTENTION_SPLIT + key - begin] =
                attention_score(products[h], args.scale, args.softcap);
      }
      Softmax part[HEADS];
      UNROLL for (int h = 0; h < HEADS; h++) {
        if (h >= heads) break;
        float *row_scores = scores + h * ATTENTION_SPLIT;
        float largest = -INFINITY, sum = 0.0f;
        for (int key = first + thread; key < end; key += THREADS)
          largest = fmaxf(largest, row_scores[key - begin]);
        largest = across_block(largest, true, scratch);
        for (int key = first + thread; key < end; key += THREADS) {
          const float weight = simt::exp2(row_scores[key - begin] - largest);
          row_scores[key - begin] = weight;
          sum += weight;
        }
        sum = across_block(sum, false, scratch);
        part[h] = {largest, sum};
      }
      simt::sync_block();
      UNROLL for (int i = 0; i < DIMS_EACH; i++) {
        const int d = thread + i * THREADS;
        if (d >= dim) break;
        float of_split[HEADS] = {};
        for (int key = first; key < end;) {
          const int offset = key % tokens;
          const int until = end - key < tokens - offset ? end : key + tokens - offset;
          const float *source =
              (const float *)args.values +
              attention_page(table[key / tokens], kv_head, args.kv_heads, tokens, dim) +
              (int64_t)d * tokens + offset - key;
          for (; key < until; key++) {
            const float value = source[key];
            UNROLL for (int h = 0; h < HEADS; h++)
              if (h < heads)
                of_split[h] = fmaf(scores[h * ATTENTION_SPLIT + key - begin], value, of_split[h]);
          }
        }
        UNROLL for (int h = 0; h < HEADS; h++) {
          if (h >= heads) break;
          if (span.part_first >= 0) {
            const int64_t slot = span.part_first + (int64_t)row * span.splits + split - span.split_first;
            const int64_t target = slot * args.heads + head + h;
            args.parts[target * dim + d] = of_split[h];
            if (d == 0) {
              args.part_sums[target * 2] = part[h].largest;
              args.part_sums[target * 2 + 1] = part[h].sum;
            }
          } else {
            Softmax kept = total[h];
            float of_total, of_part;
            attention_fold(kept, part[h], of_total, of_part);
            sums[h][i] = fmaf(sums[h][i], of_total, of_split[h] * of_part);
          }
        }
      }
      UNROLL for (int h = 0; h < HEADS; h++) {
        if (h >= heads) break;
        float of_total, of_part;
        attention_fold(total[h], part[h], of_total, of_part);
      }
      simt::sync_block();
    }
    if (span.part_first >= 0) continue;
    UNROLL for (int h = 0; h < HEADS; h++) UNROLL for (int i = 0; i < DIMS_EACH; i++) {
      const int d = thread + i * THREADS;
      if (h < heads && d < dim) ((float *)args.out)[(of_row + h) * dim + d] = sums[h][i] / total[h].sum;
    }
  }
}
} // namespace

KERNEL(paged_attention_f32, 128, 4, AttentionArgs, attend_f32)
