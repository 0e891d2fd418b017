// Rows of keys and values to their slots: keys as [block][kv_head][token][dim], values as
// [block][kv_head][dim][token], which is how attention reads them.
#include "simt.cuh"

namespace {
struct KvWriteArgs {
  // [rows][kv_heads][dim]
  const void *k;
  const void *v;
  void *keys;
  void *values;
  // Block times `block_tokens` plus offset; negative for rows that are not kept.
  const int64_t *slots;
  int64_t elements;
  int32_t kv_heads;
  int32_t dim;
  int32_t block_tokens;
  int32_t unused;
};

template <typename T> DEVICE void kv_write(const KvWriteArgs &args) {
  const int64_t i = (int64_t)simt::block_x() * simt::threads() + simt::thread();
  if (i >= args.elements) return;
  const int d = i % args.dim, head = i / args.dim % args.kv_heads;
  const int64_t slot = args.slots[i / args.dim / args.kv_heads];
  if (slot < 0) return;
  const int64_t page = (slot / args.block_tokens * args.kv_heads + head) * args.block_tokens * args.dim;
  const int token = slot % args.block_tokens;
  ((T *)args.keys)[page + (int64_t)token * args.dim + d] = ((const T *)args.k)[i];
  ((T *)args.values)[page + (int64_t)d * args.block_tokens + token] = ((const T *)args.v)[i];
}
} // namespace

KERNEL(kv_write_f32, 256, 4, KvWriteArgs, kv_write<float>)
KERNEL(kv_write_f16, 256, 4, KvWriteArgs, kv_write<f16_t>)
KERNEL(kv_write_bf16, 256, 4, KvWriteArgs, kv_write<bf16_t>)
