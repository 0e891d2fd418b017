//! More adapters than fit: every answer is what it would be if all of them were in memory, whatever
//! comes, goes, is torn or replaced meanwhile.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{
    ADAPTERS, Server, chat_body, content, copy_of, heldout, metric, root, with_alpha,
};

/// Adapters in the folder.
const MANY: usize = 50;
/// How many of them fit into memory.
const FITTING: u64 = 5;
const WEIGHTS: &str = "adapter_model.safetensors";

/// A folder of [`MANY`] adapters, each another content: the shipped ones at other scales.
fn many() -> TempDir {
    let folder = tempfile::tempdir().expect("temporary folder");
    for index in 0..MANY {
        make(folder.path(), index);
    }
    folder
}

fn name(index: usize) -> String {
    format!("many-{index:02}")
}

/// Makes one of them.
fn make(folder: &Path, index: usize) -> PathBuf {
    let from = root().join("examples/tiny/adapters").join(ADAPTERS[index % 4]);
    let target = folder.join(name(index));
    std::fs::create_dir_all(&target).expect("folder");
    for file in ["adapter_config.json", WEIGHTS] {
        std::fs::copy(from.join(file), target.join(file)).expect("copied");
    }
    with_alpha(&target, 1.0 - index as f64 / 100.0);
    target
}

/// A server over `folder` with this many bytes for adapters.
fn server(folder: &Path, adapter_bytes_max: Option<u64>, more: &str) -> Server {
    let limit = adapter_bytes_max.map(|bytes| format!("adapter_bytes_max = {bytes}\n"));
    let config = format!("{more}\n[limits]\n{}", limit.unwrap_or_default());
    Server::over_adapters(folder, &config)
}

async fn list(server: &Server) -> Vec<Value> {
    let (status, list) = server.admin("GET", "/admin/adapters", json!({})).await;
    assert_eq!(status, 200, "{list}");
    list["adapters"].as_array().expect("a list").clone()
}

/// Bytes of the largest adapter.
async fn bytes(server: &Server) -> u64 {
    let bytes = |adapter: &Value| adapter["bytes"].as_u64().expect("a number");
    list(server).await.iter().map(bytes).max().expect("adapters")
}

/// A short greedy answer of an adapter to a prompt of its domain.
async fn ask(server: &Server, index: usize) -> (u16, Value) {
    let mut body = chat_body(&name(index), &heldout(ADAPTERS[index % 4], index % 7));
    body["max_tokens"] = json!(12);
    server.post("/v1/chat/completions", body).await
}

async fn answer(server: &Server, index: usize) -> String {
    let (status, body) = ask(server, index).await;
    assert_eq!(status, 200, "{}: {body}", name(index));
    content(&body).to_owned()
}

/// What every adapter answers when all are in memory.
async fn all_resident(folder: &Path) -> (Vec<String>, u64) {
    let server = server(folder, None, "");
    let mut answers = Vec::new();
    for index in 0..MANY {
        answers.push(answer(&server, index).await);
    }
    (answers, bytes(&server).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_adapters_in_the_room_of_five_answer_as_if_all_were_there() {
    let folder = many();
    let (expect, bytes) = all_resident(folder.path()).await;
    let distinct: std::collections::BTreeSet<&String> = expect.iter().collect();
    assert!(distinct.len() > MANY / 2, "too few answers differ: {}", distinct.len());
    let server = server(folder.path(), Some(bytes * FITTING), "");
    for adapter in list(&server).await {
        assert_eq!((&adapter["residence"], &adapter["generation"]), (&json!("disk"), &json!(null)));
    }
    // All at once, twice, in two orders.
    let order = (0..MANY).chain((0..MANY).map(|index| index * 7 % MANY));
    let together = order.map(|index| {
        let server = &server;
        async move { (index, answer(server, index).await) }
    });
    for (index, found) in futures_util::future::join_all(together).await {
        assert_eq!(found, expect[index], "{}", name(index));
    }
    let (_, metrics) = server.get("/metrics").await;
    let resident = metric(&metrics, "mortise_adapters_resident");
    let evictions = metric(&metrics, "mortise_adapter_evictions_total");
    // Some are smaller than the largest, of which five fit.
    assert!((FITTING as f64..MANY as f64 / 2.0).contains(&resident), "{resident}");
    assert_eq!(evictions, metric(&metrics, "mortise_adapter_loads_total") - resident);
    assert!(metric(&metrics, "mortise_adapters_resident_bytes") <= (bytes * FITTING) as f64);
    assert!(metric(&metrics, "mortise_adapter_wait_seconds_count") >= MANY as f64);
    let adapters = list(&server).await;
    let sum = |key: &str| adapters.iter().map(|a| a[key].as_u64().expect("a number")).sum::<u64>();
    assert_eq!((sum("uses"), sum("leases")), (2 * MANY as u64, 0));
    assert!(sum("loads") >= MANY as u64, "{adapters:?}");
}

/// Asks for others until these have gone.
async fn evict(server: &Server, these: &[usize], expect: &[String]) {
    for index in (10..MANY).cycle().take(20 * MANY) {
        let adapters = list(server).await;
        if these.iter().all(|index| adapters[*index]["residence"] == "disk") {
            return;
        }
        assert_eq!(answer(server, index).await, expect[index]);
    }
    panic!("what nobody asks for stays in memory");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn torn_and_replaced_files_are_refused_and_nobody_else_notices() {
    let folder = many();
    let (expect, bytes) = all_resident(folder.path()).await;
    let server = server(folder.path(), Some(bytes * FITTING), "");
    assert_eq!(answer(&server, 0).await, expect[0]);
    assert_eq!(answer(&server, 1).await, expect[1]);
    evict(&server, &[0, 1], &expect).await;
    // One is torn now, the other has the scale of a third.
    let weights = folder.path().join(name(0)).join(WEIGHTS);
    let whole = std::fs::read(&weights).expect("weights");
    std::fs::write(&weights, &whole[..whole.len() / 2]).expect("torn");
    std::fs::copy(
        folder.path().join(name(5)).join("adapter_config.json"),
        folder.path().join(name(1)).join("adapter_config.json"),
    )
    .expect("replaced");
    for index in [0, 1] {
        let (status, refused) = ask(&server, index).await;
        assert_eq!(status, 503, "{refused}");
        assert_eq!(refused["error"]["code"], "adapter_unavailable", "{refused}");
        let path = folder.path().to_str().expect("UTF-8");
        assert!(!refused.to_string().contains(path), "clients need not know: {refused}");
    }
    assert_eq!(answer(&server, 10).await, expect[10]);

    // The operator says that the new content is meant, and the torn file is whole again.
    std::fs::write(&weights, &whole).expect("whole");
    assert_eq!(answer(&server, 0).await, expect[0]);
    let (status, scan) = server.admin("POST", "/admin/scan", json!({})).await;
    assert_eq!(status, 200, "{scan}");
    assert_eq!((&scan["added"], &scan["changed"]), (&json!(0), &json!(2)), "{scan}");
    let mut body = chat_body(&name(1), &heldout(ADAPTERS[1], 5));
    body["max_tokens"] = json!(12);
    let (status, found) = server.post("/v1/chat/completions", body).await;
    assert_eq!((status, content(&found)), (200, expect[5].as_str()), "{found}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_into_the_folder_is_found_and_what_goes_is_forgotten() {
    let folder = tempfile::tempdir().expect("temporary folder");
    make(folder.path(), 0);
    let server = server(folder.path(), None, "");
    let (status, missing) = ask(&server, 1).await;
    assert_eq!((status, &missing["error"]["code"]), (404, &json!("model_not_found")));
    make(folder.path(), 1);
    assert_eq!(ask(&server, 1).await.0, 200, "found when it is asked for");
    for hostile in ["../many-00", "many-00/../many-01", "/etc", ".", "..", "many-00/", "a\u{0}b"] {
        let body = chat_body(hostile, "Hello.");
        assert_eq!(server.post("/v1/chat/completions", body).await.0, 404, "{hostile:?}");
    }
    let torn = make(folder.path(), 2);
    std::fs::write(torn.join(WEIGHTS), "").expect("torn");
    assert_eq!(ask(&server, 2).await.0, 503);
    std::fs::remove_dir_all(folder.path().join(name(0))).expect("removed");
    let scanned = server.cli(&["adapter", "scan"]).expect("scanned");
    assert!(scanned.contains("0 added, 0 changed, 1 removed"), "{scanned}");
    assert!(scanned.contains("too short for a header"), "{scanned}");
    assert_eq!(ask(&server, 0).await.0, 404);
    assert_eq!(ask(&server, 1).await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loads_and_unloads_under_load_change_no_answer() {
    let folder = many();
    let (expect, bytes) = all_resident(folder.path()).await;
    let server = server(folder.path(), Some(bytes * FITTING), "");
    let stop = AtomicBool::new(false);
    let clients = (0..8).map(|client| {
        let (server, expect, stop) = (&server, &expect, &stop);
        async move {
            let mut asked = 0;
            while !stop.load(Ordering::Relaxed) {
                let index = (client * 11 + asked * 5) % MANY;
                assert_eq!(answer(server, index).await, expect[index]);
                asked += 1;
            }
            asked
        }
    });
    let operator = async {
        for round in 0..20 {
            let index = round % 7;
            let path = folder.path().join(name(index));
            // The same content by another way, and a name that nobody asks for.
            let body = json!({"lora_name": name(index), "lora_path": path, "load_inplace": true});
            let (status, text) = server.admin("POST", "/v1/load_lora_adapter", body).await;
            assert_eq!(status, 200, "{text}");
            let body = json!({"name": "extra", "path": path});
            let (status, text) = server.admin("POST", "/admin/adapters", body).await;
            assert_eq!(status, 200, "{text}");
            let body = json!({"lora_name": "extra"});
            let (status, text) = server.admin("POST", "/v1/unload_lora_adapter", body).await;
            assert_eq!(status, 200, "{text}");
        }
        stop.store(true, Ordering::Relaxed);
    };
    let (asked, ()) =
        futures_util::future::join(futures_util::future::join_all(clients), operator).await;
    assert!(asked.into_iter().all(|asked: usize| asked > 0));
    let leases = |adapter: &Value| adapter["leases"].as_u64().expect("a number");
    assert_eq!(list(&server).await.iter().map(leases).sum::<u64>(), 0);
}

#[tokio::test]
async fn the_api_of_vllm_is_there_for_those_who_may() {
    let folder = tempfile::tempdir().expect("temporary folder");
    make(folder.path(), 0);
    let elsewhere = tempfile::tempdir().expect("temporary folder");
    let outside = copy_of("support", elsewhere.path());
    std::os::unix::fs::symlink(&outside, folder.path().join("a-link")).expect("linked");
    let server = server(folder.path(), None, "");
    let body = json!({"lora_name": "more", "lora_path": name(0)});
    for path in ["/v1/load_lora_adapter", "/v1/unload_lora_adapter"] {
        assert_eq!(server.post(path, body.clone()).await.0, 404, "not for clients");
    }
    let (status, text) = server.admin("POST", "/v1/load_lora_adapter", body.clone()).await;
    assert_eq!(text, "Success: LoRA adapter 'more' added successfully.");
    assert_eq!(status, 200);
    let (status, list) = server.admin("GET", "/v1/lora_adapters", json!({})).await;
    assert_eq!(status, 200, "{list}");
    let listed = list["data"].as_array().expect("a list").iter();
    let more = listed.clone().find(|adapter| adapter["id"] == "more").expect("listed");
    assert_eq!((&more["object"], &more["residence"]), (&json!("lora_adapter"), &json!("memory")));
    let refused = async |path: &str, body: Value, status: u16, part: &str| {
        let (got, answer) = server.admin("POST", path, body).await;
        assert_eq!(got, status, "{answer}");
        let message = answer["error"]["message"].as_str().expect("a message");
        assert!(message.contains(part), "{message}");
    };
    let load = "/v1/load_lora_adapter";
    refused(load, body, 400, "already been loaded").await;
    refused(load, json!({"lora_name": "x"}), 400, "lora_path").await;
    refused(load, json!({"lora_name": "", "lora_path": "y"}), 400, "must be provided").await;
    for path in [outside.to_str().expect("UTF-8"), "a-link", "..", "/etc", "nowhere", "."] {
        let body = json!({"lora_name": "x", "lora_path": path});
        refused(load, body, 400, "is not a directory below").await;
    }
    let unload = "/v1/unload_lora_adapter";
    let (status, text) = server.admin("POST", unload, json!({"lora_name": "more"})).await;
    assert_eq!((status, text), (200, json!("Success: LoRA adapter 'more' removed successfully.")));
    refused(unload, json!({"lora_name": "more"}), 404, "more").await;

    let roots =
        format!("allow_runtime_lora_updating = true\nadapter_root = [{:?}]", elsewhere.path());
    let server = self::server(folder.path(), None, &roots);
    let body = json!({"lora_name": "more", "lora_path": outside});
    let (status, text) = server.post("/v1/load_lora_adapter", body).await;
    assert_eq!(status, 200, "{text}");
    assert_eq!(server.chat("more", "Hello.").await["model"], "more");
    let (status, text) = server.post(unload, json!({"lora_name": "more"})).await;
    assert_eq!(status, 200, "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_adapters_answer_as_one() {
    let server = Server::demo();
    let (npc, support) = (heldout("npc", 1), heldout("support", 1));
    let alone = content(&server.chat("npc", &npc).await).to_owned();
    for spelled in ["npc:1", "npc:0.5+npc:0.5", "npc:1+support:0"] {
        let body = server.chat(spelled, &npc).await;
        assert_eq!((content(&body), &body["model"]), (alone.as_str(), &json!(spelled)));
    }
    let base = serde_json::from_str::<Value>(&server.get("/v1/models").await.1).expect("JSON");
    let base = base["data"][0]["id"].as_str().expect("the base");
    let of_base = server.chat(base, &npc).await;
    assert_eq!(content(&server.chat("npc:0", &npc).await), content(&of_base));

    // Rows of a blend, of its parts and of the base share forwards.
    let names = ["npc:0.5+support:0.5", "npc", "support", base, "support:0.25+npc:0.75"];
    let ask = async |name: &str| content(&server.chat(name, &support).await).to_owned();
    let mut one_by_one = Vec::new();
    for name in names {
        one_by_one.push(ask(name).await);
    }
    let together = futures_util::future::join_all(names.map(ask)).await;
    assert_eq!(together, one_by_one);

    let mut body = chat_body("npc:0.5+support:1", &support);
    body["mortise"] = json!({"attribution": true});
    let (status, answer) = server.post("/v1/chat/completions", body).await;
    assert_eq!(status, 200, "{answer}");
    let attribution = &answer["mortise"]["attribution"];
    assert_eq!(attribution["status"], "scored", "{answer}");
    assert!(attribution["method"].as_str().is_some_and(|method| method.contains("*weights@1")));
    let shares = attribution["shares"].as_array().expect("shares").iter();
    let parts = shares.map(|share| share["parts_per_billion"].as_u64().expect("a number"));
    assert_eq!(parts.sum::<u64>(), 1_000_000_000);
    let id = answer["mortise"]["receipt"].as_str().expect("an id");
    let receipt = server.get(&format!("/v1/receipts/{id}")).await.1;
    let receipt: Value = serde_json::from_str(&receipt).expect("JSON");
    assert_eq!(receipt["adapter"]["alias"], "npc:0.5+support:1", "{receipt}");

    for (name, status) in [("npc+nobody", 404), ("npc:0.5+", 404), ("npc:1e9", 400), ("a:0.1", 404)]
    {
        let (found, refused) = server.post("/v1/chat/completions", chat_body(name, "Hi.")).await;
        assert_eq!(found, status, "{name}: {refused}");
        assert_eq!(refused["error"]["param"], "model", "{refused}");
    }
}
