// Logits to token: adjustments of single logits, the likeliest token, and draws from what min-p, top-k
// and top-p leave. A block per row.
//
// Weights are integers, so that sums have no order and a draw is the same on every machine: 2^40 times
// exp((logit - largest) / temperature), rounded down, with an exp of our own that has the same bits
// everywhere. Thresholds are found by sums over the digits of a logit's bits, never by sorting.
#include "simt.cuh"

namespace {
const int THREADS = 512;
const int WARPS = THREADS / 32;
const uint32_t NOT_FINITE = 0xffffffffu;

struct AdjustItem {
  int32_t row;
  int32_t token;
  // Positive logits are divided by it, others multiplied.
  float repetition;
  float subtract;
  float add;
};

struct SampleRow {
  // A number in [0, 1), times 2^64.
  uint64_t draw;
  // Likewise, rounded up; all ones for no cut.
  uint64_t top_p;
  // Least weight; zero for no cut.
  uint64_t floor;
  // Zero for the likeliest.
  float temperature;
  // Zero for no cut.
  uint32_t top_k;
};

struct SampleArgs {
  // [rows][vocab]
  float *logits;
  const AdjustItem *items;
  const SampleRow *rows;
  uint32_t *tokens;
  int32_t vocab;
  int32_t item_count;
};

DEVICE void adjust(const SampleArgs &args) {
  const int i = simt::block_x() * simt::threads() + simt::thread();
  if (i >= args.item_count) return;
  const AdjustItem item = args.items[i];
  float *logit = args.logits + (int64_t)item.row * args.vocab + item.token;
  float value = *logit;
  if (item.repetition != 1.0f) value = value > 0.0f ? value / item.repetition : value * item.repetition;
  *logit = value - item.subtract + item.add;
}

DEVICE float exact_exp(float x) {
  x = x < 88.0f ? x : 88.0f;
  x = x > -87.0f ? x : -87.0f;
  const float n = rintf(x * 1.44269504f);
  const float r = fmaf(n, 2.1219444e-4f, fmaf(n, -0.6933594f, x));
  float p = 1.9875692e-4f;
  p = fmaf(p, r, 1.3982e-3f);
  p = fmaf(p, r, 8.333452e-3f);
  p = fmaf(p, r, 4.1665796e-2f);
  p = fmaf(p, r, 0.16666665f);
  p = fmaf(p, r, 0.5f);
  p = fmaf(p, r * r, r) + 1.0f;
  return p * bits_to_float((uint32_t)((int)n + 127) << 23);
}

DEVICE uint64_t weight_of(float logit, float largest, float temperature) {
  const float weight = exact_exp((logit - largest) / temperature);
  return (uint64_t)(weight * 1099511627776.0f);
}

// Bits that are ordered as the floats are; both zeros are the positive one.
DEVICE uint32_t key_of(float logit) {
  const uint32_t bits = float_to_bits(logit + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// Sum over the block; all threads get it. `scratch` holds a number per warp.
DEVICE uint64_t across_block(uint64_t value, uint64_t *scratch) {
  for (unsigned mask = 16; mask > 0; mask /= 2) value += simt::shuffle_xor(value, mask);
  simt::sync_block();
  if (simt::thread() % 32 == 0) scratch[simt::thread() / 32] = value;
  simt::sync_block();
  uint64_t sum = 0;
  for (int w = 0; w < WARPS; w++) sum += scratch[w];
  return sum;
}

// Sum over lower lanes and this one.
DEVICE uint64_t up_to_lane(uint64_t value) {
  const unsigned lane = simt::thread() % 32;
  for (unsigned step = 1; step < 32; step *= 2) {
    const uint64_t below = simt::shuffle(value, lane >= step ? lane - step : lane);
    if (lane >= step) value += below;
  }
  return value;
}

// Tokens that are kept: those with a larger key, and the first `ties` with this one.
struct Cut {
  uint32_t key;
  uint64_t ties;
};

struct Row {
  const float *logits;
  int vocab;
  float largest, temperature;
  uint64_t floor;
  uint64_t *scratch;
};

// The largest key such that the tokens from it upwards weigh at least `need`; `above` gets what those
// beyond it weigh. Tokens below `least` do not count, those at it weigh `least_weight` together. Every
// token weighs one where `count`. Key zero, which no token has, where there is not so much.
DEVICE uint32_t select_key(const Row &row, bool count, uint64_t need, uint32_t least,
                           uint64_t least_weight, uint64_t &above) {
  uint32_t prefix = 0;
  above = 0;
  for (int shift = 28; shift >= 0; shift -= 4) {
    uint64_t digits[16] = {};
    for (int i = simt::thread(); i < row.vocab; i += THREADS) {
      const uint32_t key = key_of(row.logits[i]);
      if (key < least || (shift < 28 && key >> (shift + 4) != prefix)) continue;
      const uint64_t weight = weight_of(row.logits[i], row.largest, row.temperature);
      if (weight < row.floor || key == least) continue;
      const uint32_t digit = key >> shift & 15;
      UNROLL for (uint32_t d = 0; d < 16; d++) digits[d] += digit == d ? (count ? 1 : weight) : 0;
    }
    uint32_t chosen = 0;
    bool found = false;
    UNROLL for (int d = 15; d >= 0; d--) {
      uint64_t sum = across_block(digits[d], row.scratch);
      const bool holds_least =
          (shift == 28 || least >> (shift + 4) == prefix) && (least >> shift & 15) == (uint32_t)d;
      if (holds_least) sum += least_weight;
      if (!found) {
        if (above + sum >= need || d == 0) {
          chosen = d;
          found = true;
        } else {
          above += sum;
        }
      }
    }
    prefix = prefix << 4 | chosen;
  }
  return prefix;
}

// Whether each lane's token is kept, going through a run of the vocabulary in order. `ties` counts
// tokens with the cut's key so far.
DEVICE bool is_kept(uint32_t key, bool inside, const Cut &cut, uint64_t &ties) {
  const bool tie = inside && key == cut.key;
  const uint64_t upto = up_to_lane(tie ? 1 : 0);
  const bool kept = inside && (key > cut.key || (tie && ties + upto <= cut.ties));
  ties += simt::shuffle(upto, 31u);
  return kept;
}

DEVICE void sample(const SampleArgs &args) {
  const SampleRow params = args.rows[simt::block_x()];
  uint64_t *scratch = (uint64_t *)simt::shared();
  const int thread = simt::thread(), lane = thread % 32, warp = thread / 32;
  Row row = {args.logits + (int64_t)simt::block_x() * args.vocab, args.vocab, 0.0f, params.temperature,
             params.floor, scratch};

  // The largest logit, the first of equals: key and id in one number.
  uint64_t best = 0, bad = 0;
  for (int i = thread; i < row.vocab; i += THREADS) {
    const float logit = row.logits[i];
    bad |= logit != logit || logit == INFINITY;
    const uint64_t candidate = (uint64_t)key_of(logit) << 32 | (uint32_t)~i;
    best = candidate > best ? candidate : best;
  }
  bad = across_block(bad, scratch);
  for (unsigned mask = 16; mask > 0; mask /= 2) {
    const uint64_t other = simt::shuffle_xor(best, mask);
    best = other > best ? other : best;
  }
  simt::sync_block();
  if (lane == 0) scratch[warp] = best;
  simt::sync_block();
  for (int w = 0; w < WARPS; w++) best = scratch[w] > best ? scratch[w] : best;
  const uint32_t likeliest = ~(uint32_t)best;
  row.largest = bad != 0 ? 0.0f : row.logits[likeliest];
  if (bad != 0 || row.largest == -INFINITY || params.temperature == 0.0f) {
    const bool finite = bad == 0 && row.largest > -INFINITY;
    if (thread == 0) args.tokens[simt::block_x()] = finite ? likeliest : NOT_FINITE;
    return;
  }

  Cut cut = {0, ~0ull};
  if (params.top_k > 0 && params.top_k < (uint32_t)row.vocab) {
    uint64_t above;
    cut.key = select_key(row, true, params.top_k, 0, 0, above);
    // Where the floor leaves fewer than k, this is key zero, below every token's.
    cut.ties = params.top_k - above;
  }
  if (params.top_p != ~0ull) {
    // What one token with the cut's key weighs, and how many of them count.
    uint64_t ties = 0, sum = 0, one = 0;
    for (int i = thread; i < row.vocab; i += THREADS) {
      const uint32_t key = key_of(row.logits[i]);
      if (key < cut.key) continue;
      const uint64_t weight = weight_of(row.logits[i], row.largest, row.temperature);
      if (weight < row.floor) continue;
      if (key == cut.key) {
        ties += 1;
        one = weight;
      } else {
        sum += weight;
      }
    }
    ties = across_block(ties, scratch);
    sum = across_block(sum, scratch);
    // Threads without such a token have zero; the others all the same.
    uint64_t has = across_block(one != 0, scratch);
    one = has != 0 ? across_block(one, scratch) / has : 0;
    if (ties > cut.ties) ties = cut.ties;
    const uint64_t least_weight = ties * one, total = sum + least_weight;
    uint64_t need = simt::multiply_high(total, params.top_p);
    if (need == 0) need = 1;
    uint64_t above;
    const uint32_t key = select_key(row, false, need, cut.key, least_weight, above);
    if (key > cut.key || (key == cut.key && ties > 0)) {
      uint64_t at = 0;
      for (int i = thread; i < row.vocab; i += THREADS)
        if (key_of(row.logits[i]) == key) at = weight_of(row.logits[i], row.largest, row.temperature);
      has = across_block(at != 0, scratch);
      at = has != 0 ? across_block(at, scratch) / has : 1;
      const uint64_t enough = (need - above + at - 1) / at;
      cut.ties = key == cut.key && enough > ties ? ties : enough;
      cut.key = key;
    }
  }

  // Each warp goes through its own run of the vocabulary, to keep the order of ids.
  const int run = (row.vocab + WARPS * 32 - 1) / (WARPS * 32) * 32;
  const int first = warp * run, end = first + run < row.vocab ? first + run : row.vocab;
  uint64_t ties = 0;
  for (int i = first + lane; i < end; i += 32) ties += key_of(row.logits[i]) == cut.key;
  for (unsigned mask = 16; mask > 0; mask /= 2) ties += simt::shuffle_xor(ties, mask);
  simt::sync_block();
  if (lane == 0) scratch[warp] = ties;
  simt::sync_block();
  uint64_t ties_before = 0;
  for (int w = 0; w < warp; w++) ties_before += scratch[w];
  simt::sync_block();

  uint64_t sum = 0;
  ties = ties_before;
  for (int at = first; at < end; at += 32) {
    const int i = at + lane;
    const float logit = i < end ? row.logits[i] : -INFINITY;
    const bool kept = is_kept(key_of(logit), i < end, cut, ties);
    const uint64_t weight = kept ? weight_of(logit, row.largest, row.temperature) : 0;
    sum += weight >= row.floor ? weight : 0;
  }
  for (unsigned mask = 16; mask > 0; mask /= 2) sum += simt::shuffle_xor(sum, mask);
  if (lane == 0) scratch[warp] = sum;
  simt::sync_block();
  uint64_t before = 0, total = 0;
  for (int w = 0; w < WARPS; w++) {
    before += w < warp ? scratch[w] : 0;
    total += scratch[w];
  }
  const uint64_t target = simt::multiply_high(total, params.draw);
  if (target < before || target >= before + sum) return;
  ties = ties_before;
  for (int at = first; at < end; at += 32) {
    const int i = at + lane;
    const float logit = i < end ? row.logits[i] : -INFINITY;
    const bool kept = is_kept(key_of(logit), i < end, cut, ties);
    uint64_t weight = kept ? weight_of(logit, row.largest, row.temperature) : 0;
    weight = weight >= row.floor ? weight : 0;
    const uint64_t upto = up_to_lane(weight);
    if (target >= before + upto - weight && target < before + upto) args.tokens[simt::block_x()] = i;
    before += simt::shuffle(upto, 31u);
  }
}
} // namespace

KERNEL(sample_adjust, 128, 8, SampleArgs, adjust)
KERNEL(sample_rows, 512, 1, SampleArgs, sample)
