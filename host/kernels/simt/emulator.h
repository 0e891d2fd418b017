// The emulated machine: blocks one after another, threads as fibers that run from barrier to barrier.
//
// It finds: barriers that not all threads reach, shared memory read before it is written (it begins as
// NaN), writes past the end of shared memory, and, by running threads and blocks in either order,
// most missing barriers. It does not find: races within one run, and anything about speed.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#define DEVICE static inline
#define SHARED_CODE static inline
#define UNROLL

namespace simt {
enum class Wait { None, Warp, Block, Done };

struct Place {
  unsigned thread, threads, block_x, block_y, blocks_x;
};
extern thread_local Place here;
extern thread_local unsigned char *block_shared;

// Suspends the running thread until its warp or block has come to the same kind of barrier.
void wait(Wait kind);
// Bytes that the thread `index` of this block shows to its warp; two turns alternate, so that a fast
// lane does not overwrite what a slow one still has to read.
unsigned char *mailbox(unsigned index);
void next_turn();

// A kernel, known by name to the host.
struct Entry {
  Entry(const char *name, unsigned threads, unsigned long args, void (*run)(const void *));
  const char *name;
  unsigned threads;
  unsigned long args;
  void (*run)(const void *);
  Entry *next;
};

inline unsigned thread() { return here.thread; }
inline unsigned threads() { return here.threads; }
inline unsigned block_x() { return here.block_x; }
inline unsigned block_y() { return here.block_y; }
inline unsigned blocks_x() { return here.blocks_x; }
inline unsigned char *shared() { return block_shared; }
inline void sync_block() { wait(Wait::Block); }
inline void sync_warp() { wait(Wait::Warp); }

template <typename T> T shuffle(T value, unsigned lane) {
  memcpy(mailbox(here.thread), &value, sizeof(T));
  wait(Wait::Warp);
  T result;
  memcpy(&result, mailbox((here.thread & ~31u) | (lane & 31u)), sizeof(T));
  next_turn();
  return result;
}
template <typename T> T shuffle_xor(T value, unsigned mask) {
  return shuffle(value, (here.thread & 31u) ^ mask);
}
inline bool any(bool value) {
  unsigned bits = value;
  for (unsigned mask = 16; mask > 0; mask /= 2) bits |= shuffle_xor(bits, mask);
  return bits != 0;
}
inline void add_shared(unsigned long long *target, unsigned long long value) { *target += value; }
inline void add_shared(unsigned *target, unsigned value) { *target += value; }
inline uint64_t multiply_high(uint64_t a, uint64_t b) {
  return (uint64_t)(((unsigned __int128)a * b) >> 64);
}
inline float exp2(float x) { return exp2f(x); }
} // namespace simt

#define KERNEL(name, threads, blocks, Args, ...)                                          \
  static void name##_run(const void *args) { (__VA_ARGS__)(*(const Args *)args); }        \
  static simt::Entry name##_entry(#name, threads, sizeof(Args), name##_run);

struct f16_t {
  uint16_t bits;
};
struct bf16_t {
  uint16_t bits;
};

inline float to_float(float x) { return x; }
inline float to_float(bf16_t x) {
  uint32_t bits = (uint32_t)x.bits << 16;
  float out;
  memcpy(&out, &bits, 4);
  return out;
}
inline float to_float(f16_t x) {
  uint32_t sign = (uint32_t)(x.bits & 0x8000) << 16, exponent = x.bits >> 10 & 31;
  uint32_t fraction = x.bits & 0x3ff;
  if (exponent == 0) {
    float small = ldexpf((float)fraction, -24);
    return sign ? -small : small;
  }
  uint32_t bits = sign | (exponent == 31 ? 0x7f800000 : (exponent + 112) << 23) | fraction << 13;
  float out;
  memcpy(&out, &bits, 4);
  return out;
}

template <typename T> struct Narrow;
template <> struct Narrow<float> {
  static float from(float x) { return x; }
};
template <> struct Narrow<bf16_t> {
  static bf16_t from(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return bf16_t{(uint16_t)(bits >> 16 | 64)};
    return bf16_t{(uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
  }
};
template <> struct Narrow<f16_t> {
  static f16_t from(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    uint16_t sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) return f16_t{(uint16_t)(sign | 0x7e00)};
    if (bits >= 0x477ff000) return f16_t{(uint16_t)(sign | 0x7c00)};
    if (bits < 0x38800000) {
      float magnitude;
      memcpy(&magnitude, &bits, 4);
      return f16_t{(uint16_t)(sign | (uint16_t)nearbyintf(ldexpf(magnitude, 24)))};
    }
    bits += 0xfff + (bits >> 13 & 1);
    return f16_t{(uint16_t)(sign | (bits - 0x38000000) >> 13)};
  }
};

namespace simt {
// The tensor core, by the documented fragments: lane 4g+t holds of `a` rows g and g+8, columns 2t, 2t+1
// and 8 further; of `b` the same columns' rows for its column g; of `d` rows g and g+8, columns 2t, 2t+1.
template <typename T> struct Mma {
  static void run(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    uint32_t words[6] = {a[0], a[1], a[2], a[3], b0, b1};
    memcpy(mailbox(here.thread), words, sizeof(words));
    wait(Wait::Warp);
    unsigned warp = here.thread & ~31u, group = (here.thread & 31u) / 4, inner = here.thread % 4;
    for (unsigned i = 0; i < 4; i++) {
      unsigned row = i / 2, column = 2 * inner + i % 2;
      for (unsigned k = 0; k < 16; k++) {
        unsigned owner = k % 8 / 2, half = k / 8;
        T left[2], right[2];
        memcpy(left, mailbox(warp | group * 4 | owner) + 4 * (2 * half + row), 4);
        memcpy(right, mailbox(warp | column * 4 | owner) + 4 * (4 + half), 4);
        d[i] += to_float(left[k % 2]) * to_float(right[k % 2]);
      }
    }
    next_turn();
  }
};
} // namespace simt
