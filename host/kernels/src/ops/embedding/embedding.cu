// Rows of a table by token id. Ids are the host's to check.
#include "simt.cuh"

namespace {
struct EmbeddingArgs {
  // [entries][width]
  const void *table;
  const uint32_t *ids;
  void *out;
  int64_t elements;
  int32_t width;
  int32_t unused;
};

template <typename T> DEVICE void embedding(const EmbeddingArgs &args) {
  const int64_t i = (int64_t)simt::block_x() * simt::threads() + simt::thread();
  if (i >= args.elements) return;
  const int64_t row = args.ids[i / args.width];
  ((T *)args.out)[i] = ((const T *)args.table)[row * args.width + i % args.width];
}
} // namespace

KERNEL(embedding_f32, 256, 4, EmbeddingArgs, embedding<float>)
KERNEL(embedding_f16, 256, 4, EmbeddingArgs, embedding<f16_t>)
KERNEL(embedding_bf16, 256, 4, EmbeddingArgs, embedding<bf16_t>)
