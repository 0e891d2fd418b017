//! The archive that stands for a shared library: a trampoline per function, and the look-up.
//!
//! It is compiled into the build script and into the test of what it writes; it never looks for a library
//! itself.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// A shared library to load late.
pub(crate) struct Library {
    /// As in `-l`.
    pub(crate) name: &'static str,
    /// Its functions, one per line.
    pub(crate) symbols: &'static str,
    /// File names, the first that loads wins.
    pub(crate) files: &'static [&'static str],
    /// What its functions return when there is none.
    pub(crate) status: i32,
}

impl Library {
    /// Writes `lib<name>.a` and its sources to `out`.
    pub(crate) fn archive(&self, compiler: &mut cc::Build, out: &Path) {
        let symbols: Vec<&str> = self.symbols.split_whitespace().collect();
        let loader = out.join(format!("lazy_{}.c", self.name));
        let trampolines = out.join(format!("lazy_{}_jump.S", self.name));
        fs::write(&loader, loader_source(self, &symbols)).expect("the folder can be written");
        fs::write(&trampolines, trampoline_source(self.name, &symbols)).expect("as above");
        compiler
            .out_dir(out)
            .file(loader)
            .file(trampolines)
            .pic(true)
            .cargo_metadata(false)
            .compile(self.name);
    }
}

/// The C half: names of the functions, and the look-up. Nothing is cached on failure, so a library
/// that appears later is found by the next call.
fn loader_source(library: &Library, symbols: &[&str]) -> String {
    let (name, status) = (library.name, library.status);
    let quoted = |words: &[&str]| {
        words.iter().fold(String::new(), |mut all, word| {
            let _ = write!(all, "\"{word}\", ");
            all
        })
    };
    let (files, names) = (quoted(library.files), quoted(symbols));
    format!(
        r#"#include <dlfcn.h>
#include <stddef.h>
static int lazy_absent_{name}(void) {{ return {status}; }}
static const char *const lazy_files_{name}[] = {{ {files} NULL }};
static const char *const lazy_names_{name}[] = {{ {names} }};
static void *lazy_handle_{name};
__attribute__((visibility("hidden"))) extern void *lazy_table_{name}[];
__attribute__((visibility("hidden"), used)) void *lazy_find_{name}(size_t index) {{
  void *handle = __atomic_load_n(&lazy_handle_{name}, __ATOMIC_ACQUIRE);
  for (int i = 0; !handle && lazy_files_{name}[i]; i++)
    handle = dlopen(lazy_files_{name}[i], RTLD_LAZY | RTLD_GLOBAL);
  if (!handle) return (void *)lazy_absent_{name};
  __atomic_store_n(&lazy_handle_{name}, handle, __ATOMIC_RELEASE);
  void *function = dlsym(handle, lazy_names_{name}[index]);
  if (!function) return (void *)lazy_absent_{name};
  __atomic_store_n(&lazy_table_{name}[index], function, __ATOMIC_RELEASE);
  return function;
}}
"#
    )
}

/// The assembly half: each function jumps through its entry of a table, which at first leads to the
/// look-up. The look-up keeps every register that can hold an argument.
fn trampoline_source(name: &str, symbols: &[&str]) -> String {
    let mut text = String::from(".text\n");
    for (index, symbol) in symbols.iter().enumerate() {
        let _ = write!(
            text,
            ".globl {symbol}\n.type {symbol},@function\n\
             {symbol}: jmp *lazy_table_{name}+{offset}(%rip)\n\
             .Lfind{index}: pushq ${index}\n jmp .Lcommon\n.size {symbol},.-{symbol}\n",
            offset = 8 * index
        );
    }
    let _ = write!(
        text,
        r#".Lcommon:
 pushq %rdi; pushq %rsi; pushq %rdx; pushq %rcx; pushq %r8; pushq %r9; pushq %rax
 subq $136, %rsp
 movups %xmm0, (%rsp); movups %xmm1, 16(%rsp); movups %xmm2, 32(%rsp); movups %xmm3, 48(%rsp)
 movups %xmm4, 64(%rsp); movups %xmm5, 80(%rsp); movups %xmm6, 96(%rsp); movups %xmm7, 112(%rsp)
 movq 192(%rsp), %rdi
 call lazy_find_{name}
 movq %rax, %r11
 movups (%rsp), %xmm0; movups 16(%rsp), %xmm1; movups 32(%rsp), %xmm2; movups 48(%rsp), %xmm3
 movups 64(%rsp), %xmm4; movups 80(%rsp), %xmm5; movups 96(%rsp), %xmm6; movups 112(%rsp), %xmm7
 addq $136, %rsp
 popq %rax; popq %r9; popq %r8; popq %rcx; popq %rdx; popq %rsi; popq %rdi
 addq $8, %rsp
 jmp *%r11
.data
.hidden lazy_table_{name}
.globl lazy_table_{name}
.balign 8
lazy_table_{name}:
"#
    );
    for index in 0..symbols.len() {
        let _ = writeln!(text, " .quad .Lfind{index}");
    }
    text.push_str(".section .note.GNU-stack,\"\",@progbits\n");
    text
}
