// What kernels are written in terms of. Under nvcc: CUDA itself. Under a C++ compiler: a small
// machine that runs one block at a time, a fiber per thread, for tests without a GPU (see
// simt/emulator.h). Kernels use nothing of CUDA that is not named here.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__

#include <cuda_bf16.h>
#include <cuda_fp16.h>

// A function of device code.
#define DEVICE static __device__ __forceinline__
// For index arithmetic that hosts use as well.
#define SHARED_CODE static __host__ __device__ __forceinline__

// Exports `body(args)` as a kernel of `threads` threads per block, of which at least `blocks` should
// fit a multiprocessor. All arguments travel in one structure.
#define KERNEL(name, threads, blocks, Args, ...)                                          \
  extern "C" __global__ void __launch_bounds__(threads, blocks)                           \
      name(const __grid_constant__ Args args) {                                           \
    (__VA_ARGS__)(args);                                                                  \
  }

namespace simt {
DEVICE unsigned thread() { return threadIdx.x; }
DEVICE unsigned threads() { return blockDim.x; }
DEVICE unsigned block_x() { return blockIdx.x; }
DEVICE unsigned block_y() { return blockIdx.y; }
DEVICE unsigned blocks_x() { return gridDim.x; }

// The block's shared memory, as many bytes as the launch says.
DEVICE unsigned char *shared() {
  extern __shared__ __align__(16) unsigned char simt_shared_memory[];
  return simt_shared_memory;
}
DEVICE void sync_block() { __syncthreads(); }
DEVICE void sync_warp() { __syncwarp(); }
template <typename T> DEVICE T shuffle_xor(T value, unsigned mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
template <typename T> DEVICE T shuffle(T value, unsigned lane) {
  return __shfl_sync(0xffffffffu, value, lane);
}
DEVICE bool any(bool value) { return __any_sync(0xffffffffu, value); }
// To shared memory.
DEVICE void add_shared(unsigned long long *target, unsigned long long value) {
  atomicAdd(target, value);
}
DEVICE void add_shared(unsigned *target, unsigned value) { atomicAdd(target, value); }
// High half of the product.
DEVICE uint64_t multiply_high(uint64_t a, uint64_t b) { return __umul64hi(a, b); }
DEVICE float exp2(float x) { return exp2f(x); }

// d += a * b on a tensor core, sixteen by eight by sixteen; simt/emulator.h spells out the fragments.
template <typename T> struct Mma;
template <> struct Mma<__half> {
  static __device__ __forceinline__ void run(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                             uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
};
template <> struct Mma<__nv_bfloat16> {
  static __device__ __forceinline__ void run(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                             uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
};
} // namespace simt

typedef __half f16_t;
typedef __nv_bfloat16 bf16_t;
DEVICE float to_float(float x) { return x; }
DEVICE float to_float(f16_t x) { return __half2float(x); }
DEVICE float to_float(bf16_t x) { return __bfloat162float(x); }
template <typename T> struct Narrow;
template <> struct Narrow<float> {
  static __device__ __forceinline__ float from(float x) { return x; }
};
template <> struct Narrow<f16_t> {
  static __device__ __forceinline__ f16_t from(float x) { return __float2half_rn(x); }
};
template <> struct Narrow<bf16_t> {
  static __device__ __forceinline__ bf16_t from(float x) { return __float2bfloat16_rn(x); }
};
#define UNROLL _Pragma("unroll")

#else
#include "emulator.h"
#endif

// Rounds to nearest, ties to even.
template <typename T> DEVICE T from_float(float x) { return Narrow<T>::from(x); }

DEVICE float bits_to_float(uint32_t bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}
DEVICE uint32_t float_to_bits(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return bits;
}

// Sixteen bytes, the widest access of a thread.
struct alignas(16) Bytes16 {
  uint32_t word[4];
};
struct alignas(8) Bytes8 {
  uint32_t word[2];
};

// Sum over the lanes whose numbers differ in the bits below `width`, a power of two; all get it.
DEVICE float sum_lanes(float value, unsigned width = 32) {
  for (unsigned mask = width / 2; mask > 0; mask /= 2) value += simt::shuffle_xor(value, mask);
  return value;
}
DEVICE float max_lanes(float value, unsigned width = 32) {
  for (unsigned mask = width / 2; mask > 0; mask /= 2)
    value = fmaxf(value, simt::shuffle_xor(value, mask));
  return value;
}

// Eight elements as floats. Where `whole`, sixteen bytes at a time: `source` is aligned for it and
// all eight are there; else the first `count`, and zeros.
DEVICE void load8(float (&out)[8], const float *source, bool whole, int count) {
  if (whole) {
    Bytes16 low = *(const Bytes16 *)source, high = *(const Bytes16 *)(source + 4);
    UNROLL for (int i = 0; i < 4; i++) {
      out[i] = bits_to_float(low.word[i]);
      out[i + 4] = bits_to_float(high.word[i]);
    }
  } else {
    UNROLL for (int i = 0; i < 8; i++) out[i] = i < count ? source[i] : 0.0f;
  }
}
template <typename T> DEVICE void load8(float (&out)[8], const T *source, bool whole, int count) {
  if (whole) {
    Bytes16 raw = *(const Bytes16 *)source;
    T elements[8];
    memcpy(elements, &raw, 16);
    UNROLL for (int i = 0; i < 8; i++) out[i] = to_float(elements[i]);
  } else {
    UNROLL for (int i = 0; i < 8; i++) out[i] = i < count ? to_float(source[i]) : 0.0f;
  }
}

// Two elements in a word, the first in the low half, as tensor cores take them.
template <typename T> DEVICE uint32_t pack2(float low, float high) {
  T pair[2] = {from_float<T>(low), from_float<T>(high)};
  uint32_t word;
  memcpy(&word, pair, 4);
  return word;
}

// As `load8`, kept as they are: four words of two elements.
template <typename T>
DEVICE Bytes16 load_words(const T *source, bool whole, int count) {
  if (whole) return *(const Bytes16 *)source;
  Bytes16 words;
  UNROLL for (int i = 0; i < 4; i++) {
    float low = 2 * i < count ? to_float(source[2 * i]) : 0.0f;
    float high = 2 * i + 1 < count ? to_float(source[2 * i + 1]) : 0.0f;
    words.word[i] = pack2<T>(low, high);
  }
  return words;
}
