//! `mortise top` prints what a server does, and says so if there is none.

use crate::harness::{Server, heldout};

#[tokio::test]
async fn top_shows_what_a_server_does() {
    let server = Server::without_shipped_plugins("");
    server.chat("npc", &heldout("npc", 0)).await;
    let url = server.url.clone();
    let top = |url: &str| server.cli(&["top", "--once", "--interval", "0.1", "--url", url]);
    let frame = top(&url).expect("a frame");
    for part in ["requests   0 running   0 waiting", "TTFT       p50 ", "ADAPTER", "model (base)"] {
        assert!(frame.contains(part), "{part}:\n{frame}");
    }
    let npc = frame.lines().find(|line| line.starts_with("npc ")).expect("a row");
    assert_eq!(npc.split_whitespace().nth(2), Some("1"), "{frame}");
    assert!(!frame.contains('\u{1b}'));
    // Nobody is there, and somebody else is.
    let gone =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let error = top(&format!("http://{gone}")).expect_err("nobody");
    assert!(
        error.contains("is the server running?") && error.contains(&gone.to_string()),
        "{error}"
    );
    let error = top(&server.admin_url).expect_err("another API");
    assert!(error.contains("answered 401"), "{error}");
}
