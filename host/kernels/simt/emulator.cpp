// Fibers, barriers and the table of kernels; see emulator.h.
#include "emulator.h"

#include <stdio.h>
#include <stdlib.h>
#include <vector>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace simt {
thread_local Place here;
thread_local unsigned char *block_shared;

namespace {
const size_t STACK = 64 << 10;
const size_t MAILBOX = 32;
const size_t CANARY = 64;

#if defined(__x86_64__)
// Saves what a call must preserve on this stack and continues on the other.
extern "C" void simt_switch(void **from, void *to);
asm(R"(
.text
.globl simt_switch
.type simt_switch,@function
simt_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
.size simt_switch,.-simt_switch
)");
struct Context {
  void *stack;
  void start(unsigned char *memory, void (*entry)()) {
    void **top = (void **)(memory + STACK - 64);
    top[6] = (void *)entry;
    stack = top;
  }
  static void change(Context &from, Context &to) { simt_switch(&from.stack, to.stack); }
};
#else
struct Context {
  ucontext_t context;
  void start(unsigned char *memory, void (*entry)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = memory;
    context.uc_stack.ss_size = STACK;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
  }
  static void change(Context &from, Context &to) { swapcontext(&from.context, &to.context); }
};
#endif

struct alignas(64) Bytes64 {
  unsigned char bytes[64];
};

struct Fiber {
  Context context;
  Wait wait;
  // Which half of its mailbox is in use.
  unsigned turn;
};

struct Machine {
  std::vector<Fiber> fibers;
  std::vector<unsigned char> stacks, mailboxes;
  Context scheduler;
  void (*run)(const void *);
  const void *args;
};
thread_local Machine machine;
Entry *entries;

[[noreturn]] void fail(const char *name, const char *what) {
  fprintf(stderr, "simt: %s: %s in block (%u, %u)\n", name, what, here.block_x, here.block_y);
  abort();
}

void fiber_main() {
  machine.run(machine.args);
  wait(Wait::Done);
}

// Lets threads `first..last` go on if all that are not done wait for `kind`.
bool release(unsigned first, unsigned last, Wait kind) {
  bool waiting = false;
  for (unsigned i = first; i < last; i++) {
    if (machine.fibers[i].wait == kind) waiting = true;
    else if (machine.fibers[i].wait != Wait::Done) return false;
  }
  for (unsigned i = first; waiting && i < last; i++)
    if (machine.fibers[i].wait == kind) machine.fibers[i].wait = Wait::None;
  return waiting;
}

void run_block(const char *name, unsigned threads, bool backwards) {
  here.threads = threads;
  for (unsigned i = 0; i < threads; i++) {
    Fiber &fiber = machine.fibers[i];
    fiber.wait = Wait::None;
    fiber.turn = 0;
    fiber.context.start(&machine.stacks[i * STACK], fiber_main);
  }
  for (;;) {
    for (unsigned n = 0; n < threads; n++) {
      unsigned i = backwards ? threads - 1 - n : n;
      if (machine.fibers[i].wait != Wait::None) continue;
      here.thread = i;
      Context::change(machine.scheduler, machine.fibers[i].context);
    }
    bool released = false, live = false;
    for (unsigned first = 0; first < threads; first += 32)
      released |= release(first, first + 32 < threads ? first + 32 : threads, Wait::Warp);
    if (!released) released = release(0, threads, Wait::Block);
    for (unsigned i = 0; i < threads; i++) live |= machine.fibers[i].wait != Wait::Done;
    if (!live) return;
    if (!released) fail(name, "a barrier that not all threads reach");
  }
}
} // namespace

void wait(Wait kind) {
  Place place = here;
  Fiber &fiber = machine.fibers[here.thread];
  fiber.wait = kind;
  Context::change(fiber.context, machine.scheduler);
  here = place;
}

unsigned char *mailbox(unsigned index) {
  unsigned turn = machine.fibers[here.thread].turn;
  return &machine.mailboxes[(2 * index + turn) * MAILBOX];
}

void next_turn() { machine.fibers[here.thread].turn ^= 1; }

Entry::Entry(const char *name, unsigned threads, unsigned long args, void (*run)(const void *))
    : name(name), threads(threads), args(args), run(run), next(entries) {
  entries = this;
}

const Entry *find(const char *name) {
  for (Entry *entry = entries; entry; entry = entry->next)
    if (strcmp(entry->name, name) == 0) return entry;
  return nullptr;
}
} // namespace simt

// Runs a kernel over a grid. 0, or 1: no such kernel, 2: arguments of another size, 3: more threads than
// the kernel was made for. `backwards` runs blocks and threads from the last to the first.
extern "C" int simt_launch(const char *name, const unsigned *grid, unsigned threads, size_t shared,
                           const void *args, size_t args_bytes, int backwards) {
  using namespace simt;
  const Entry *entry = find(name);
  if (!entry) return 1;
  if (entry->args != args_bytes) return 2;
  if (threads == 0 || threads > entry->threads || threads % 32 != 0) return 3;
  machine.fibers.resize(threads);
  machine.stacks.resize(threads * STACK);
  machine.mailboxes.resize(2 * threads * MAILBOX);
  machine.run = entry->run;
  machine.args = args;
  std::vector<Bytes64> memory((shared + CANARY + 63) / 64);
  block_shared = (unsigned char *)memory.data();
  here.blocks_x = grid[0];
  for (unsigned n = 0; n < grid[0] * grid[1]; n++) {
    unsigned index = backwards ? grid[0] * grid[1] - 1 - n : n;
    here.block_x = index % grid[0];
    here.block_y = index / grid[0];
    memset(block_shared, 0xff, shared);
    memset(block_shared + shared, 0x5a, CANARY);
    run_block(name, threads, backwards != 0);
    for (size_t i = 0; i < CANARY; i++)
      if (block_shared[shared + i] != 0x5a) fail(name, "a write past the end of shared memory");
  }
  return 0;
}
