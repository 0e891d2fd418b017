//! Makes components from a few lines of core WebAssembly text, so that guests can do what no
//! toolchain would let them: lie about lengths, export the wrong shape, never return.

use std::path::{Path, PathBuf};

use plugin_host::PluginKind;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Where results of hooks begin: zeros, which every hook's result type reads as the plainest
/// success (pass, unchanged, empty).
pub(crate) const RESULT: u32 = 4096;
/// Where constant text of a guest begins.
pub(crate) const TEXT: u32 = 8192;

const NAME: u32 = 64;
const VERSION: u32 = 256;
const INIT_RESULT: u32 = 512;

/// A guest to be built. Bodies are the text of a core function; what they leave on the stack is the
/// address of the result.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    pub(crate) kind: PluginKind,
    pub(crate) name: String,
    pub(crate) version: String,
    /// What `init` says, if not the manifest's.
    pub(crate) says: Option<(String, String)>,
    init: String,
    hooks: Vec<(&'static str, String)>,
    /// Interfaces in the world and the core imports that use them.
    imports: Vec<String>,
    core_imports: String,
    /// More text of the module: data, tables, functions.
    module: String,
    memory: String,
    exports: Vec<String>,
    wit: Option<PathBuf>,
    manifest: String,
}

/// Number of core parameters of each hook.
fn hooks_of(kind: PluginKind) -> (&'static str, &'static [(&'static str, usize)]) {
    match kind {
        PluginKind::Router => ("router", &[("route", 1)]),
        PluginKind::Preprocessor => ("preprocessor", &[("process", 1)]),
        PluginKind::Postprocessor => ("postprocessor", &[("open", 14), ("push", 2), ("finish", 2)]),
        PluginKind::Scorer => ("scorer", &[("score", 1)]),
        PluginKind::Agent => ("agent", &[("run", 16)]),
    }
}

impl Guest {
    /// A guest whose hooks do nothing.
    pub(crate) fn new(kind: PluginKind) -> Self {
        let (interface, hooks) = hooks_of(kind);
        let plain = format!("(i32.const {RESULT})");
        Self {
            kind,
            name: format!("test-{interface}"),
            version: "0.1.0".to_owned(),
            says: None,
            init: format!("(i32.const {INIT_RESULT})"),
            hooks: hooks.iter().map(|(hook, _)| (*hook, plain.clone())).collect(),
            imports: Vec::new(),
            core_imports: String::new(),
            module: String::new(),
            memory: "1".to_owned(),
            exports: vec![
                "mortise:hooks/lifecycle@0.1.0".to_owned(),
                format!("mortise:hooks/{interface}@0.1.0"),
            ],
            wit: None,
            manifest: String::new(),
        }
    }

    pub(crate) fn named(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    pub(crate) fn version(mut self, version: &str) -> Self {
        self.version = version.to_owned();
        self
    }

    pub(crate) fn says(mut self, name: &str, version: &str) -> Self {
        self.says = Some((name.to_owned(), version.to_owned()));
        self
    }

    pub(crate) fn init(mut self, body: impl Into<String>) -> Self {
        self.init = body.into();
        self
    }

    /// Replaces the body of one hook. Its parameters are locals 0 and up.
    pub(crate) fn hook(mut self, name: &str, body: impl Into<String>) -> Self {
        let hook = self.hooks.iter_mut().find(|(hook, _)| *hook == name);
        hook.unwrap_or_else(|| panic!("no hook {name}")).1 = body.into();
        self
    }

    /// Imports an interface, and a function of it under a name for bodies.
    pub(crate) fn import(mut self, interface: &str, core: &str) -> Self {
        self.imports.push(interface.to_owned());
        self.core_imports.push_str(core);
        self
    }

    pub(crate) fn module(mut self, text: impl AsRef<str>) -> Self {
        self.module.push_str(text.as_ref());
        self
    }

    /// Text at [`TEXT`].
    pub(crate) fn text(self, text: &str) -> Self {
        let escaped: String = text.bytes().map(|byte| format!("\\{byte:02x}")).collect();
        self.module(format!("(data (i32.const {TEXT}) \"{escaped}\")"))
    }

    pub(crate) fn memory(mut self, pages: &str) -> Self {
        self.memory = pages.to_owned();
        self
    }

    pub(crate) fn without_export(mut self, part: &str) -> Self {
        self.exports.retain(|export| !export.contains(part));
        self
    }

    /// Uses another contract than the host's.
    pub(crate) fn wit(mut self, dir: &Path) -> Self {
        self.wit = Some(dir.to_owned());
        self
    }

    /// More lines of the manifest.
    pub(crate) fn manifest(mut self, lines: &str) -> Self {
        self.manifest.push_str(lines);
        self.manifest.push('\n');
        self
    }

    /// The component.
    pub(crate) fn build(&self) -> Vec<u8> {
        let mut resolve = Resolve::default();
        let contract = concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit");
        let contract = self.wit.clone().unwrap_or_else(|| contract.into());
        resolve.push_dir(&contract).expect("the contract parses");
        let imports: String =
            self.imports.iter().map(|import| format!("import {import};")).collect();
        let exports: String =
            self.exports.iter().map(|export| format!("export {export};")).collect();
        let world = format!("package test:guest; world guest {{ {imports} {exports} }}");
        let foreign = "package wasi:random@0.2.0; \
             interface random { get-random-u64: func() -> u64; }";
        resolve.push_str("random.wit", foreign).expect("WASI parses");
        let foreign = "package acme:cloud@1.0.0; interface store { put: func(); }";
        resolve.push_str("store.wit", foreign).expect("the unknown parses");
        let package = resolve.push_str("guest.wit", &world).expect("the world parses");
        let world = resolve.select_world(&[package], Some("guest")).expect("the world is there");
        let text = self.core();
        let mut module = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
            .expect("metadata");
        let mut encoder = ComponentEncoder::default();
        let encoded = encoder.validate(true).module(&module).and_then(ComponentEncoder::encode);
        encoded.unwrap_or_else(|error| panic!("{error:#}\n{text}"))
    }

    fn core(&self) -> String {
        let own = (self.name.clone(), self.version.clone());
        let (name, version) = self.says.as_ref().unwrap_or(&own);
        let (name_len, version_len) = (name.len() as u32, version.len() as u32);
        let words = [0, NAME, name_len, VERSION, version_len, 0, 0];
        let result: String = words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .map(|byte| format!("\\{byte:02x}"))
            .collect();
        let mut functions = String::new();
        let (_, sizes) = hooks_of(self.kind);
        let mut export = |interface: &str, hook: &str, parameters: usize, body: &str| {
            if self.exports.iter().any(|export| export == interface) {
                functions.push_str(&format!(
                    "(func (export \"{interface}#{hook}\") (param {}) (result i32)
                       (local $i i32) {body})\n",
                    "i32 ".repeat(parameters)
                ));
            }
        };
        export("mortise:hooks/lifecycle@0.1.0", "init", 4, &self.init);
        let (interface, _) = hooks_of(self.kind);
        for ((hook, body), (_, parameters)) in self.hooks.iter().zip(sizes) {
            export(&format!("mortise:hooks/{interface}@0.1.0"), hook, *parameters, body);
        }
        format!(
            "(module {core_imports}
               (memory (export \"memory\") {memory})
               (data (i32.const {NAME}) \"{name}\")
               (data (i32.const {VERSION}) \"{version}\")
               (data (i32.const {INIT_RESULT}) \"{result}\")
               (global $heap (mut i32) (i32.const 16384))
               (func $alloc (export \"cabi_realloc\")
                 (param $old i32) (param $had i32) (param $align i32) (param $size i32)
                 (result i32) (local $at i32)
                 (local.set $at (i32.and
                   (i32.add (global.get $heap) (i32.sub (local.get $align) (i32.const 1)))
                   (i32.sub (i32.const 0) (local.get $align))))
                 (global.set $heap (i32.add (local.get $at) (local.get $size)))
                 (if (i32.gt_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536)))
                   (then (if (i32.eq (i32.const -1) (memory.grow (i32.add (i32.const 1)
                       (i32.div_u (local.get $size) (i32.const 65536)))))
                     (then (unreachable)))))
                 (local.get $at))
               {module}
               {functions})",
            core_imports = self.core_imports,
            memory = self.memory,
            module = self.module,
        )
    }

    /// The manifest.
    pub(crate) fn plugin_toml(&self) -> String {
        let Self { name, version, kind, manifest, .. } = self;
        format!("name = \"{name}\"\nversion = \"{version}\"\nkind = \"{kind}\"\n{manifest}")
    }

    /// Writes manifest and component below `dir`.
    pub(crate) fn write(&self, dir: &Path) -> PathBuf {
        let dir = dir.join(format!("{}-{}", self.name, self.version));
        std::fs::create_dir_all(&dir).expect("directory");
        std::fs::write(dir.join("plugin.toml"), self.plugin_toml()).expect("manifest");
        std::fs::write(dir.join("plugin.wasm"), self.build()).expect("component");
        dir
    }
}

/// A body that stores words from [`RESULT`] on and returns their address.
pub(crate) fn result(words: &[u32]) -> String {
    let mut body = String::new();
    for (index, word) in words.iter().enumerate() {
        let at = RESULT + 4 * index as u32;
        body.push_str(&format!("(i32.store (i32.const {at}) (i32.const {}))", *word as i32));
    }
    body + &format!("(i32.const {RESULT})")
}

/// A body of `push` that gives an action (0 pass, 1 hold, 2 replace, 3 stop) with text at `at`.
pub(crate) fn action(case: u32, at: u32, len: u32) -> String {
    result(&[0, case, at, len])
}

/// A body that returns an error with the text at [`TEXT`] as code and message. `shift` is the number
/// of words before the payload, 1 but for preprocessors.
pub(crate) fn error(len: u32, shift: usize) -> String {
    let mut words = vec![1];
    words.resize(shift, 0);
    words.extend([TEXT, len, TEXT, len, 0, 0, 0]);
    result(&words)
}

/// A body that never ends.
pub(crate) const FOREVER: &str = "(loop (br 0)) (unreachable)";
