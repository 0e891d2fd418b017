//! What clients that hold, stall or stay can and can't do to a listener.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream as Client;

use axum::routing::get;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;

use super::*;

const ASK: &[u8] = b"GET /now HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
const ASK_LATER: &[u8] = b"GET /later HTTP/1.1\r\nhost: x\r\n\r\n";
/// Long enough for a loaded machine; a hang is still a failure.
const PATIENCE: Duration = Duration::from_secs(60);

struct Setup {
    address: SocketAddr,
    serving: Serving,
    /// A request for `/later` has come.
    asked: Arc<Notify>,
    /// Lets `/later` answer.
    answer: Arc<Notify>,
}

async fn start(connections_max: usize, headers_timeout: Duration) -> Setup {
    let address = "127.0.0.1:0".parse().expect("an address");
    let mut listener = Listener::bind(address, connections_max).await.expect("a free port");
    listener.headers_timeout = headers_timeout;
    let address = listener.address().expect("bound");
    let (asked, answer) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (coming, going) = (Arc::clone(&asked), Arc::clone(&answer));
    let later = move || async move {
        coming.notify_one();
        going.notified().await;
        "later"
    };
    let routes = Router::new().route("/now", get(|| async { "now" })).route("/later", get(later));
    Setup { address, serving: listener.serve(routes), asked, answer }
}

fn connect(address: SocketAddr) -> Client {
    let client = Client::connect(address).expect("a connection");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    client
}

/// Everything that comes until the server closes the connection.
fn read_all(mut client: Client) -> String {
    let mut bytes = Vec::new();
    match client.read_to_end(&mut bytes) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("no end: {error}"),
        _ => String::from_utf8(bytes).expect("UTF-8"),
    }
}

#[tokio::test]
async fn clients_that_do_not_send_their_headers_are_cut_off() {
    let setup = start(8, Duration::from_millis(20)).await;
    for sent in [&b""[..], b"G", b"PRI * HTTP/2.0\r\n", b"GET /now HTTP/1.1\r\nhost: x\r\n"] {
        let address = setup.address;
        let talk = move || {
            let mut client = connect(address);
            client.write_all(sent).expect("sent");
            read_all(client)
        };
        let got = spawn_blocking(talk).await.expect("cut off");
        assert!(!got.contains("200 OK"), "{got}");
    }
}

#[tokio::test]
async fn one_connection_too_many_waits_for_a_place() {
    let setup = start(2, PATIENCE).await;
    let address = setup.address;
    let talk = move || {
        let (first, _second) = (connect(address), connect(address));
        let mut third = connect(address);
        third.write_all(ASK).expect("sent");
        third.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        let early = third.read(&mut [0; 1]).expect_err("no place yet").kind();
        assert!(matches!(early, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{early}");
        drop(first);
        third.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        read_all(third)
    };
    assert!(spawn_blocking(talk).await.expect("answered").ends_with("now"));
}

#[tokio::test]
async fn closing_waits_for_running_answers_and_takes_no_more() {
    let Setup { address, serving, asked, answer } = start(8, PATIENCE).await;
    let mut client = connect(address);
    client.write_all(ASK_LATER).expect("sent");
    asked.notified().await;
    let stop = serving.stop.clone();
    let closing = tokio::spawn(serving.close());
    stop.cancelled().await;
    assert!(!closing.is_finished());
    answer.notify_one();
    let got = spawn_blocking(move || read_all(client)).await.expect("answered");
    assert!(got.contains("200 OK") && got.ends_with("later"), "{got}");
    closing.await.expect("closed");
    assert_eq!(Client::connect(address).expect_err("closed").kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_cut_ends_what_would_not_end() {
    let Setup { address, serving, asked, .. } = start(8, PATIENCE).await;
    let mut client = connect(address);
    client.write_all(ASK_LATER).expect("sent");
    asked.notified().await;
    let cut = serving.cut();
    let closing = tokio::spawn(serving.close());
    cut.cancel();
    assert_eq!(spawn_blocking(move || read_all(client)).await.expect("cut"), "");
    closing.await.expect("closed");
}
