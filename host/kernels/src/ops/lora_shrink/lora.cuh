// What shrink and expand share: the table of adapters, and the pieces of work of a step. No CUDA types,
// so that hosts and tests read the same structures.
#pragma once
#include "simt.cuh"

// `A` [rank][in] and `B` [out][rank] of one module of one adapter. Runs of both are padded with zeros
// to whole eights of elements and begin on sixteen bytes.
struct LoraEntry {
  const void *a;
  const void *b;
  int32_t rank;
  float scale;
};

// Some rows of one adapter. `hidden` is where the hidden states of the first begin, the states of its
// other rows follow, `rank` floats each. Shrink computes the ranks from `rank_first` on.
struct LoraItem {
  int32_t row;
  int32_t rows;
  int32_t entry;
  int32_t rank_first;
  int64_t hidden;
};

struct LoraArgs {
  // [rows][width]: read by shrink, added to by expand.
  void *x;
  // Ragged floats.
  float *hidden;
  const LoraEntry *entries;
  const LoraItem *items;
  // Inputs of shrink, outputs of expand.
  int32_t width;
  int32_t unused;
};

// Elements from run to run.
SHARED_CODE int64_t lora_padded(int64_t width) { return (width + 7) / 8 * 8; }

// Ranks of one item of shrink over single rows, and over tiles.
enum { LORA_ROW_RANKS = 4, LORA_TILE_RANKS = 32 };
// Rows of a tile.
enum { LORA_TILE_ROWS = 16 };
// Outputs of one block of expand.
enum { LORA_EXPAND_OUTPUTS = 256 };
