//! Every key in the file and as a flag, which of them wins, and where limits end.

use std::path::{Path, PathBuf};

use clap::{Args, Command, FromArgMatches};

use super::limits::LimitSettings;
use super::{Config, ConfigError, LogFormat, Settings, parse, read};

fn command() -> Command {
    Settings::augment_args(Command::new("mortise").no_binary_name(true))
}

fn flags(words: &[&str]) -> Result<Settings, String> {
    let matches = command().try_get_matches_from(words).map_err(|error| error.to_string())?;
    Settings::from_arg_matches(&matches).map_err(|error| error.to_string())
}

fn file(text: &str) -> Settings {
    parse(text, Path::new("mortise.toml")).expect(text)
}

/// A configuration that can be used, with more settings on top.
fn resolve(settings: Settings) -> Result<Config, ConfigError> {
    Config::resolve(settings.over(file("model = \"models/tiny\"")), 4)
}

/// Key, its line in the file, and its flag, for every key that is no limit.
const KEYS: &[(&str, &str, &str)] = &[
    ("model", "model = 'm'", "--model=m"),
    ("base_name", "base_name = 'b'", "--base-name=b"),
    ("adapter", "[[adapter]]\nname = 'a'\npath = 'd/e=f'", "--adapter=a=d/e=f"),
    ("adapter_dir", "adapter_dir = 'a'", "--adapter-dir=a"),
    ("adapter_root", "adapter_root = ['r']", "--adapter-root=r"),
    (
        "allow_runtime_lora_updating",
        "allow_runtime_lora_updating = true",
        "--allow-runtime-lora-updating",
    ),
    ("plugin_dir", "plugin_dir = 'p'", "--plugin-dir=p"),
    (
        "plugins",
        "[[plugins]]\nname = 'mask'\non_failure = 'bypass'\ngrants = ['corpus']\norder = 3\n\
         budget_tokens = 5\npath = 'p'\nactivate = false\nconfig = { words = ['x', 'y'] }",
        "--plugins=name = 'mask', on_failure = 'bypass', grants = ['corpus'], order = 3, \
         budget_tokens = 5, path = 'p', activate = false, config = { words = ['x', 'y'] }",
    ),
    ("grant_requested", "grant_requested = true", "--grant-requested"),
    ("data_dir", "data_dir = 'd'", "--data-dir=d"),
    ("listen", "listen = '127.0.0.1:1'", "--listen=127.0.0.1:1"),
    ("admin_listen", "admin_listen = '127.0.0.1:2'", "--admin-listen=127.0.0.1:2"),
    ("admin_token_file", "admin_token_file = 't'", "--admin-token-file=t"),
    ("api_keys_file", "api_keys_file = 'k'", "--api-keys-file=k"),
    (
        "allow_remote_without_keys",
        "allow_remote_without_keys = false",
        "--allow-remote-without-keys=false",
    ),
    ("threads", "threads = 3", "--threads=3"),
    ("tensor_parallel_size", "tensor_parallel_size = 2", "--tensor-parallel-size=2"),
    ("adapter_source", "adapter_source = ['hf://acme']", "--adapter-source=hf://acme"),
    ("hf_endpoint", "hf_endpoint = 'http://mirror'", "--hf-endpoint=http://mirror"),
    ("device", "device = 'cuda'", "--device=cuda"),
    ("quantize", "quantize = 'q8_0'", "--quantize=q8_0"),
    ("kv_cache_dtype", "kv_cache_dtype = 'int8'", "--kv-cache-dtype=int8"),
    ("tool_call_parser", "tool_call_parser = 'llama3_json'", "--tool-call-parser=llama3_json"),
    ("otlp_endpoint", "otlp_endpoint = 'http://c:4318'", "--otlp-endpoint=http://c:4318"),
    ("log_format", "log_format = 'json'", "--log-format=json"),
];

#[test]
fn each_key_is_a_line_of_the_file_and_a_flag() {
    for (key, line, flag) in KEYS {
        let (from_file, from_flag) = (file(line), flags(&[flag]).expect(flag));
        assert_eq!(from_file, from_flag, "{key}");
        assert_ne!(from_file, Settings::default(), "{key}");
    }
    for (key, default, ..) in LimitSettings::TABLE {
        let mut expect = Settings::default();
        expect.limits.set(key, *default);
        assert_eq!(file(&format!("[limits]\n{key} = {default}")), expect);
        let flag = format!("--{}={default}", key.replace('_', "-"));
        assert_eq!(flags(&[&flag]).expect(key), expect);
    }
    let tested = KEYS.iter().map(|(key, ..)| *key);
    let mut tested: Vec<_> = tested.chain(LimitSettings::TABLE.iter().map(|row| row.0)).collect();
    let command = command();
    let mut known: Vec<_> = command.get_arguments().map(|known| known.get_id().as_str()).collect();
    tested.sort_unstable();
    known.sort_unstable();
    assert_eq!(tested, known, "a key without a row here");
}

#[test]
fn a_bad_file_is_refused_with_its_line() {
    let check = |text: &str, line: usize, part: &str| {
        let error = parse(text, Path::new("conf/mortise.toml")).expect_err(text).to_string();
        let place = format!("conf/mortise.toml: line {line}: ");
        assert!(error.starts_with(&place), "{error} is not at {place}");
        assert!(error.contains(part), "{error} does not say {part}");
    };
    check("colour = 1", 1, "unknown field `colour`");
    check("model = 'm'\n\n# note\ncolour = 1\n", 4, "unknown field `colour`");
    check("model = 'm'\n[limits]\nqueue_max = 1\nqueue = 1\n", 4, "unknown field `queue`");
    check("queue_max = 1", 1, "unknown field `queue_max`");
    check("[[adapter]]\nname = 'a'\npath = 'p'\nrank = 1", 4, "unknown field `rank`");
    check("[[adapter]]\nname = 'a'", 1, "missing field `path`");
    check("[[plugins]]\nname = 'a'\nonfailure = 'reject'", 3, "unknown field `onfailure`");
    check("[[plugins]]\nname = 'a'\non_failure = 'ignore'", 3, "unknown variant `ignore`");
    check("[[plugins]]\nname = 'a'\ngrants = ['wasi']", 3, "unknown variant `wasi`");
    check("threads = -1", 1, "-1");
    check("threads = 'two'", 1, "string \"two\"");
    check("model = 'm'\nmodel = 'n'", 2, "duplicate key");
    check("model = ", 1, "");
    check("[other]\nx = 1", 1, "unknown field `other`");
}

#[test]
fn a_bad_flag_is_refused_by_name() {
    for (flag, part) in [
        ("--colour=1", "--colour"),
        ("--adapter=a", "expected NAME=DIR, got `a`"),
        ("--adapter==d", "expected NAME=DIR"),
        ("--adapter=a=", "expected NAME=DIR"),
        ("--plugins=name = 'a', colour = 1", "unknown field `colour`"),
        ("--plugins=order = 1", "missing field `name`"),
        ("--plugins=name = 'a' }\nmodel = 'x'\nrest = { x = 1", "unknown field"),
        ("--threads=many", "--threads"),
        ("--queue-max=-1", "--queue-max"),
        ("--log-format=xml", "--log-format"),
        ("--quantize=q9", "--quantize"),
        ("--kv-cache-dtype=f8", "--kv-cache-dtype"),
        ("--device=gpu", "--device"),
        ("--grant-requested=perhaps", "--grant-requested"),
    ] {
        let error = flags(&[flag]).expect_err(flag);
        assert!(error.contains(part), "{flag}: {error}");
    }
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let lower = "threads = 2\nlisten = '127.0.0.1:7'\ngrant_requested = true\n[limits]\n\
                 queue_max = 5\nkv_blocks = 6\n\
                 [[adapter]]\nname = 'a'\npath = 'a1'\n[[adapter]]\nname = 'b'\npath = 'b1'";
    let upper = ["--threads=3", "--queue-max=9", "--grant-requested=false", "--adapter=a=a2"];
    let upper = flags(&[&upper[..], &["--adapter=c=c2"]].concat()).expect("flags");
    let config = resolve(upper.over(file(lower))).expect("a configuration");
    assert_eq!((config.threads, config.limits.queue_max), (3, 9));
    assert!(!config.grant_requested);
    assert_eq!((config.listen.port(), config.limits.kv_blocks), (7, 6));
    assert_eq!(config.limits.block_tokens, 16);
    assert_eq!(config.log_format, LogFormat::Text);
    let adapters: Vec<_> = config.adapters.iter().map(|a| (&*a.name, a.path.clone())).collect();
    assert_eq!(adapters, [("a", "a2".into()), ("b", "b1".into()), ("c", PathBuf::from("c2"))]);
}

#[test]
fn limits_hold_at_their_ends_and_not_beyond() {
    for (key, default, min, max) in LimitSettings::TABLE {
        let check = |value: u64, inside: bool| {
            let mut limits = LimitSettings::default();
            limits.set(key, value);
            match limits.resolve() {
                Ok(_) => assert!(inside, "{key} = {value} was taken"),
                Err(error) => {
                    assert!(!inside, "{key} = {value} was refused: {error}");
                    assert_eq!((error.name, error.got), (*key, value));
                    assert!(error.to_string().contains(key), "{error}");
                }
            }
        };
        check(*default, true);
        check(*min, true);
        check(*max, true);
        check(max + 1, false);
        if let Some(below) = min.checked_sub(1) {
            check(below, false);
        }
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    let check = |text: &str, part: Option<&str>| match (resolve(file(text)), part) {
        (Ok(_), None) => {}
        (Err(error), Some(part)) => {
            assert!(error.to_string().contains(part), "{error} does not say {part}");
        }
        (found, part) => panic!("{text}: {found:?}, expected {part:?}"),
    };
    check("threads = 0", Some("threads must be 1 to 1024"));
    check("threads = 1", None);
    check("threads = 1024", None);
    check("threads = 1025", Some("threads must be 1 to 1024"));
    check("tensor_parallel_size = 0", Some("tensor_parallel_size must be 1 to 64"));
    check("tensor_parallel_size = 64", None);
    check("tensor_parallel_size = 65", Some("tensor_parallel_size must be 1 to 64"));
    let steps = |tokens| format!("[limits]\nsequences_max = 32\nstep_tokens_max = {tokens}");
    check(&steps(31), Some("step_tokens_max must be at least sequences_max (32), got 31"));
    check(&steps(32), None);
    check("listen = 'localhost'", Some("listen must be HOST:PORT"));
    check("admin_listen = '127.0.0.1:65536'", Some("admin_listen must be HOST:PORT"));
    check("listen = '127.0.0.1:0'", None);
    check("listen = '[::1]:0'", None);
    check("base_name = 'auto'", Some("base_name"));
    check("base_name = 'agent:x'", Some("base_name"));
    check("base_name = ''", Some("base_name"));
    check("base_name = 'agents'", None);
    check("adapter_source = ['hf://', 's3://bucket/a']", None);
    check("adapter_source = ['bucket/a']", Some("adapter_source must be an address"));
    check("adapter_source = ['https://user@host']", Some("only hf:// has an @"));
    let missing = Config::resolve(Settings::default(), 4).expect_err("no model").to_string();
    assert!(missing.contains("model is missing"), "{missing}");
}

#[test]
fn other_machines_are_served_with_keys_or_on_the_operators_word() {
    let check = |text: &str, expect: bool| {
        let found = resolve(file(&format!("listen = '0.0.0.0:0'\n{text}")));
        assert_eq!(found.is_ok(), expect, "{text}: {found:?}");
    };
    check("", false);
    check("allow_remote_without_keys = false", false);
    check("allow_remote_without_keys = true", true);
    check("api_keys_file = 'keys'", true);
}

#[test]
fn defaults_follow_the_model_and_the_machine() {
    let config = resolve(Settings::default()).expect("a configuration");
    assert_eq!((config.base_name.as_str(), config.threads), ("tiny", 4));
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.admin_listen.to_string(), "127.0.0.1:8081");
    assert_eq!(config.data_dir, Path::new("mortise-data"));
    assert!(!config.grant_requested);
}

#[test]
fn a_model_is_called_what_its_directory_or_file_is() {
    let check = |model: &str, expect: &str| {
        let settings = Settings { model: Some(model.into()), ..Settings::default() };
        let config = Config::resolve(settings, 1).expect("a configuration");
        assert_eq!(config.base_name, expect, "{model}");
    };
    check("models/llama", "llama");
    check("models/llama/", "llama");
    check("llama-1b.Q8_0.gguf", "llama-1b.Q8_0");
    check("/models/llama.gguf", "llama");
    check("models/.gguf", ".gguf");
    check(".", "server");
}

#[test]
fn paths_of_a_file_are_relative_to_it() {
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("mortise.toml");
    let text = "model = 'm'\ndata_dir = '/data'\n[[adapter]]\nname = 'a'\npath = '../a'\n\
                [[adapter]]\nname = 'b'\npath = 'hf://acme/b@v1'\n\
                [[plugins]]\nname = 'p'\npath = 'p'";
    std::fs::write(&path, text).expect("written");
    let settings = read(&path).expect("a file");
    assert_eq!(settings.model, Some(dir.path().join("m")));
    assert_eq!(settings.data_dir.as_deref(), Some(Path::new("/data")));
    assert_eq!(settings.adapter[0].path, dir.path().join("../a"));
    assert_eq!(settings.adapter[1].path, Path::new("hf://acme/b@v1"));
    assert_eq!(settings.plugins[0].path, Some(dir.path().join("p")));
    let missing = read(&dir.path().join("none.toml")).expect_err("no file").to_string();
    assert!(missing.contains("none.toml"), "{missing}");
}

#[test]
fn policies_take_their_place_from_the_list_unless_told() {
    let text = "[[plugins]]\nname = 'a'\n[[plugins]]\nname = 'b'\n\
                [[plugins]]\nname = 'c'\norder = 0\ngrants = ['corpus']";
    let plugins = file(text).plugins;
    let orders = |all: bool| -> Vec<_> {
        let policies = plugins.iter().enumerate().map(|(place, entry)| entry.policy(place, all));
        policies.map(|policy| (policy.order, policy.grants.len())).collect()
    };
    assert_eq!(orders(false), [(0, 0), (1, 0), (0, 1)]);
    assert_eq!(orders(true), [(0, 3), (1, 3), (0, 3)]);
}

/// The operator's page shows a file that can be used as it stands.
#[test]
fn the_documented_configuration_is_one() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operating.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let (_, rest) = page.split_once("```toml\n").expect("an example");
    let (example, _) = rest.split_once("```").expect("its end");
    let settings = parse(example, Path::new("operating.md")).expect("parses");
    let config = Config::resolve(settings, 2).expect("resolves");
    assert_eq!(config.plugins.len(), 3);
    assert_eq!(config.limits.queue_max, 256);
    assert_eq!(config.adapter_sources.len(), 2);
}
